/**
 * Where a byte of the payload lies on the disk, and by which descriptor it goes there.
 *
 * Invariant: no page of the disk is ever accessed both directly and through the page cache, because the
 * two are not coherent with each other. The choice is therefore a pure function of the disk offset, the
 * same for every write and every read:
 *
 * - every extent and zero range begins and ends at a multiple of the direct alignment: all goes direct;
 * - otherwise only pages (4096 bytes, or the alignment where it is larger) that lie whole inside one
 *   extent go direct, and the pages at its edges, which may be shared with a neighbour, go buffered.
 *
 * A block's address in memory is congruent to its payload offset, so an extent whose disk offset is not
 * congruent to its payload offset has no aligned memory and goes buffered as a whole.
 */
import { assert } from "../errors.ts";
import { PAGE_BYTES } from "../kernel/abi.ts";
import type { Address } from "../kernel/reactor.ts";
import { MiB } from "../units.ts";
import type { ExtentTable, RangeTable } from "../torrent/types.ts";
import type { DirectAlignment } from "./open-disk.ts";
import type { SegmentLocator } from "./queue.ts";

/** Largest single transfer: larger ones gain nothing and keep a slab busy for longer. */
export const SEGMENT_BYTES_MAX = 1 * MiB;

export interface SegmentLayout {
  readonly extents: ExtentTable;
  /** Zero ranges share pages with extents, so they have a say in what may go direct. */
  readonly zeroRanges: RangeTable | null;
  readonly pieceBytes: number;
  /** Null: everything goes buffered. */
  readonly direct: DirectAlignment | null;
}

export class Segments implements SegmentLocator {
  /** The answer of the last `locate`: where the segment lies on the disk. */
  diskOffsetBytes = 0;
  lengthBytes = 0;
  direct = false;
  /** Pages of this many bytes are accessed in one way only. */
  readonly pageBytes: number;
  readonly #extents: ExtentTable;
  /** Direct transfers begin and end at multiples of this; 0: none. */
  readonly #alignBytes: number;
  readonly #memoryAlignBytes: number;
  /** The extent of the last answer: transfers mostly go on where the last ended. */
  #extent = 0;

  constructor(layout: SegmentLayout) {
    const { extents, zeroRanges, direct, pieceBytes } = layout;
    this.#extents = extents;
    const alignBytes = direct === null ? 0 : Math.max(direct.offsetBytes, direct.memoryBytes);
    // Pieces of an odd size put their blocks at odd addresses.
    const possible = alignBytes > 0 && pieceBytes % alignBytes === 0;
    this.#alignBytes = possible ? alignBytes : 0;
    this.#memoryAlignBytes = direct?.memoryBytes ?? 1;
    const allAligned =
      possible && isAligned(extents, alignBytes) && (zeroRanges === null || isAligned(zeroRanges, alignBytes));
    this.pageBytes = allAligned ? alignBytes : Math.max(PAGE_BYTES, alignBytes);
  }

  /** True where whole pages inside a range go direct at all. */
  get hasDirect(): boolean {
    return this.#alignBytes > 0;
  }

  /** See SegmentLocator. `torrentOffsetBytes` is inside the payload and congruent to `address` modulo a page. */
  locate(torrentOffsetBytes: number, lengthMaxBytes: number, address: Address): void {
    const index = this.extentAt(torrentOffsetBytes);
    const extentTorrent = this.#extents.torrentOffsetBytes[index];
    const start = this.#extents.diskOffsetBytes[index];
    const end = start + this.#extents.lengthBytes[index];
    const disk = start + (torrentOffsetBytes - extentTorrent);
    const limit = Math.min(end, disk + lengthMaxBytes, disk + SEGMENT_BYTES_MAX);
    assert(limit > disk, "a segment has bytes");
    this.diskOffsetBytes = disk;
    this.direct = false;
    if (this.#alignBytes === 0 || (start - extentTorrent) % this.#alignBytes !== 0) {
      this.lengthBytes = limit - disk;
      return;
    }
    const directStart = Math.ceil(start / this.pageBytes) * this.pageBytes;
    const directEnd = Math.floor(end / this.pageBytes) * this.pageBytes;
    if (disk < directStart || disk >= directEnd) {
      const bound = disk < directStart ? directStart : end;
      this.lengthBytes = Math.min(limit, bound) - disk;
      return;
    }
    this.direct = true;
    this.lengthBytes = Math.min(limit, directEnd) - disk;
    assert(address % this.#memoryAlignBytes === 0, "memory of a block is congruent to its payload offset");
    assert(
      disk % this.#alignBytes === 0 && this.lengthBytes % this.#alignBytes === 0,
      "transfers begin and end at multiples of 16 KiB",
    );
  }

  /** Index of the extent that holds a payload offset. */
  extentAt(torrentOffsetBytes: number): number {
    const { torrentOffsetBytes: starts, lengthBytes: lengths, count, totalBytes } = this.#extents;
    assert(torrentOffsetBytes >= 0 && torrentOffsetBytes < totalBytes, "a payload offset lies inside the payload");
    for (let index = this.#extent; index < Math.min(this.#extent + 2, count); index++) {
      if (torrentOffsetBytes < starts[index] || torrentOffsetBytes >= starts[index] + lengths[index]) continue;
      this.#extent = index;
      return index;
    }
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (starts[middle] <= torrentOffsetBytes) low = middle;
      else high = middle - 1;
    }
    this.#extent = low;
    return low;
  }
}

function isAligned(ranges: RangeTable, alignBytes: number): boolean {
  for (let i = 0; i < ranges.count; i++) {
    if (ranges.diskOffsetBytes[i] % alignBytes !== 0 || ranges.lengthBytes[i] % alignBytes !== 0) return false;
  }
  return true;
}
