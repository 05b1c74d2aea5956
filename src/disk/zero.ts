/**
 * Zeroes ranges of the target that the image says read as zero, beside the receiving.
 *
 * A state machine over the reactor of its owner, who hands every completion back. The device is asked to
 * do it itself where it can: PUNCH_HOLE (a hole in a file; write-zeroes with unmap on an SSD or thin disk),
 * else ZERO_RANGE (write-zeroes, which the kernel falls back from by itself on block devices), else zeros
 * are written. Nothing outside the ranges is touched, and pages that a range shares with its neighbours go
 * the same way as theirs do (see segments.ts).
 *
 * Owns one buffer of zeros until `free`.
 */
import { assert } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import { Errno } from "../kernel/libc.ts";
import { type Memory, mapMemory } from "../kernel/memory.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import type { RangeTable } from "../torrent/types.ts";
import { MiB } from "../units.ts";
import { diskFault } from "./disk-fault.ts";
import type { DiskFiles } from "./queue.ts";

/** Operations in flight: one at work, one queued behind it; more would starve the writes of payload. */
const SLOTS = 2;
/** Zeroed per fallocate: half a second on a slow disk that has to write the zeros, so that a stop is soon heard. */
const CHUNK_BYTES = 64 * MiB;
const WRITE_BYTES = 1 * MiB;

const enum Method {
  punchHole,
  zeroRange,
  write,
}
const MODES: Record<Method.punchHole | Method.zeroRange, number> = {
  [Method.punchHole]: abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_KEEP_SIZE,
  [Method.zeroRange]: abi.FALLOC_FL_ZERO_RANGE | abi.FALLOC_FL_KEEP_SIZE,
};
const UNSUPPORTED: ReadonlySet<number> = new Set([Errno.EOPNOTSUPP, Errno.ENOSYS, Errno.EINVAL, Errno.ENODEV]);

/** What an operation in flight still has to zero. */
interface Slot {
  offsetBytes: number;
  lengthBytes: number;
  /** Bytes that the operation in the kernel covers; 0: the slot is free. */
  submittedBytes: number;
  method: Method;
  /** An edge that shares its page with what is not zeroed: always written through the page cache. */
  isEdge: boolean;
}

export interface ZeroOptions {
  readonly reactor: Reactor;
  readonly files: DiskFiles;
  readonly ranges: RangeTable;
  /** Pages of this size are accessed in one way only: `Segments.pageBytes`. */
  readonly pageBytes: number;
  /** Zeros may be written directly: `Segments.hasDirect`. */
  readonly hasDirect: boolean;
  /** Bytes of the disk's start that someone else zeroes (the head guard); a multiple of pageBytes. */
  readonly skipBytes: number;
  /** The reactor's token for slot 0 or 1. */
  readonly tokenOf: (slot: number) => Token;
}

export class ZeroRanges {
  /** Bytes to zero in all. */
  readonly totalBytes: number;
  readonly #options: ZeroOptions;
  readonly #zeros: Memory = mapMemory(WRITE_BYTES);
  readonly #slots: Slot[] = [];
  #method = Method.punchHole;
  #range = 0;
  /** Where the next chunk begins inside the current range. */
  #at = 0;
  #doneBytes = 0;
  #active = 0;
  #stopped = false;

