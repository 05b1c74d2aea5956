/**
 * One io_uring instance: setup with the best flags that the kernel offers, the shared rings, submission
 * and the wait. What the entries mean is uring.ts's business.
 *
 * The rings are the kernel's memory, mapped here and unmapped by `close`. Entries of the submission queue
 * are written in place as 32-bit words (io_uring_enter(2), linux/io_uring.h), so nothing is allocated per
 * operation. Linux 5.10 is the floor.
 */
import { assert, assertRange, ExitCode, Failure } from "../errors.ts";
import * as abi from "./abi.ts";
import { bufferAt } from "./ffi.ts";
import { close, Errno, errnoText, ioUringEnter, ioUringRegister, ioUringSetup, mmap, munmap } from "./libc.ts";
import { type Memory, mapMemory } from "./memory.ts";

/** Opcodes that the reactor uses; all of them are in 5.10. */
export const Op = {
  fsync: 3,
  pollAdd: 6,
  sendmsg: 9,
  timeout: 11,
  accept: 13,
  asyncCancel: 14,
  connect: 16,
  fallocate: 17,
  read: 22,
  write: 23,
  recv: 27,
} as const;

const SETUP_CQSIZE = 1 << 3;
const SETUP_CLAMP = 1 << 4;
const SETUP_COOP_TASKRUN = 1 << 8;
const SETUP_SINGLE_ISSUER = 1 << 12;
const SETUP_DEFER_TASKRUN = 1 << 13;
/** Best first: task work run by our own wait (6.1), no interrupts to run it (5.19), anything. */
const SETUP_CHOICES = [SETUP_SINGLE_ISSUER | SETUP_COOP_TASKRUN | SETUP_DEFER_TASKRUN, SETUP_COOP_TASKRUN, 0];

const FEAT_SINGLE_MMAP = 1 << 0;
const FEAT_NODROP = 1 << 1;
const FEAT_SUBMIT_STABLE = 1 << 2;
const FEAT_FAST_POLL = 1 << 5;
const FEAT_EXT_ARG = 1 << 8;
/** One mapping for both rings, no lost completions, nothing read after submission, sockets without threads. */
const FEATURES_NEEDED = FEAT_SINGLE_MMAP | FEAT_NODROP | FEAT_SUBMIT_STABLE | FEAT_FAST_POLL;

const ENTER_GETEVENTS = 1 << 0;
const ENTER_EXT_ARG = 1 << 3;
const OFFSET_SQ_RING = 0;
const OFFSET_SQES = 0x10000000;
const REGISTER_PROBE = 8;
const PROBE_OPS = 64;
const PROBE_SUPPORTED = 1;

const PARAMS_BYTES = 120;
/** Where the argument of a wait stands in the scratch memory: io_uring_getevents_arg, then a timespec. */
const ARG_OFFSET = 256;
const ARG_BYTES = 24;
const TIMESPEC_OFFSET = 288;
const SCRATCH_BYTES = 4096;

export const SQE_WORDS = 16;
const SQE_BYTES = 64;
const CQE_WORDS = 4;
const CQE_BYTES = 16;
/** Completions that fit without the kernel's overflow list, as a multiple of the submission queue. */
const COMPLETIONS_PER_ENTRY = 4;
const ENTRIES_MIN = 8;
const ENTRIES_MAX = 4096;
/** Tries before a kernel that stays short of memory for requests ends the work, a millisecond apart. */
const BUSY_TRIES_MAX = 5000;

/** For tests: an older or a troubled kernel. */
export interface RingOptions {
  /** Instead of the best that work. */
  readonly setupFlags?: number;
  /** False: waits with a time-out as 5.10 does. */
  readonly extendedWait?: boolean;
  /** False: receives come short as before 5.19. */
  readonly waitAllFlag?: boolean;
  readonly setup?: typeof ioUringSetup;
  readonly enter?: typeof ioUringEnter;
}

/** Why a ring could not be had, as a clause for an error message. */
export class RingUnavailable extends Error {}

export class Ring {
  /** The entries of the submission queue, SQE_WORDS words each. */
  readonly sqes: Uint32Array;
  readonly sqEntries: number;
  readonly cqEntries: number;
  readonly extendedWait: boolean;
  readonly setupFlags: number;
  readonly #fd: number;
  readonly #enterCall: typeof ioUringEnter;
  readonly #scratch: Memory;
  readonly #ringAddress: number;
  readonly #ringBytes: number;
  readonly #sqesAddress: number;
  readonly #ring: Uint32Array;
  readonly #sqTailWord: number;
  readonly #cqHeadWord: number;
  readonly #cqTailWord: number;
  readonly #cqesWord: number;
  readonly #cqMask: number;
  #sqTail = 0;
  #queued = 0;
  #cqHead = 0;
  readonly #pause = new Int32Array(new SharedArrayBuffer(4));

