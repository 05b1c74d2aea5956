/**
 * Where a source may hold anything but zeros, as far as its filesystem knows: the walk over a sparse
 * file's data and holes. What is found is read; holes are zeros without reading.
 */
import { diskFault } from "../disk/disk-fault.ts";
import { SEEK_DATA, SEEK_HOLE } from "../kernel/abi.ts";
import { Errno, lseek } from "../kernel/libc.ts";
import { CLASSIFY_BLOCK_BYTES } from "./classify.ts";
import { RangeList } from "./range-list.ts";

/**
 * The data ranges of a regular file of `sizeBytes` by lseek(2) SEEK_DATA and SEEK_HOLE, widened to whole
 * blocks of 4 KiB (a filesystem may have smaller ones) so that they suit O_DIRECT. A filesystem that knows
 * no holes answers with one range. The descriptor's position is moved.
 */
export function dataRangesOf(fd: number, path: string, sizeBytes: number): RangeList {
  const ranges = new RangeList();
  let positionBytes = 0;
  while (positionBytes < sizeBytes) {
    const dataBytes = lseek(fd, positionBytes, SEEK_DATA);
    if (dataBytes === -Errno.ENXIO) break;
    if (dataBytes === -Errno.EINVAL && positionBytes === 0) return wholeRange(sizeBytes);
    if (dataBytes < 0) throw diskFault(path, "look for data in", positionBytes, dataBytes);
    if (dataBytes >= sizeBytes) break;
    const holeBytes = lseek(fd, dataBytes, SEEK_HOLE);
    if (holeBytes < 0) throw diskFault(path, "look for holes in", dataBytes, holeBytes);
    positionBytes = Math.min(Math.max(holeBytes, dataBytes + 1), sizeBytes);
    addAligned(ranges, dataBytes, positionBytes, sizeBytes);
  }
  return ranges;
}

/** One range: a block device has no holes to ask for. */
export function wholeRange(sizeBytes: number): RangeList {
  const ranges = new RangeList();
  if (sizeBytes > 0) ranges.push(0, sizeBytes);
  return ranges;
}

function addAligned(ranges: RangeList, startBytes: number, endBytes: number, sizeBytes: number): void {
  const start = Math.floor(startBytes / CLASSIFY_BLOCK_BYTES) * CLASSIFY_BLOCK_BYTES;
  const end = Math.min(Math.ceil(endBytes / CLASSIFY_BLOCK_BYTES) * CLASSIFY_BLOCK_BYTES, sizeBytes);
  const last = ranges.count - 1;
  const lastEnd = last < 0 ? -1 : ranges.offsetAt(last) + ranges.lengthAt(last);
  if (start > lastEnd) ranges.push(start, end - start);
  else if (end > lastEnd) ranges.extendLast(end - lastEnd);
}
