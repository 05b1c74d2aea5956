/**
 * Reads and writes of payload ranges on the disk, through a reactor, a bounded number at a time.
 *
 * A transfer is a range of the payload and as much memory; it becomes one kernel operation per segment
 * (contiguous on disk, direct or buffered). A short transfer is continued, an interrupted one repeated,
 * nothing transferred or any other error is a `DiskFault` and ends the work: no result is ever dropped.
 * The memory belongs to the caller and stays untouched until the transfer was reported as done.
 */
import { assert } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import { Errno } from "../kernel/libc.ts";
import type { Address, Reactor, Token } from "../kernel/reactor.ts";
import { diskFault } from "./disk-fault.ts";
import type { TailStore } from "./tail-store.ts";
import { ORDERED_WRITES_MAX, type WriteOrder } from "./write-order.ts";

/** Says where a payload byte lies. `segments.ts` implements it. */
export interface SegmentLocator {
  /**
   * Finds the longest segment that starts at payload offset `torrentOffsetBytes`, at most `lengthMaxBytes` long,
   * for memory at `address`; the answer is in the fields.
   */
  locate(torrentOffsetBytes: number, lengthMaxBytes: number, address: Address): void;
  readonly diskOffsetBytes: number;
  readonly lengthBytes: number;
  readonly direct: boolean;
}

export interface DiskFiles {
  /** For messages: the device's path. */
  readonly path: string;
  /** Opened with O_DIRECT, or -1. */
  readonly directFd: number;
  readonly bufferedFd: number;
  /** What of the image lies beyond the disk's end; null or absent: nothing does. */
  readonly tail?: TailStore | null;
}

/** Bytes of the disk that are held in memory until the end: see `head-guard.ts`. */
export interface WithheldHead {
  /** Disk bytes [0, endBytes) go to memory and come from there; 0 once they are on the disk. A multiple of 4096. */
  readonly endBytes: number;
  /** Makes the disk unbootable; to be called before the first write, free afterwards. */
  invalidate(): void;
  write(diskOffsetBytes: number, address: Address, lengthBytes: number): void;
  read(diskOffsetBytes: number, address: Address, lengthBytes: number): void;
}

const NONE = -1;
/** Smallest sector: direct transfers go on at multiples of it. */
const SECTOR_BYTES = 512;

export class DiskQueue {
  #jobsPending = 0;
  readonly #opJob: Int32Array;
  readonly #opFd: Int32Array;
  readonly #opAddress: Float64Array;
  readonly #opDiskOffset: Float64Array;
  readonly #opLength: Float64Array;
  readonly #freeOps: number[] = [];
  readonly #jobIsWrite: Uint8Array;
  readonly #jobTag: Float64Array;
  readonly #jobOffset: Float64Array;
  readonly #jobLeft: Float64Array;
  readonly #jobAddress: Float64Array;
  readonly #jobOps: Int32Array;
  readonly #freeJobs: number[] = [];
  /** Jobs whose segments are not all submitted, oldest first. */
  readonly #waiting: number[] = [];
  /** Writes that left the order and are not done. */
  #orderedWrites = 0;
  #bytesWritten = 0;

  constructor(
    readonly reactor: Reactor,
    readonly files: DiskFiles,
    readonly segments: SegmentLocator,
    readonly head: WithheldHead | null,
    /** Called when every byte of a transfer was moved. */
    readonly done: (isWrite: boolean, tag: number) => void,
    /** Makes the reactor's token for operation `index`. */
    readonly tokenOf: (index: number) => Token,
    jobsMax: number,
    opsMax: number,
    /** What is written goes through it, where the disk seeks. */
    readonly order: WriteOrder | null = null,
  ) {
    this.#opJob = new Int32Array(opsMax).fill(NONE);
    this.#opFd = new Int32Array(opsMax);
    this.#opAddress = new Float64Array(opsMax);
    this.#opDiskOffset = new Float64Array(opsMax);
    this.#opLength = new Float64Array(opsMax);
    for (let i = opsMax - 1; i >= 0; i--) this.#freeOps.push(i);
    this.#jobIsWrite = new Uint8Array(jobsMax);
    this.#jobTag = new Float64Array(jobsMax);
    this.#jobOffset = new Float64Array(jobsMax);
    this.#jobLeft = new Float64Array(jobsMax);
    this.#jobAddress = new Float64Array(jobsMax);
    this.#jobOps = new Int32Array(jobsMax);
    for (let i = jobsMax - 1; i >= 0; i--) this.#freeJobs.push(i);
  }

  /** Transfers that are not done. */
  get pending(): number {
    return this.#jobsPending;
  }

  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  /** Queues a transfer between the disk and memory; `done` is called with `tag`, never inside this call. */
  submit(isWrite: boolean, tag: number, torrentOffsetBytes: number, lengthBytes: number, address: Address): void {
    const job = this.#freeJobs.pop();
    assert(job !== undefined, "there are as many jobs as slabs");
    this.#jobIsWrite[job] = isWrite ? 1 : 0;
    this.#jobTag[job] = tag;
    this.#jobOffset[job] = torrentOffsetBytes;
    this.#jobLeft[job] = lengthBytes;
    this.#jobAddress[job] = address;
    this.#jobOps[job] = 0;
    this.#jobsPending++;
    if (isWrite && this.order !== null) this.order.add(job, torrentOffsetBytes, lengthBytes, nowMs());
    else this.#waiting.push(job);
  }

