/**
 * Extents and ranges as parallel arrays: building, checking, finding, cutting.
 *
 * Tables own their arrays once made; nothing writes to them afterwards. Walking allocates nothing.
 */
import { assert } from "../errors.ts";
import { type DiskOffset, diskOffset, type PieceIndex, type TorrentOffset, torrentOffset } from "../units.ts";
import type { ExtentTable, ExtentVisitor, RangeTable } from "./types.ts";

/** Says what is wrong with ranges that must ascend, not overlap and end below 2^53; null where nothing is. */
export function rangesProblem(diskOffsetBytes: Float64Array, lengthBytes: Float64Array, count: number): string | null {
  let end = 0;
  for (let i = 0; i < count; i++) {
    const start = diskOffsetBytes[i]!;
    const length = lengthBytes[i]!;
    if (!Number.isSafeInteger(start) || start < 0) return `range ${i} starts at ${start}`;
    if (!Number.isSafeInteger(length) || length < 1)
      return `range ${i} at disk offset ${start} has a length of ${length}`;
    if (!Number.isSafeInteger(start + length)) return `range ${i} at disk offset ${start} ends beyond 2^53`;
    if (start < end) return `range ${i} at disk offset ${start} overlaps or precedes the one before it`;
    end = start + length;
  }
  return null;
}

/**
 * Makes the table of extents from disk offsets and lengths in bytes, both ascending and without overlap
 * (`rangesProblem` tells; here a violation is a bug). The arrays belong to the table from now on.
 */
export function makeExtentTable(
  diskOffsetBytes: Float64Array,
  lengthBytes: Float64Array,
  count = diskOffsetBytes.length,
): ExtentTable {
  const problem = rangesProblem(diskOffsetBytes, lengthBytes, count);
  assert(problem === null, `extents: ${problem}`);
  const torrentOffsetBytes = new Float64Array(count);
  let totalBytes = 0;
  for (let i = 0; i < count; i++) {
    torrentOffsetBytes[i] = totalBytes;
    totalBytes += lengthBytes[i]!;
  }
  return {
    count,
    diskOffsetBytes: trimmed(diskOffsetBytes, count),
    lengthBytes: trimmed(lengthBytes, count),
    torrentOffsetBytes,
    totalBytes,
  };
}

/** Makes a table of ranges; the same demands as `makeExtentTable`. */
export function makeRangeTable(
  diskOffsetBytes: Float64Array,
  lengthBytes: Float64Array,
  count = diskOffsetBytes.length,
): RangeTable {
  const problem = rangesProblem(diskOffsetBytes, lengthBytes, count);
  assert(problem === null, `ranges: ${problem}`);
  return { count, diskOffsetBytes: trimmed(diskOffsetBytes, count), lengthBytes: trimmed(lengthBytes, count) };
}

export const NO_RANGES: RangeTable = makeRangeTable(new Float64Array(0), new Float64Array(0));

/** The ranges as far as they lie below `endBytes`. */
export function rangesBelow(ranges: RangeTable, endBytes: number): RangeTable {
  if (rangesEndBytes(ranges) <= endBytes) return ranges;
  let count = 0;
  while (count < ranges.count && ranges.diskOffsetBytes[count] < endBytes) count++;
  const lengthBytes = ranges.lengthBytes.slice(0, count);
  if (count > 0)
    lengthBytes[count - 1] = Math.min(lengthBytes[count - 1], endBytes - ranges.diskOffsetBytes[count - 1]);
  return { count, diskOffsetBytes: ranges.diskOffsetBytes.slice(0, count), lengthBytes };
}

/** Sum of the lengths in bytes. */
export function rangesTotalBytes(ranges: RangeTable): number {
  let total = 0;
  for (let i = 0; i < ranges.count; i++) total += ranges.lengthBytes[i]!;
  return total;
}

/** Disk offset after the last byte of the last range, 0 where there is none. */
export function rangesEndBytes(ranges: RangeTable): number {
  const last = ranges.count - 1;
  return last < 0 ? 0 : ranges.diskOffsetBytes[last]! + ranges.lengthBytes[last]!;
}

/** Index of the first pair (of `a`) that overlaps one of `b`, or -1. Both ascend without overlap of their own. */
export function firstOverlap(a: RangeTable, b: RangeTable): number {
  let j = 0;
  for (let i = 0; i < a.count; i++) {
    const start = a.diskOffsetBytes[i]!;
    while (j < b.count && b.diskOffsetBytes[j]! + b.lengthBytes[j]! <= start) j++;
    if (j < b.count && b.diskOffsetBytes[j]! < start + a.lengthBytes[i]!) return i;
  }
  return -1;
}

/** Index of the extent that holds the payload byte at `offset` (0 to totalBytes - 1); binary search. */
export function findExtent(table: ExtentTable, offset: number): number {
  assert(offset >= 0 && offset < table.totalBytes, `torrent offset ${offset} of ${table.totalBytes}`);
  let low = 0;
  let high = table.count - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (table.torrentOffsetBytes[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Calls `visit` for each run of [offset, offset + lengthBytes) of the payload that is contiguous on disk, in order. */
export function forEachSegment(
  table: ExtentTable,
  offset: TorrentOffset,
  lengthBytes: number,
  visit: ExtentVisitor,
): void {
  assert(
    offset + lengthBytes <= table.totalBytes,
    `${lengthBytes} bytes at torrent offset ${offset} of ${table.totalBytes}`,
  );
  let at: number = offset;
  const end = offset + lengthBytes;
  if (at === end) return;
  for (let i = findExtent(table, at); at < end; i++) {
    const inside = at - table.torrentOffsetBytes[i]!;
    const length = Math.min(table.lengthBytes[i]! - inside, end - at);
    visit(diskOffset(table.diskOffsetBytes[i]! + inside), torrentOffset(at), length);
    at += length;
  }
}

/** Number of pieces that `totalBytes` of payload make. */
export function pieceCountOf(totalBytes: number, pieceBytes: number): number {
  return Math.ceil(totalBytes / pieceBytes);
}

/** Bytes of piece `index`: pieceBytes, or what is left for the last. */
export function pieceLengthBytes(totalBytes: number, pieceBytes: number, index: PieceIndex): number {
  return Math.min(pieceBytes, totalBytes - index * pieceBytes);
}

/** Where piece `index` starts in the payload, in bytes. */
export function pieceOffset(pieceBytes: number, index: PieceIndex): TorrentOffset {
  return torrentOffset(index * pieceBytes);
}

/** Disk offset of a payload byte. */
export function diskOffsetOf(table: ExtentTable, offset: TorrentOffset): DiskOffset {
  const i = findExtent(table, offset);
  return diskOffset(table.diskOffsetBytes[i]! + (offset - table.torrentOffsetBytes[i]!));
}

/** Arrays that grew by doubling are cut to size, because a table lives as long as the deployment. */
function trimmed(array: Float64Array, count: number): Float64Array {
  return array.length === count ? array : array.slice(0, count);
}
