/**
 * The reactor on io_uring: one entry per operation, user data = token.
 *
 * Invariants:
 * - The lower half of the user data is the caller's token; the upper half is 0 for an ordinary operation,
 *   slot + 1 for a `waitAll` receive, SENDING + slot for the wait of a list's send until its socket is writable,
 *   INTERNAL for entries whose completion nobody waits for.
 * - A `waitAll` receive keeps its slot until it is handed out: kernels before 5.19 return short in spite of
 *   MSG_WAITALL, so the remainder is submitted again here.
 * - `inFlight` counts what was submitted by the caller and not handed out; internal entries do not count.
 */
import { assert, assertRange, ExitCode, Failure } from "../errors.ts";
import { KiB } from "../units.ts";
import * as abi from "./abi.ts";
import { nowMs } from "./clock.ts";
import { Errno, errnoText, setNonblocking, setsockoptInt } from "./libc.ts";
import { type Memory, mapMemory } from "./memory.ts";
import type { Address, CompletionHandler, SelectedReactor, Token } from "./reactor.ts";
import { receiveNow } from "./receive-now.ts";
import type { SendList } from "./send-list.ts";
import { Op, Ring, type RingOptions, RingUnavailable, SQE_WORDS } from "./uring-ring.ts";

const INTERNAL = 0xffffffff;
/** Above any slot of a receive, below INTERNAL. */
const SENDING = 0x80000000;
/** IORING_RECVSEND_POLL_FIRST (Linux 5.19) in the upper half of an entry's first word: wait for data before trying. */
const POLL_FIRST = 1 << 16;
/**
 * A `waitAll` receive of at least this much is woken when so much has arrived, or the rest: a wake-up for each packet
 * costs more than the copy of its bytes.
 */
const PATIENT_BYTES = 256 * KiB;
const FSYNC_DATASYNC = 1;
const WORD = 2 ** 32;
/** The most that one transfer moves, MAX_RW_COUNT. */
const TRANSFER_BYTES_MAX = 0x7ffff000;

/** Receives that must be complete, by slot. Grows to the most that were ever in flight at once. */
class WaitAllTable {
  token = new Int32Array(64);
  fd = new Int32Array(64);
  address = new Float64Array(64);
  lengthBytes = new Int32Array(64);
  doneBytes = new Int32Array(64);
  /** SO_RCVLOWAT as it was set for this receive; 0: not touched. */
  lowWaterBytes = new Int32Array(64);
  cancelled = new Uint8Array(64);
  #free = new Int32Array(64);
  #freeCount = 0;
  used = 0;

  allocate(): number {
    if (this.#freeCount > 0) return this.#free[--this.#freeCount];
    if (this.used === this.token.length) this.#grow();
    return this.used++;
  }

  release(slot: number): void {
    this.token[slot] = -1;
    this.#free[this.#freeCount++] = slot;
  }

  find(token: Token): number {
    for (let slot = 0; slot < this.used; slot++) if (this.token[slot] === token) return slot;
    return -1;
  }

  #grow(): void {
    const size = this.token.length * 2;
    const wider = <T extends Int32Array | Float64Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.token = wider(this.token, new Int32Array(size));
    this.fd = wider(this.fd, new Int32Array(size));
    this.address = wider(this.address, new Float64Array(size));
    this.lengthBytes = wider(this.lengthBytes, new Int32Array(size));
    this.doneBytes = wider(this.doneBytes, new Int32Array(size));
    this.lowWaterBytes = wider(this.lowWaterBytes, new Int32Array(size));
    this.cancelled = wider(this.cancelled, new Uint8Array(size));
    this.#free = wider(this.#free, new Int32Array(size));
  }
}

/** Sends of lists, by slot: waiting for their first try in `run`, or for their socket to be writable. */
class SendTable {
  readonly token: number[] = [];
  readonly fd: number[] = [];
  readonly list: (SendList | null)[] = [];
  readonly cancelled: boolean[] = [];
  readonly #free: number[] = [];
  /** Slots to be tried in the next `run`, in order. */
  readonly due: number[] = [];