  /** Submits what fits. To be called once per turn of the reactor's loop. */
  pump(): void {
    if (this.order !== null) this.#takeOrdered(this.order);
    let taken = 0;
    while (taken < this.#waiting.length) {
      const job = this.#waiting[taken]!;
      while (this.#jobLeft[job]! > 0 && this.#freeOps.length > 0) this.#start(job);
      if (this.#jobLeft[job]! > 0) break;
      taken++;
      // All of it may lie in the withheld head or beyond the end: then no operation will report it.
      if (this.#jobOps[job] === 0) this.#finish(job);
    }
    if (taken > 0) this.#waiting.splice(0, taken);
  }

  /** A run is given to the disk as far as it is there, so that no read comes in between. */
  #takeOrdered(order: WriteOrder): void {
    while (this.#orderedWrites < ORDERED_WRITES_MAX || order.isInRun) {
      const job = order.next(nowMs());
      if (job === NONE) return;
      this.#orderedWrites++;
      this.#waiting.push(job);
    }
  }

  /** The operation of that index completed. Throws DiskFault. */
  completed(op: number, result: number): void {
    const job = this.#opJob[op]!;
    assert(job !== NONE, "an operation completes once");
    const isWrite = this.#jobIsWrite[job] === 1;
    const retry = result === -Errno.EINTR || result === -Errno.EAGAIN;
    if (result <= 0 && !retry) this.#fault(op, isWrite, result);
    const moved = retry ? 0 : result;
    if (isWrite) this.#bytesWritten += moved;
    if (moved < this.#opLength[op]!) {
      this.#opAddress[op]! += moved;
      this.#opDiskOffset[op]! += moved;
      this.#opLength[op]! -= moved;
      // The kernel may stop a direct transfer at a place that O_DIRECT cannot go on from.
      if (moved % SECTOR_BYTES !== 0) this.#opFd[op] = this.files.bufferedFd;
      this.#submit(op, isWrite);
      return;
    }
    this.#opJob[op] = NONE;
    this.#freeOps.push(op);
    if (--this.#jobOps[job]! === 0 && this.#jobLeft[job] === 0) this.#finish(job);
  }

  #start(job: number): void {
    const segments = this.segments;
    const address = this.#jobAddress[job]!;
    segments.locate(this.#jobOffset[job]!, this.#jobLeft[job]!, address);
    const diskOffset = segments.diskOffsetBytes;
    const headBytes = (this.head?.endBytes ?? 0) - diskOffset;
    const tail = this.files.tail ?? null;
    const diskBytes = (tail?.startBytes ?? Number.POSITIVE_INFINITY) - diskOffset;
    const boundBytes = headBytes > 0 ? headBytes : diskBytes > 0 ? diskBytes : Number.POSITIVE_INFINITY;
    const lengthBytes = Math.min(segments.lengthBytes, boundBytes);
    this.#jobOffset[job]! += lengthBytes;
    this.#jobLeft[job]! -= lengthBytes;
    this.#jobAddress[job]! += lengthBytes;
    const isWrite = this.#jobIsWrite[job] === 1;
    if (this.head !== null && headBytes > 0) {
      if (isWrite) this.head.write(diskOffset, address, lengthBytes);
      else this.head.read(diskOffset, address, lengthBytes);
      return;
    }
    if (tail !== null && diskBytes <= 0) {
      if (isWrite) tail.write(diskOffset, address, lengthBytes);
      else tail.read(diskOffset, address, lengthBytes);
      return;
    }
    const op = this.#freeOps.pop()!;
    this.#opJob[op] = job;
    this.#opFd[op] = segments.direct ? this.files.directFd : this.files.bufferedFd;
    this.#opAddress[op] = address;
    this.#opDiskOffset[op] = diskOffset;
    this.#opLength[op] = lengthBytes;
    this.#jobOps[job]!++;
    this.#submit(op, isWrite);
  }

  #submit(op: number, isWrite: boolean): void {
    const token = this.tokenOf(op);
    const fd = this.#opFd[op]!;
    if (isWrite) this.reactor.write(fd, this.#opAddress[op]!, this.#opLength[op]!, this.#opDiskOffset[op]!, token);
    else this.reactor.read(fd, this.#opAddress[op]!, this.#opLength[op]!, this.#opDiskOffset[op]!, token);
  }

  #finish(job: number): void {
    this.#jobsPending--;
    this.#freeJobs.push(job);
    if (this.#jobIsWrite[job] === 1 && this.order !== null) this.#orderedWrites--;
    this.done(this.#jobIsWrite[job] === 1, this.#jobTag[job]!);
  }

  #fault(op: number, isWrite: boolean, result: number): never {
    throw diskFault(this.files.path, isWrite ? "write" : "read", this.#opDiskOffset[op]!, result);
  }
}