  /** Throws RingUnavailable with the reason where the kernel offers no ring of the kind needed. */
  constructor(queueDepth: number, options: RingOptions = {}) {
    assertRange(Number.isSafeInteger(queueDepth) && queueDepth > 0, "queue depth", queueDepth);
    this.#enterCall = options.enter ?? ioUringEnter;
    this.#scratch = mapMemory(SCRATCH_BYTES);
    const entries = Math.min(ENTRIES_MAX, Math.max(ENTRIES_MIN, 2 ** Math.ceil(Math.log2(queueDepth))));
    const { fd, flags } = setupRing(this.#scratch, entries, options);
    this.#fd = fd;
    this.setupFlags = flags;
    const params = this.#scratch.view;
    const features = params.getUint32(20, true);
    this.extendedWait = (features & FEAT_EXT_ARG) !== 0 && options.extendedWait !== false;
    this.sqEntries = params.getUint32(0, true);
    this.cqEntries = params.getUint32(4, true);
    const sqArrayOffset = params.getUint32(64, true);
    const cqesOffset = params.getUint32(100, true);
    this.#ringBytes = Math.max(sqArrayOffset + this.sqEntries * 4, cqesOffset + this.cqEntries * CQE_BYTES);
    this.#sqTailWord = params.getUint32(44, true) / 4;
    this.#cqHeadWord = params.getUint32(80, true) / 4;
    this.#cqTailWord = params.getUint32(84, true) / 4;
    this.#cqesWord = cqesOffset / 4;
    this.#cqMask = this.cqEntries - 1;
    this.#ringAddress = this.#map(this.#ringBytes, OFFSET_SQ_RING);
    this.#sqesAddress = this.#map(this.sqEntries * SQE_BYTES, OFFSET_SQES);
    this.#ring = new Uint32Array(bufferAt(this.#ringAddress, this.#ringBytes & ~3));
    this.sqes = new Uint32Array(bufferAt(this.#sqesAddress, this.sqEntries * SQE_BYTES));
    for (let index = 0; index < this.sqEntries; index++) this.#ring[sqArrayOffset / 4 + index] = index;
    const missing =
      (features & FEATURES_NEEDED) !== FEATURES_NEEDED ? "features of Linux 5.10" : this.#missingOperations();
    if (missing) {
      this.close();
      throw new RingUnavailable(`io_uring of this kernel lacks ${missing}`);
    }
  }

  /** Entries written but not yet taken by the kernel. */
  get queued(): number {
    return this.#queued;
  }

  get full(): boolean {
    return this.#queued === this.sqEntries;
  }

  /** Index of the next free entry; there must be one. It is queued by this call: fill it in before the next submission. */
  next(): number {
    const index = this.#sqTail & (this.sqEntries - 1);
    this.#sqTail = (this.#sqTail + 1) >>> 0;
    this.#queued++;
    return index;
  }

  /**
   * Submits what is queued and, when `timeoutMs` is not 0, waits for one completion at most that long.
   * A finite time-out needs `extendedWait`. Returns early on a signal.
   * Returns false when the kernel takes nothing until completions were taken (-EBUSY): empty the queue, go on.
   */
  enter(timeoutMs: number): boolean {
    // The kernel reads the tail in this thread, in the call that follows: an ordinary store is enough.
    this.#ring[this.#sqTailWord] = this.#sqTail;
    const wait = timeoutMs > 0 ? 1 : 0;
    const timed = wait === 1 && timeoutMs !== Number.POSITIVE_INFINITY;
    if (timed) this.#writeTimeout(timeoutMs);
    const flags = timed ? ENTER_GETEVENTS | ENTER_EXT_ARG : ENTER_GETEVENTS;
    const argument = timed ? this.#scratch.address + ARG_OFFSET : 0;
    for (let tries = 0; ; ) {
      const taken = this.#enterCall(this.#fd, this.#queued, wait, flags, argument, timed ? ARG_BYTES : 0);
      if (taken >= 0) {
        assert(taken > 0 || this.#queued === 0, "io_uring_enter took no entry");
        this.#queued -= taken;
        // The kernel stops at an entry that it refuses; its error comes as a completion and the rest still waits.
        if (this.#queued === 0) return true;
      } else if (taken === -Errno.ETIME || taken === -Errno.EINTR) {
        return true;
      } else if (taken === -Errno.EBUSY) {
        return false;
      } else if (taken === -Errno.EAGAIN && tries < BUSY_TRIES_MAX) {
        if (this.completions > 0) return false;
        tries++;
        Atomics.wait(this.#pause, 0, 0, 1);
      } else {
        throw new Failure(ExitCode.failed, "io-uring", `io_uring_enter: ${errnoText(taken)}; try --io epoll`);
      }
    }
  }

  /** Address of a `struct __kernel_timespec` of `timeoutMs`, valid until the next call: for IORING_OP_TIMEOUT. */
  timespec(timeoutMs: number): number {
    const seconds = Math.floor(timeoutMs / 1000);
    const nanoseconds = Math.min(999_999_999, Math.ceil((timeoutMs - seconds * 1000) * 1e6));
    const view = this.#scratch.view;
    view.setUint32(TIMESPEC_OFFSET, seconds >>> 0, true);
    view.setUint32(TIMESPEC_OFFSET + 4, Math.floor(seconds / 2 ** 32), true);
    view.setUint32(TIMESPEC_OFFSET + 8, nanoseconds, true);
    view.setUint32(TIMESPEC_OFFSET + 12, 0, true);
    return this.#scratch.address + TIMESPEC_OFFSET;
  }

  /** Completions that can be taken now. */
  get completions(): number {
    return (Atomics.load(this.#ring, this.#cqTailWord) - this.#cqHead) >>> 0;
  }

  /** The oldest completion's user data, lower and upper half, and result. There must be one. */
  get userDataLow(): number {
    return this.#ring[this.#cqesWord + (this.#cqHead & this.#cqMask) * CQE_WORDS];
  }
  get userDataHigh(): number {
    return this.#ring[this.#cqesWord + (this.#cqHead & this.#cqMask) * CQE_WORDS + 1];
  }
  get result(): number {
    return this.#ring[this.#cqesWord + (this.#cqHead & this.#cqMask) * CQE_WORDS + 2] | 0;
  }

  /** Gives the oldest completion's place back to the kernel. */
  advance(): void {
    this.#cqHead = (this.#cqHead + 1) >>> 0;
    Atomics.store(this.#ring, this.#cqHeadWord, this.#cqHead);
  }

  /** Ends the ring; the kernel cancels what may be left in it. */
  close(): void {
    const unmapped =
      munmap(this.#sqesAddress, this.sqEntries * SQE_BYTES) || munmap(this.#ringAddress, this.#ringBytes);
    assert(unmapped === 0, `munmap of the rings: ${errnoText(unmapped)}`);
    this.#release();
  }

  #map(lengthBytes: number, offset: number): number {
    const address = mmap(
      lengthBytes,
      abi.PROT_READ | abi.PROT_WRITE,
      abi.MAP_SHARED | abi.MAP_POPULATE,
      this.#fd,
      offset,
    );
    if (address > 0) return address;
    this.#release();
    throw new RingUnavailable(`io_uring's rings cannot be mapped (${errnoText(address)})`);
  }

  #release(): void {
    const result = close(this.#fd);
    assert(result === 0, `close of the ring: ${errnoText(result)}`);
    this.#scratch.free();
  }

  #writeTimeout(timeoutMs: number): void {
    const timespec = this.timespec(timeoutMs);
    const view = this.#scratch.view;
    view.setUint32(ARG_OFFSET + 16, timespec >>> 0, true);
    view.setUint32(ARG_OFFSET + 20, Math.floor(timespec / 2 ** 32), true);
  }

  #missingOperations(): string | null {
    const probe = mapMemory(SCRATCH_BYTES);
    const result = ioUringRegister(this.#fd, REGISTER_PROBE, probe.address, PROBE_OPS);
    const missing: string[] = [];
    for (const [name, opcode] of Object.entries(Op)) {
      const flags = probe.view.getUint16(16 + opcode * 8 + 2, true);
      if (result < 0 || (flags & PROBE_SUPPORTED) === 0) missing.push(name);
    }
    probe.free();
    return missing.length > 0 ? `the operations ${missing.join(", ")}` : null;
  }
}

/** Tries the choices of flags until the kernel knows one. Leaves the kernel's answer in `params`. */
function setupRing(params: Memory, entries: number, options: RingOptions): { fd: number; flags: number } {
  const setup = options.setup ?? ioUringSetup;
  const choices = options.setupFlags === undefined ? SETUP_CHOICES : [options.setupFlags];
  let result = -Errno.EINVAL;
  for (const flags of choices) {
    params.bytes.fill(0, 0, PARAMS_BYTES);
    params.view.setUint32(4, entries * COMPLETIONS_PER_ENTRY, true);
    params.view.setUint32(8, flags | SETUP_CQSIZE | SETUP_CLAMP, true);
    result = setup(entries, params.address);
    if (result >= 0) return { fd: result, flags };
    if (result !== -Errno.EINVAL) break;
  }
  params.free();
  throw new RingUnavailable(setupReason(result));
}

/** What stands between the user and a ring, by the errno of io_uring_setup(2). */
function setupReason(errno: number): string {
  switch (-errno) {
    case Errno.ENOSYS:
      return "io_uring_setup: ENOSYS: the kernel is older than 5.1 or built without io_uring, or a sandbox hides it";
    case Errno.EPERM:
      return "io_uring_setup: EPERM: forbidden by sysctl kernel.io_uring_disabled or by a container's seccomp profile";
    case Errno.ENOMEM:
      return "io_uring_setup: ENOMEM: out of memory, or over the limit of locked memory (ulimit -l)";
    default:
      return `io_uring_setup: ${errnoText(errno)}`;
  }
}