  add(token: Token, fd: number, list: SendList): void {
    const slot = this.#free.pop() ?? this.token.length;
    this.token[slot] = token;
    this.fd[slot] = fd;
    this.list[slot] = list;
    this.cancelled[slot] = false;
    this.due.push(slot);
  }

  release(slot: number): void {
    this.list[slot] = null;
    this.#free.push(slot);
  }

  find(token: Token): number {
    return this.list.findIndex((list, slot) => list !== null && this.token[slot] === token);
  }
}

class UringReactor implements SelectedReactor {
  readonly backend = "uring";
  readonly fallbackReason = null;
  readonly #ring: Ring;
  /** One `struct msghdr` per entry of the queue: the kernel reads it while submitting, not later. */
  readonly #headers: Memory;
  readonly #waitAllFlag: number;
  readonly #canPollFirst: boolean;
  readonly #waitAll = new WaitAllTable();
  readonly #sends = new SendTable();
  /** Completions that are not in the kernel's queue: of lists, and those taken early because it was full. Three numbers each. */
  #early: number[] = [];
  #inFlight = 0;
  #running = false;

  constructor(ring: Ring, options: RingOptions) {
    this.#ring = ring;
    this.#waitAllFlag = options.waitAllFlag === false ? 0 : abi.MSG_WAITALL;
    // The kernels that know any flag of ours at setup know this one too.
    this.#canPollFirst = ring.setupFlags !== 0;
    this.#headers = mapMemory(ring.sqEntries * abi.MSGHDR_BYTES);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  accept(listenFd: number, token: Token): void {
    // Kernels answer for a non-blocking listener with -EAGAIN instead of waiting. A descriptor that refuses this
    // refuses the accept too, which says so.
    setNonblocking(listenFd, false);
    const word = this.#operation(Op.accept, listenFd, token, 0);
    this.#ring.sqes[word + 7] = abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC;
  }

  connect(fd: number, sockaddr: Address, sockaddrBytes: number, token: Token): void {
    const word = this.#operation(Op.connect, fd, token, 0);
    this.#setOffset(word, sockaddrBytes);
    this.#setAddress(word, sockaddr);
  }

  recv(fd: number, address: Address, lengthBytes: number, waitAll: boolean, token: Token): void {
    assertTransfer(lengthBytes);
    if (!waitAll) {
      this.#submitRecv(this.#operation(Op.recv, fd, token, 0), address, lengthBytes, 0);
      return;
    }
    const table = this.#waitAll;
    const slot = table.allocate();
    table.token[slot] = token;
    table.fd[slot] = fd;
    table.address[slot] = address;
    table.lengthBytes[slot] = lengthBytes;
    table.doneBytes[slot] = 0;
    table.lowWaterBytes[slot] = 0;
    table.cancelled[slot] = 0;
    // A patient one first takes what is there.
    const flags = this.#isPatient(slot) ? 0 : this.#waitAllFlag;
    this.#submitRecv(this.#operation(Op.recv, fd, token, slot + 1), address, lengthBytes, flags);
  }

  receiveNow(fd: number, iov: Address, iovCount: number): number {
    return receiveNow(fd, iov, iovCount);
  }

  sendmsg(fd: number, iov: Address, iovCount: number, token: Token): void {
    const word = this.#operation(Op.sendmsg, fd, token, 0);
    const headerOffset = (word / SQE_WORDS) * abi.MSGHDR_BYTES;
    const header = this.#headers.view;
    header.setUint32(headerOffset + 16, iov >>> 0, true);
    header.setUint32(headerOffset + 20, Math.floor(iov / WORD), true);
    header.setUint32(headerOffset + 24, iovCount, true);
    this.#setAddress(word, this.#headers.address + headerOffset);
    this.#ring.sqes[word + 6] = 1;
    this.#ring.sqes[word + 7] = abi.MSG_NOSIGNAL;
  }

