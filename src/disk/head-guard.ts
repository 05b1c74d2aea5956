/**
 * The disk's first bytes, kept in memory until everything else is stored.
 *
 * A half-written disk must never boot: boot sector, primary GPT and the superblocks at the start are
 * zeroed on the disk before the first other write and written last. Only bytes of extents and zero ranges
 * are ever touched; what the image does not name stays as it was.
 *
 * The guarded region is accessed through the buffered descriptor alone while it is withheld. The guard
 * owns its copy; calls block for at most HEAD_BYTES of IO.
 */
import { assert } from "../errors.ts";
import { Errno, pread, pwrite } from "../kernel/libc.ts";
import { type Memory, mapMemory, viewAt } from "../kernel/memory.ts";
import type { Address } from "../kernel/reactor.ts";
import { HEAD_BYTES } from "../limits.ts";
import type { ExtentTable, RangeTable } from "../torrent/types.ts";
import { diskFault } from "./disk-fault.ts";
import { flushDisk } from "./flush.ts";
import type { OpenDisk } from "./open-disk.ts";
import type { WithheldHead } from "./queue.ts";

interface Range {
  readonly start: number;
  readonly end: number;
}

export class HeadGuard implements WithheldHead {
  /** Disk bytes [0, endBytes) are withheld; 0 after `commit`. */
  endBytes = HEAD_BYTES;
  readonly #disk: OpenDisk;
  /** What the head shall hold: at first what is on the disk. */
  readonly #head: Memory = mapMemory(HEAD_BYTES);
  readonly #data: Range[];
  readonly #zero: Range[];
  #invalidated = false;

  /** Loads the head of the disk. Throws DiskFault. */
  constructor(disk: OpenDisk, extents: ExtentTable, zeroRanges: RangeTable | null) {
    this.#disk = disk;
    this.#data = rangesInHead(extents);
    this.#zero = zeroRanges === null ? [] : rangesInHead(zeroRanges);
    this.#load();
    for (const range of this.#zero) this.#head.bytes.fill(0, range.start, range.end);
  }

  /** Takes bytes that belong into the head. */
  write(diskOffsetBytes: number, address: Address, lengthBytes: number): void {
    this.#assertInside(diskOffsetBytes, lengthBytes);
    assert(this.#invalidated, "the head is invalidated before the first write");
    this.#head.bytes.set(viewAt(address, lengthBytes), diskOffsetBytes);
  }

  /** Gives bytes of the head as they will be. */
  read(diskOffsetBytes: number, address: Address, lengthBytes: number): void {
    this.#assertInside(diskOffsetBytes, lengthBytes);
    viewAt(address, lengthBytes).set(this.#head.bytes.subarray(diskOffsetBytes, diskOffsetBytes + lengthBytes));
  }

  /**
   * Zeroes the image's bytes of the head on the disk and flushes, so that from now on the disk does not
   * boot. To be called before the first write elsewhere; again is no harm. Throws DiskFault.
   */
  invalidate(): void {
    if (this.#invalidated) return;
    const zeros = mapMemory(HEAD_BYTES);
    for (const range of this.#data) this.#store(zeros.address, range);
    zeros.free();
    flushDisk(this.#disk);
    this.#invalidated = true;
  }

  /**
   * Stores the head: everything else is flushed first, then the head is written and flushed. From here on
   * the head is on the disk like all the rest. Throws DiskFault.
   */
  commit(): void {
    if (this.endBytes === 0) return;
    flushDisk(this.#disk);
    for (const range of [...this.#data, ...this.#zero]) this.#store(this.#head.address + range.start, range);
    flushDisk(this.#disk);
    this.endBytes = 0;
  }

  /** Frees the copy. */
  free(): void {
    this.#head.free();
  }

  #assertInside(diskOffsetBytes: number, lengthBytes: number): void {
    assert(diskOffsetBytes >= 0 && diskOffsetBytes + lengthBytes <= this.endBytes, "bytes lie in the withheld head");
  }

  #load(): void {
    let at = 0;
    while (at < HEAD_BYTES) {
      const result = pread(this.#disk.bufferedFd, this.#head.address + at, HEAD_BYTES - at, at);
      if (result === -Errno.EINTR) continue;
      if (result < 0) throw diskFault(this.#disk.path, "read", at, result);
      // A small file ends inside the head.
      if (result === 0) return;
      at += result;
    }
  }

  /** Writes the bytes of a range from `address` to the disk. */
  #store(address: Address, range: Range): void {
    let at = range.start;
    while (at < range.end) {
      const result = pwrite(this.#disk.bufferedFd, address + (at - range.start), range.end - at, at);
      if (result === -Errno.EINTR) continue;
      if (result <= 0) throw diskFault(this.#disk.path, "write", at, result);
      at += result;
    }
  }
}

function rangesInHead(table: RangeTable): Range[] {
  const ranges: Range[] = [];
  for (let i = 0; i < table.count && table.diskOffsetBytes[i] < HEAD_BYTES; i++) {
    const start = table.diskOffsetBytes[i];
    ranges.push({ start, end: Math.min(start + table.lengthBytes[i], HEAD_BYTES) });
  }
  return ranges;
}
