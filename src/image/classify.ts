/**
 * Turns runs of data and of zeros, told in disk order, into extents and into the stream of bytes that the
 * pieces cover. Pure and incremental: it sees lengths, never bytes, and keeps only the extents.
 *
 * A run of zeros between two runs of data is held back until its length is known: shorter than the merge
 * gap it becomes data (an extent costs some 60 bytes of torrent and a seek, a few zeros cost less), else it
 * parts two extents. Zeros before the first and after the last data are never sent.
 *
 * Invariant: the sink has been told exactly the bytes of `extents`, in order.
 */
import { assert } from "../errors.ts";
import { RangeList } from "./range-list.ts";

/** Granularity at which read data is looked at for zeros: a page, and the sector of most filesystems. */
export const CLASSIFY_BLOCK_BYTES = 4096;

export interface PayloadSink {
  /** Payload goes on with these bytes of the disk. */
  data(diskOffsetBytes: number, lengthBytes: number): void;
  /** Payload goes on with that many zeros, which the disk holds after what was told last. */
  zeros(lengthBytes: number): void;
}

export interface ClassifierOptions {
  readonly diskBytes: number;
  /** Zero runs shorter than this become data. */
  readonly mergeGapBytes: number;
  readonly extentsMax: number;
  /** Every byte is sent, zeros too: one extent. */
  readonly all: boolean;
}

/** What a pass tells of the bytes that it reads, and what it asks at the end. */
export type ExtentSource = Pick<
  Classifier,
  "extents" | "positionBytes" | "mergedZeroBytes" | "overflowed" | "data" | "zero" | "finish" | "widerGapBytes"
>;

export class Classifier {
  readonly extents = new RangeList();
  #positionBytes = 0;
  /** End of the last extent; what lies between it and the position are zeros that are held back. */
  #extentEndBytes = 0;
  #mergedZeroBytes = 0;
  #overflowed = false;

  constructor(
    readonly options: ClassifierOptions,
    readonly sink: PayloadSink,
  ) {}

  /** Where the next run starts on the disk. */
  get positionBytes(): number {
    return this.#positionBytes;
  }

  /** Zeros that are sent as data because their runs are shorter than the merge gap. */
  get mergedZeroBytes(): number {
    return this.#mergedZeroBytes;
  }

  /** There are more extents than allowed: the pass has to be repeated with `widerGapBytes`. */
  get overflowed(): boolean {
    return this.#overflowed;
  }

  /** The next `lengthBytes` of the disk hold something. */
  data(lengthBytes: number): void {
    const offsetBytes = this.#positionBytes;
    const zeroBytes = offsetBytes - this.#extentEndBytes;
    if (this.extents.count > 0 && (zeroBytes === 0 || zeroBytes < this.options.mergeGapBytes)) {
      if (zeroBytes > 0) this.#sendZeros(zeroBytes);
      this.extents.extendLast(lengthBytes);
    } else {
      this.#overflowed ||= this.extents.count === this.options.extentsMax;
      this.extents.push(offsetBytes, lengthBytes);
    }
    this.#positionBytes += lengthBytes;
    this.#extentEndBytes = this.#positionBytes;
    this.sink.data(offsetBytes, lengthBytes);
  }

  /** The next `lengthBytes` of the disk read as zero. */
  zero(lengthBytes: number): void {
    if (this.options.all) {
      if (this.extents.count === 0) this.extents.push(0, 0);
      this.#positionBytes += lengthBytes;
      this.#sendZeros(lengthBytes);
      return;
    }
    this.#positionBytes += lengthBytes;
  }

  /** To be called once, after the last run. */
  finish(): void {
    assert(this.#positionBytes === this.options.diskBytes, "the runs cover the disk");
    if (this.extents.count > 0) return;
    // BitTorrent has no torrent without a byte: of a disk that is all zeros the first block is sent.
    this.extents.push(0, 0);
    this.#sendZeros(Math.min(CLASSIFY_BLOCK_BYTES, this.options.diskBytes));
  }

  /**
   * After an overflow: the smallest doubling of the merge gap that would have left few enough extents, if the
   * rest of the disk is like what was seen.
   */
  widerGapBytes(): number {
    const seenShare = this.#positionBytes / this.options.diskBytes;
    let gapBytes = Math.max(this.options.mergeGapBytes, CLASSIFY_BLOCK_BYTES);
    do gapBytes *= 2;
    while ((countMerged(this.extents, gapBytes) - 1) / seenShare >= this.options.extentsMax);
    return gapBytes;
  }

  #sendZeros(lengthBytes: number): void {
    this.extents.extendLast(lengthBytes);
    if (!this.options.all) this.#mergedZeroBytes += lengthBytes;
    this.#extentEndBytes = this.options.all ? this.#positionBytes : this.#extentEndBytes + lengthBytes;
    this.sink.zeros(lengthBytes);
  }
}

/** How many extents are left when gaps shorter than `gapBytes` are merged. */
function countMerged(extents: RangeList, gapBytes: number): number {
  let count = 1;
  for (let i = 1; i < extents.count; i++) {
    const gap = extents.offsetAt(i) - extents.offsetAt(i - 1) - extents.lengthAt(i - 1);
    if (gap >= gapBytes) count++;
  }
  return count;
}

const NO_SINK: PayloadSink = { data: () => {}, zeros: () => {} };

/**
 * The merge gap that the known holes of a file ask for, so that a file of a million small holes costs no
 * second pass. `data` are the ranges between the holes.
 */
export function gapForHoles(data: RangeList, options: ClassifierOptions): number {
  let mergeGapBytes = options.mergeGapBytes;
  for (;;) {
    const classifier = new Classifier({ ...options, mergeGapBytes }, NO_SINK);
    for (let i = 0; i < data.count && !classifier.overflowed; i++) {
      classifier.zero(data.offsetAt(i) - classifier.positionBytes);
      classifier.data(data.lengthAt(i));
    }
    if (!classifier.overflowed) return mergeGapBytes;
    mergeGapBytes = classifier.widerGapBytes();
  }
}