  sendList(fd: number, list: SendList, token: Token): void {
    assertOperation(fd, token);
    this.#inFlight++;
    this.#sends.add(token, fd, list);
  }

  read(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void {
    this.#transfer(Op.read, fd, address, lengthBytes, offsetBytes, token);
  }

  write(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void {
    this.#transfer(Op.write, fd, address, lengthBytes, offsetBytes, token);
  }

  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number, token: Token): void {
    assertOffset(offsetBytes);
    assertOffset(lengthBytes);
    const word = this.#operation(Op.fallocate, fd, token, 0);
    this.#setOffset(word, offsetBytes);
    // The length stands where the address is elsewhere, the mode where the length is.
    this.#setAddress(word, lengthBytes);
    this.#ring.sqes[word + 6] = mode;
  }

  sync(fd: number, token: Token): void {
    const word = this.#operation(Op.fsync, fd, token, 0);
    this.#ring.sqes[word + 7] = FSYNC_DATASYNC;
  }

  pollIn(fd: number, token: Token): void {
    const word = this.#operation(Op.pollAdd, fd, token, 0);
    this.#ring.sqes[word + 7] = abi.POLLIN;
  }

  cancel(token: Token): void {
    const slot = this.#waitAll.find(token);
    if (slot >= 0) this.#waitAll.cancelled[slot] = 1;
    const send = this.#sends.find(token);
    if (send >= 0) this.#sends.cancelled[send] = true;
    const word = this.#entry(Op.asyncCancel, -1, 0, INTERNAL);
    this.#ring.sqes[word + 4] = token;
    this.#ring.sqes[word + 5] = send >= 0 ? SENDING + send : slot + 1;
  }

  run(timeoutMs: number, handler: CompletionHandler): number {
    assert(!this.#running, "run called by its own completion handler");
    assertRange(timeoutMs >= 0, "time-out", timeoutMs);
    assert(this.#inFlight > 0 || timeoutMs !== Number.POSITIVE_INFINITY, "waiting for ever with nothing in flight");
    this.#running = true;
    try {
      return this.#run(timeoutMs, handler);
    } finally {
      this.#running = false;
    }
  }

  close(): void {
    assert(this.#inFlight === 0, `reactor closed with ${this.#inFlight} operations in flight`);
    this.#ring.close();
    this.#headers.free();
  }

  #run(timeoutMs: number, handler: CompletionHandler): number {
    const timed = timeoutMs > 0 && timeoutMs !== Number.POSITIVE_INFINITY;
    const deadline = timed ? nowMs() + timeoutMs : 0;
    let leftMs = timeoutMs;
    for (;;) {
      this.#trySends();
      this.#submitAndWait(leftMs);
      const delivered = this.#deliver(handler);
      if (delivered > 0 || timeoutMs === 0) return delivered;
      // Only internal completions came: wait for the rest of the time.
      if (timed) leftMs = deadline - nowMs();
      if (leftMs <= 0) return 0;
    }
  }

  #trySends(): void {
    const due = this.#sends.due;
    for (const slot of due) this.#trySend(slot);
    due.length = 0;
  }

  /** Sends what the socket takes; where that is not all, waits for it to be writable and tries again. */
  #trySend(slot: number): void {
    const { token, fd, list, cancelled } = this.#sends;
    const result = cancelled[slot] ? -Errno.ECANCELED : list[slot]!.send(fd[slot]);
    if (result === -Errno.EAGAIN) {
      const word = this.#entry(Op.pollAdd, fd[slot], token[slot], SENDING + slot);
      this.#ring.sqes[word + 7] = abi.POLLOUT;
      return;
    }
    this.#early.push(token[slot], 0, result === 0 ? 1 : result);
    this.#sends.release(slot);
  }

  #submitAndWait(timeoutMs: number): void {
    const ring = this.#ring;
    const ready = this.#early.length > 0 || ring.completions > 0;
    if (ready && ring.queued === 0) return;
    let waitMs = ready ? 0 : timeoutMs;
    if (waitMs > 0 && waitMs !== Number.POSITIVE_INFINITY && !ring.extendedWait) {
      this.#queueTimeout(waitMs);
      waitMs = Number.POSITIVE_INFINITY;
    }
    if (!ring.enter(waitMs)) this.#makeRoom();
  }