  constructor(options: ZeroOptions) {
    assert(options.skipBytes % options.pageBytes === 0, "the skipped head ends at a page");
    this.#options = options;
    for (let i = 0; i < SLOTS; i++) {
      this.#slots.push({ offsetBytes: 0, lengthBytes: 0, submittedBytes: 0, method: Method.punchHole, isEdge: false });
    }
    let totalBytes = 0;
    for (let i = 0; i < options.ranges.count; i++) totalBytes += Math.max(0, this.#end(i) - this.#start(i));
    this.totalBytes = totalBytes;
    this.#enterRange(0);
  }

  get doneBytes(): number {
    return this.#doneBytes;
  }

  /** Every range reads as zero (once it is flushed). */
  get finished(): boolean {
    return this.#doneBytes === this.totalBytes;
  }

  /** Nothing is in flight. */
  get idle(): boolean {
    return this.#active === 0;
  }

  /** Submits what fits. To be called once at the start and then once per turn of the reactor's loop. */
  pump(): void {
    for (let slot = 0; slot < SLOTS && !this.#stopped; slot++) {
      if (this.#slots[slot].submittedBytes === 0 && this.#nextChunk(this.#slots[slot])) {
        this.#active++;
        this.#submit(slot);
      }
    }
  }

  /** Starts nothing more; what is in flight completes as usual. */
  stop(): void {
    this.#stopped = true;
  }

  /** The operation of `slot` completed. Throws DiskFault. */
  completed(slot: number, result: number): void {
    const work = this.#slots[slot];
    assert(work.submittedBytes > 0, "a zeroing operation completes once");
    if (result === -Errno.EINTR || result === -Errno.EAGAIN) return this.#submit(slot);
    if (result < 0 && work.method !== Method.write && UNSUPPORTED.has(-result)) return this.#demote(slot);
    const isFailed = work.method === Method.write ? result <= 0 : result < 0;
    if (isFailed) {
      this.#active--;
      work.submittedBytes = 0;
      throw diskFault(this.#options.files.path, "zero", work.offsetBytes, result);
    }
    const movedBytes = work.method === Method.write ? result : work.submittedBytes;
    this.#doneBytes += movedBytes;
    work.offsetBytes += movedBytes;
    work.lengthBytes -= movedBytes;
    if (work.lengthBytes > 0) return this.#submit(slot);
    work.submittedBytes = 0;
    this.#active--;
  }

  /** Frees the buffer; nothing may be in flight. */
  free(): void {
    assert(this.idle, "zeroing has ended before its buffer is freed");
    this.#zeros.free();
  }

  #start(range: number): number {
    return Math.max(this.#options.ranges.diskOffsetBytes[range], this.#options.skipBytes);
  }

  #end(range: number): number {
    return this.#options.ranges.diskOffsetBytes[range] + this.#options.ranges.lengthBytes[range];
  }

  #enterRange(range: number): void {
    this.#range = range;
    if (range < this.#options.ranges.count) this.#at = this.#start(range);
  }

  /** Cuts the next chunk: a whole edge, or whole pages. False when all is given out. */
  #nextChunk(work: Slot): boolean {
    while (this.#range < this.#options.ranges.count && this.#at >= this.#end(this.#range))
      this.#enterRange(this.#range + 1);
    if (this.#range === this.#options.ranges.count) return false;
    const { pageBytes } = this.#options;
    const end = this.#end(this.#range);
    const coreStart = Math.ceil(this.#at / pageBytes) * pageBytes;
    const coreEnd = Math.floor(end / pageBytes) * pageBytes;
    work.isEdge = this.#at < coreStart || this.#at >= coreEnd;
    const bound =
      this.#at < coreStart
        ? Math.min(coreStart, end)
        : this.#at < coreEnd
          ? Math.min(coreEnd, this.#at + CHUNK_BYTES)
          : end;
    work.offsetBytes = this.#at;
    work.lengthBytes = bound - this.#at;
    work.method = work.isEdge ? Method.write : this.#method;
    this.#at = bound;
    return true;
  }

  #submit(slot: number): void {
    const { reactor, files, tokenOf, hasDirect } = this.#options;
    const work = this.#slots[slot];
    if (work.method === Method.write) {
      const fd = hasDirect && !work.isEdge ? files.directFd : files.bufferedFd;
      work.submittedBytes = Math.min(work.lengthBytes, WRITE_BYTES);
      reactor.write(fd, this.#zeros.address, work.submittedBytes, work.offsetBytes, tokenOf(slot));
      return;
    }
    work.submittedBytes = work.lengthBytes;
    reactor.fallocate(files.bufferedFd, MODES[work.method], work.offsetBytes, work.lengthBytes, tokenOf(slot));
  }

  /** The device cannot do it this way: this chunk and all that follow go the next way. */
  #demote(slot: number): void {
    const work = this.#slots[slot];
    this.#method = Math.max(this.#method, work.method + 1);
    work.method = this.#method;
    this.#submit(slot);
  }
}
