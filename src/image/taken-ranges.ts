/**
 * Collects what of a disk is looked at, in disk order: whole areas, and the runs that a filesystem's map calls
 * used. What is never told here is unused: it is neither sent nor zeroed.
 *
 * Runs are widened to whole blocks of 4 KiB, so that everything can be read and written past the page cache,
 * and those closer than the merge gap become one: what lies between is then read and sent like what is used,
 * and `addedBytes` says how much that is. Memory is bounded whatever the map: when a million runs are too many,
 * the gap is doubled and the list merged again.
 */
import { EXTENTS_CAPTURE_MAX } from "../limits.ts";
import { CLASSIFY_BLOCK_BYTES } from "./classify.ts";
import { joined, RangeList } from "./range-list.ts";

/** Far above what a torrent may have, so that doubling the gap here never merges more than is needed there. */
const RANGES_MAX = EXTENTS_CAPTURE_MAX * 4;

export class TakenRanges {
  #list = new RangeList();
  #mergeGapBytes: number;
  #toldBytes = 0;
  #toldEndBytes = 0;

  constructor(
    readonly diskBytes: number,
    mergeGapBytes: number,
    readonly rangesMax = RANGES_MAX,
    /** Runs are widened to whole blocks of that many bytes; 1: they are kept as they are. */
    readonly blockBytes = CLASSIFY_BLOCK_BYTES,
  ) {
    this.#mergeGapBytes = mergeGapBytes;
  }

  get list(): RangeList {
    return this.#list;
  }

  /** As it was asked for, or wider where there were too many runs. */
  get mergeGapBytes(): number {
    return this.#mergeGapBytes;
  }

  /** Bytes that were told, without what widening and merging added. */
  get toldBytes(): number {
    return this.#toldBytes;
  }

  /** [offset, offset + length) is taken. Ascending; what overlaps the part before it counts once. */
  take(offsetBytes: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    const toldEnd = offsetBytes + lengthBytes;
    this.#toldBytes += Math.max(0, toldEnd - Math.max(offsetBytes, this.#toldEndBytes));
    this.#toldEndBytes = Math.max(this.#toldEndBytes, toldEnd);
    const { blockBytes } = this;
    const start = Math.floor(offsetBytes / blockBytes) * blockBytes;
    const end = Math.min(Math.ceil(toldEnd / blockBytes) * blockBytes, this.diskBytes);
    const last = this.#list.count - 1;
    const lastEnd = last < 0 ? Number.NEGATIVE_INFINITY : this.#list.offsetAt(last) + this.#list.lengthAt(last);
    if (start <= lastEnd || start - lastEnd < this.#mergeGapBytes) {
      if (end > lastEnd) this.#list.extendLast(end - lastEnd);
    } else {
      this.#list.push(start, end - start);
      if (this.#list.count > this.rangesMax) this.#mergeMore();
    }
  }

  #mergeMore(): void {
    while (this.#list.count > this.rangesMax) {
      this.#mergeGapBytes = Math.max(this.#mergeGapBytes, CLASSIFY_BLOCK_BYTES) * 2;
      this.#list = joined(this.#list, this.#mergeGapBytes);
    }
  }
}