  /** The wait of 5.10: an operation that completes after the time or with the next completion, whichever is first. */
  #queueTimeout(timeoutMs: number): void {
    const word = this.#entry(Op.timeout, -1, 0, INTERNAL);
    this.#setAddress(word, this.#ring.timespec(timeoutMs));
    this.#setOffset(word, 1);
    this.#ring.sqes[word + 6] = 1;
  }

  /** Takes completions early so that the kernel accepts submissions again. */
  #makeRoom(): void {
    const ring = this.#ring;
    for (let tries = 0; ; tries++) {
      while (ring.completions > 0) {
        this.#early.push(ring.userDataLow, ring.userDataHigh, ring.result);
        ring.advance();
      }
      if (ring.enter(0)) return;
      if (tries > 1_000_000)
        throw new Failure(ExitCode.failed, "io-uring", "io_uring_enter: EBUSY without end; try --io epoll");
    }
  }

  #deliver(handler: CompletionHandler): number {
    const ring = this.#ring;
    let delivered = 0;
    if (this.#early.length > 0) {
      const early = this.#early;
      this.#early = [];
      for (let index = 0; index < early.length; index += 3) {
        delivered += this.#complete(early[index], early[index + 1], early[index + 2], handler);
      }
    }
    // What the handler submits may complete at once: the bound keeps one call from going on for ever.
    for (let left = ring.completions; left > 0 && ring.completions > 0; left--) {
      const low = ring.userDataLow;
      const high = ring.userDataHigh;
      const result = ring.result;
      ring.advance();
      delivered += this.#complete(low, high, result, handler);
    }
    return delivered;
  }

  /** Returns 1 when the handler was called. */
  #complete(token: Token, tag: number, kernelResult: number, handler: CompletionHandler): number {
    if (tag === INTERNAL) return 0;
    let result = kernelResult;
    if (tag >= SENDING) {
      // An error of the wait shows in the next try.
      this.#sends.due.push(tag - SENDING);
      return 0;
    }
    if (tag !== 0) {
      const slot = tag - 1;
      if (this.#goesOn(slot, result)) return 0;
      const doneBytes = this.#waitAll.doneBytes[slot];
      result = doneBytes > 0 ? doneBytes : result;
      if (this.#waitAll.lowWaterBytes[slot] > 0) this.#setLowWater(slot, 1);
      this.#waitAll.release(slot);
    }
    this.#inFlight--;
    handler(token, result);
    return 1;
  }

  /** Accounts for one part of a `waitAll` receive and submits the remainder when there is one to wait for. */
  #goesOn(slot: number, result: number): boolean {
    const table = this.#waitAll;
    if (result > 0) table.doneBytes[slot] += result;
    const doneBytes = table.doneBytes[slot];
    const leftBytes = table.lengthBytes[slot] - doneBytes;
    const interrupted = result === -Errno.EINTR;
    if (leftBytes === 0 || table.cancelled[slot] === 1 || (result <= 0 && !interrupted)) return false;
    const patient = this.#isPatient(slot);
    // It is woken once for what is left, so the mark is never above that.
    const lowWaterBytes = Math.min(leftBytes, PATIENT_BYTES);
    if (patient && table.lowWaterBytes[slot] !== lowWaterBytes) this.#setLowWater(slot, lowWaterBytes);
    const word = this.#entry(Op.recv, table.fd[slot], table.token[slot], slot + 1);
    if (patient) this.#ring.sqes[word] |= POLL_FIRST;
    this.#submitRecv(word, table.address[slot] + doneBytes, leftBytes, patient ? 0 : this.#waitAllFlag);
    return true;
  }

  #isPatient(slot: number): boolean {
    return this.#canPollFirst && this.#waitAll.lengthBytes[slot] >= PATIENT_BYTES;
  }

  #setLowWater(slot: number, lowWaterBytes: number): void {
    const set = setsockoptInt(this.#waitAll.fd[slot], abi.SOL_SOCKET, abi.SO_RCVLOWAT, lowWaterBytes);
    assert(set === 0, `SO_RCVLOWAT of a socket that is received from: ${errnoText(set)}`);
    this.#waitAll.lowWaterBytes[slot] = lowWaterBytes;
  }

  #submitRecv(word: number, address: Address, lengthBytes: number, flags: number): void {
    this.#setAddress(word, address);
    this.#ring.sqes[word + 6] = lengthBytes;
    this.#ring.sqes[word + 7] = flags;
  }

  #transfer(
    opcode: number,
    fd: number,
    address: Address,
    lengthBytes: number,
    offsetBytes: number,
    token: Token,
  ): void {
    assertTransfer(lengthBytes);
    assertOffset(offsetBytes);
    const word = this.#operation(opcode, fd, token, 0);
    this.#setOffset(word, offsetBytes);
    this.#setAddress(word, address);
    this.#ring.sqes[word + 6] = lengthBytes;
  }

  #operation(opcode: number, fd: number, token: Token, tag: number): number {
    assertOperation(fd, token);
    this.#inFlight++;
    return this.#entry(opcode, fd, token, tag);
  }

  /** Starts an entry. Returns the index of its first word; makes room by submitting where the queue is full. */
  #entry(opcode: number, fd: number, token: Token, tag: number): number {
    const ring = this.#ring;
    while (ring.full) if (!ring.enter(0)) this.#makeRoom();
    const sqes = ring.sqes;
    const word = ring.next() * SQE_WORDS;
    sqes[word] = opcode;
    sqes[word + 1] = fd;
    sqes[word + 2] = 0;
    sqes[word + 3] = 0;
    sqes[word + 4] = 0;
    sqes[word + 5] = 0;
    sqes[word + 6] = 0;
    sqes[word + 7] = 0;
    sqes[word + 8] = token;
    sqes[word + 9] = tag;
    sqes[word + 10] = 0;
    sqes[word + 11] = 0;
    return word;
  }

  #setOffset(word: number, value: number): void {
    this.#ring.sqes[word + 2] = value;
    this.#ring.sqes[word + 3] = Math.floor(value / WORD);
  }

  #setAddress(word: number, value: number): void {
    this.#ring.sqes[word + 4] = value;
    this.#ring.sqes[word + 5] = Math.floor(value / WORD);
  }
}

function assertOperation(fd: number, token: Token): void {
  assertRange((token | 0) === token && token >= 0, "token", token);
  assertRange((fd | 0) === fd && fd >= 0, "file descriptor", fd);
}

function assertTransfer(lengthBytes: number): void {
  assert(
    lengthBytes > 0 && lengthBytes <= TRANSFER_BYTES_MAX && Number.isInteger(lengthBytes),
    `length out of range: ${lengthBytes}`,
  );
}

function assertOffset(offsetBytes: number): void {
  assertRange(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, "offset", offsetBytes);
}

/**
 * Opens a reactor on io_uring with a submission queue of `queueDepth` entries (more may be in flight).
 * Throws RingUnavailable where the kernel offers none.
 */
export function openUring(queueDepth: number, options: RingOptions = {}): SelectedReactor {
  return new UringReactor(new Ring(queueDepth, options), options);
}

/** Whether this kernel lets this process use io_uring, and if not, why (one clause). */
export function uringAvailable(options: RingOptions = {}): { ok: boolean; reason: string } {
  try {
    new Ring(1, options).close();
    return { ok: true, reason: "" };
  } catch (error) {
    if (error instanceof RingUnavailable) return { ok: false, reason: error.message };
    throw error;
  }
}
