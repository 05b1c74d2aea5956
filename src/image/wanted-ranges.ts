/**
 * Which ranges of a source a capture reads, from two kinds of knowledge: where the source may hold anything but
 * zeros (a file's holes), and what its filesystems use (the survey).
 *
 * A hole is a zero range and an unused range is left alone, so they must not be mixed up: unused ranges shorter
 * than the merge gap are read, and what they hold is captured as it is. What is left of them is then longer than
 * any run of zeros that becomes data, which is why the classifier need not know of them.
 */
import type { CaptureSource } from "./capture-source.ts";
import { dataRangesOf, wholeRange } from "./data-ranges.ts";
import { complement, intersection, joined, RangeList } from "./range-list.ts";
import type { Survey } from "./survey.ts";
import { KiB } from "../units.ts";

/** Holes shorter than this are read like data: finding their zeros costs less than another read. */
const READ_THROUGH_BYTES = 64 * KiB;

export class WantedRanges {
  /** What may hold data, as ranges that are as narrow as they are known. */
  readonly narrowest: RangeList;
  readonly #data: RangeList;
  readonly #taken: RangeList | null;
  readonly #diskBytes: number;
  readonly #neededBytes: number;

  constructor(source: CaptureSource, survey: Survey | null) {
    this.#diskBytes = source.sizeBytes;
    this.#data = source.isBlockDevice
      ? wholeRange(source.sizeBytes)
      : dataRangesOf(source.bufferedFd, source.path, source.sizeBytes);
    this.#taken = survey === null ? null : RangeList.from(survey.taken);
    this.#neededBytes = survey?.neededBytes ?? source.sizeBytes;
    this.narrowest = this.#taken === null ? this.#data : intersection(this.#data, this.#taken);
  }

  /** What is read when ranges closer than the gap are joined. */
  ranges(mergeGapBytes: number): RangeList {
    if (this.#taken === null) return joined(this.#data, READ_THROUGH_BYTES);
    const wanted = intersection(this.#data, joined(this.#taken, mergeGapBytes));
    // Not further than the gap: what is unused beyond it must not be read, and be taken for data.
    return joined(wanted, Math.min(READ_THROUGH_BYTES, mergeGapBytes));
  }

  /** What the target must have zeroed: all that is not sent, but for what is unused. */
  zeros(extents: RangeList, mergeGapBytes: number): RangeList {
    const notSent = complement(extents, this.#diskBytes);
    return this.#taken === null ? notSent : intersection(notSent, joined(this.#taken, mergeGapBytes));
  }

  /** Unused bytes that joining ranges and filling blocks adds to what is read. */
  addedBytes(mergeGapBytes: number): number {
    return this.#taken === null ? 0 : joined(this.#taken, mergeGapBytes).totalBytes - this.#neededBytes;
  }
}
