/**
 * Reads the data ranges of a source into slabs, several reads at a time, and hands the slabs out in disk
 * order whatever the order in which the kernel completes them.
 *
 * A slab is free, being read, or held: by its reader until the slab was taken and done with, and by every
 * run of it that is not hashed or saved yet. Memory is bounded by the slabs: without a free one nothing is read.
 */
import { diskFault } from "../disk/disk-fault.ts";
import { assert } from "../errors.ts";
import { Errno } from "../kernel/libc.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import { CLASSIFY_BLOCK_BYTES } from "./classify.ts";
import type { SlabHolds } from "./piece-feed.ts";
import type { RangeList } from "./range-list.ts";

/** Reads in flight: 8 MiB keep an NVMe disk busy, and are in order for a hard disk. */
export const READS_MAX = 8;

export interface ReadSource {
  readonly path: string;
  readonly sizeBytes: number;
  readonly bufferedFd: number;
  readonly directFd: number;
}

export interface SlabMemory {
  readonly address: Address;
  readonly slabBytes: number;
  readonly count: number;
}

export class ReadAhead implements SlabHolds {
  readonly #holds: Int32Array;
  readonly #diskOffset: Float64Array;
  readonly #length: Float64Array;
  readonly #doneBytes: Float64Array;
  readonly #free: number[] = [];
  /** Slabs in disk order, from the oldest that was not taken. A ring as long as there are slabs. */
  readonly #order: Int32Array;
  #oldest = 0;
  #orderCount = 0;
  #readsInFlight = 0;
  #range = 0;
  #rangeDoneBytes = 0;
  #direct: boolean;
  #bytesTaken = 0;

  constructor(
    readonly reactor: Reactor,
    readonly source: ReadSource,
    readonly ranges: RangeList,
    readonly slabs: SlabMemory,
    /** The reactor's token of a slab's read is this plus the slab's index. */
    readonly firstToken: number,
  ) {
    this.#holds = new Int32Array(slabs.count);
    this.#diskOffset = new Float64Array(slabs.count);
    this.#length = new Float64Array(slabs.count);
    this.#doneBytes = new Float64Array(slabs.count);
    this.#order = new Int32Array(slabs.count);
    for (let i = slabs.count - 1; i >= 0; i--) this.#free.push(i);
    this.#direct = source.directFd >= 0;
  }

  /** Every range was read and every slab taken. */
  get ended(): boolean {
    return this.#orderCount === 0 && this.#range === this.ranges.count;
  }

  /** Bytes of the ranges that were taken. */
  get bytesTaken(): number {
    return this.#bytesTaken;
  }

  hold(slab: number): void {
    this.#holds[slab]++;
  }

  release(slab: number): void {
    assert(this.#holds[slab] > 0, "a slab is released as often as it is held");
    if (--this.#holds[slab] === 0) this.#free.push(slab);
  }

  address(slab: number): Address {
    return this.slabs.address + slab * this.slabs.slabBytes;
  }

  diskOffset(slab: number): number {
    return this.#diskOffset[slab];
  }

  lengthBytes(slab: number): number {
    return this.#length[slab];
  }

  /** Starts as many reads as there are slabs and room for. */
  pump(): void {
    while (this.#readsInFlight < READS_MAX && this.#free.length > 0 && this.#range < this.ranges.count)
      this.#startNext();
  }

  /** The next slab in disk order, held once by the caller, or -1 while it is being read. */
  take(): number {
    if (this.#orderCount === 0) return -1;
    const slab = this.#order[this.#oldest];
    if (this.#doneBytes[slab] < this.#length[slab]) return -1;
    this.#oldest = (this.#oldest + 1) % this.slabs.count;
    this.#orderCount--;
    this.#bytesTaken += this.#length[slab];
    return slab;
  }

  /** A read of that slab completed. Throws DiskFault. */
  completed(slab: number, result: number): void {
    this.#readsInFlight--;
    if (result === -Errno.EINVAL && this.#direct && this.#doneBytes[slab] === 0) {
      // The filesystem opened with O_DIRECT but cannot read with it.
      this.#direct = false;
    } else if (result !== -Errno.EINTR && result !== -Errno.EAGAIN) {
      if (result <= 0)
        throw diskFault(this.source.path, "read", this.#diskOffset[slab] + this.#doneBytes[slab], result);
      this.#doneBytes[slab] = Math.min(this.#doneBytes[slab] + result, this.#length[slab]);
    }
    if (this.#doneBytes[slab] < this.#length[slab]) this.#read(slab);
  }

  #startNext(): void {
    const slab = this.#free.pop()!;
    const rangeBytes = this.ranges.lengthAt(this.#range);
    this.#diskOffset[slab] = this.ranges.offsetAt(this.#range) + this.#rangeDoneBytes;
    this.#length[slab] = Math.min(this.slabs.slabBytes, rangeBytes - this.#rangeDoneBytes);
    this.#doneBytes[slab] = 0;
    this.#holds[slab] = 1;
    this.#rangeDoneBytes += this.#length[slab];
    if (this.#rangeDoneBytes === rangeBytes) {
      this.#range++;
      this.#rangeDoneBytes = 0;
    }
    this.#order[(this.#oldest + this.#orderCount) % this.slabs.count] = slab;
    this.#orderCount++;
    this.#read(slab);
  }

  /** Reads what the slab lacks. The end of an odd-sized source is read as a whole block, of which a part comes. */
  #read(slab: number): void {
    const doneBytes = this.#doneBytes[slab];
    // Ranges of our own captures start on a block; others, and what follows a short read, go buffered.
    const isAligned =
      (this.#diskOffset[slab] + doneBytes) % CLASSIFY_BLOCK_BYTES === 0 && doneBytes % CLASSIFY_BLOCK_BYTES === 0;
    const direct = this.#direct && isAligned;
    const leftBytes = this.#length[slab] - doneBytes;
    const lengthBytes = direct ? Math.ceil(leftBytes / CLASSIFY_BLOCK_BYTES) * CLASSIFY_BLOCK_BYTES : leftBytes;
    const fd = direct ? this.source.directFd : this.source.bufferedFd;
    this.reactor.read(
      fd,
      this.address(slab) + doneBytes,
      lengthBytes,
      this.#diskOffset[slab] + doneBytes,
      this.firstToken + slab,
    );
    this.#readsInFlight++;
  }
}
