/**
 * The reactor without io_uring: non-blocking sockets on epoll, files on a few threads.
 *
 * Invariants:
 * - An operation is first tried, in `run`, and parked only when the kernel says -EAGAIN. Parked operations of
 *   a descriptor and direction complete in the order of submission.
 * - A descriptor is armed (EPOLLONESHOT) exactly while something is parked on it. Arming asks the kernel, not
 *   a table of ours, so a number that was closed and given out again is no danger.
 * - Disk operations go to the threads when submitted; what finds no place there waits in order.
 */
import { assert, assertRange, ExitCode, Failure } from "../errors.ts";
import * as abi from "./abi.ts";
import { nowMs } from "./clock.ts";
import { JobKind } from "./disk-jobs.ts";
import { DiskThreads } from "./disk-threads.ts";
import { Kind, Lists, Operations, PairQueue, Place } from "./epoll-operations.ts";
import * as libc from "./libc.ts";
import { type Memory, mapMemory } from "./memory.ts";
import type { Address, CompletionHandler, SelectedReactor, Token } from "./reactor.ts";
import { receiveNow } from "./receive-now.ts";
import type { SendList } from "./send-list.ts";

const { EAGAIN, ECANCELED, EEXIST, EINPROGRESS, EINTR, ENOENT, EPERM } = libc.Errno;

const EVENTS_MAX = 256;
const HEADER_OFFSET = EVENTS_MAX * abi.EPOLL_EVENT_BYTES;
/** How often a wait looks after threads that still start. */
const START_LOOK_MS = 500;
const TRANSFER_BYTES_MAX = 0x7ffff000;
/** Keys of the lists of operations that wait to be tried and for a disk thread. */
const TO_TRY = 0;
const FOR_DISK = 1;
/** A try that ended in waiting; no result of a system call looks like it. */
const PARK = Number.NEGATIVE_INFINITY;

const JOB_OF_KIND: Record<number, JobKind> = {
  [Kind.read]: JobKind.read,
  [Kind.write]: JobKind.write,
  [Kind.fallocate]: JobKind.fallocate,
  [Kind.sync]: JobKind.sync,
};

class EpollReactor implements SelectedReactor {
  readonly backend = "epoll";
  readonly fallbackReason: string | null;
  readonly #epollFd: number;
  /** Events of epoll_wait, then one `struct msghdr`. */
  readonly #memory: Memory;
  readonly #disk = new DiskThreads();
  readonly #operations = new Operations();
  readonly #queues = new Lists(this.#operations);
  readonly #readers = new Lists(this.#operations);
  readonly #writers = new Lists(this.#operations);
  readonly #completed = new PairQueue();
  readonly #diskReport = (operation: number, result: number) => {
    this.#diskInFlight--;
    this.#complete(operation, result);
  };
  #diskInFlight = 0;
  #inFlight = 0;
  #running = false;

  constructor(fallbackReason: string | null) {
    this.fallbackReason = fallbackReason;
    this.#epollFd = libc.epollCreate();
    if (this.#epollFd < 0)
      throw new Failure(ExitCode.failed, "epoll", `epoll_create1: ${libc.errnoText(this.#epollFd)}`);
    this.#memory = mapMemory(HEADER_OFFSET + abi.MSGHDR_BYTES);
    const added = libc.epollCtl(this.#epollFd, abi.EPOLL_CTL_ADD, this.#disk.wakeFd, abi.EPOLLIN, this.#disk.wakeFd);
    assert(added === 0, `epoll_ctl of an eventfd: ${libc.errnoText(added)}`);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  accept(listenFd: number, token: Token): void {
    // A descriptor that refuses this refuses the accept too, which says so; the same goes for connect.
    libc.setNonblocking(listenFd, true);
    this.#queue(this.#operation(Kind.accept, listenFd, token));
  }

  connect(fd: number, sockaddr: Address, sockaddrBytes: number, token: Token): void {
    libc.setNonblocking(fd, true);
    const index = this.#operation(Kind.connect, fd, token);
    this.#operations.address[index] = sockaddr;
    this.#operations.argument[index] = sockaddrBytes;
    this.#queue(index);
  }

  recv(fd: number, address: Address, lengthBytes: number, waitAll: boolean, token: Token): void {
    const index = this.#transfer(Kind.recv, fd, address, lengthBytes, 0, token);
    this.#operations.flag[index] = waitAll ? 1 : 0;
    this.#queue(index);
  }

  receiveNow(fd: number, iov: Address, iovCount: number): number {
    return receiveNow(fd, iov, iovCount);
  }

  sendmsg(fd: number, iov: Address, iovCount: number, token: Token): void {
    const index = this.#operation(Kind.sendmsg, fd, token);
    this.#operations.address[index] = iov;
    this.#operations.argument[index] = iovCount;
    this.#queue(index);
  }

  sendList(fd: number, list: SendList, token: Token): void {
    const index = this.#operation(Kind.sendList, fd, token);
    this.#operations.list[index] = list;
    this.#queue(index);
  }

  read(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void {
    this.#giveToDisk(this.#transfer(Kind.read, fd, address, lengthBytes, offsetBytes, token));
  }

  write(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void {
    this.#giveToDisk(this.#transfer(Kind.write, fd, address, lengthBytes, offsetBytes, token));
  }

  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number, token: Token): void {
    assertRange(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0, "length", lengthBytes);
    assertRange(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, "offset", offsetBytes);
    const index = this.#operation(Kind.fallocate, fd, token);
    this.#operations.argument[index] = mode;
    this.#operations.offsetBytes[index] = offsetBytes;
    this.#operations.lengthBytes[index] = lengthBytes;
    this.#giveToDisk(index);
  }

  sync(fd: number, token: Token): void {
    this.#giveToDisk(this.#operation(Kind.sync, fd, token));
  }

  pollIn(fd: number, token: Token): void {
    this.#queue(this.#operation(Kind.pollIn, fd, token));
  }

  cancel(token: Token): void {
    const operations = this.#operations;
    const index = operations.find(token);
    if (index < 0) return;
    const place = operations.place[index];
    if (place === Place.parked) {
      this.#listOf(index).remove(operations.fd[index], index);
      this.#complete(index, -ECANCELED);
    } else if (place === Place.queued) {
      // Its list is walked by `run`, which completes it.
      operations.cancelled[index] = 1;
    }
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
    const result = libc.close(this.#epollFd);
    assert(result === 0, `close of epoll: ${libc.errnoText(result)}`);
    this.#disk.close();
    this.#memory.free();
  }

  #run(timeoutMs: number, handler: CompletionHandler): number {
    const timed = timeoutMs > 0 && timeoutMs !== Number.POSITIVE_INFINITY;
    const deadline = timed ? nowMs() + timeoutMs : 0;
    let leftMs = timeoutMs;
    for (;;) {
      this.#tryQueued();
      this.#wait(this.#completed.length > 0 ? 0 : leftMs);
      this.#collectDisk();
      const delivered = this.#deliver(handler);
      if (delivered > 0 || timeoutMs === 0) return delivered;
      if (timed) leftMs = deadline - nowMs();
      if (leftMs <= 0) return 0;
    }
  }

  /** Tries what was submitted since the last call, behind what is parked already. */
  #tryQueued(): void {
    const operations = this.#operations;
    for (let index = this.#queues.shift(TO_TRY); index >= 0; index = this.#queues.shift(TO_TRY)) {
      if (operations.cancelled[index] === 1) {
        this.#complete(index, -ECANCELED);
        continue;
      }
      const list = this.#listOf(index);
      const fd = operations.fd[index];
      const waits = list.head(fd) >= 0;
      const result = waits ? PARK : this.#try(index, 0);
      if (result !== PARK) {
        this.#complete(index, result);
        continue;
      }
      operations.place[index] = Place.parked;
      list.push(fd, index);
      if (!waits) this.#arm(fd);
    }
  }

  #wait(timeoutMs: number): void {
    let waitMs = timeoutMs === Number.POSITIVE_INFINITY ? -1 : Math.min(0x7fffffff, Math.ceil(timeoutMs));
    const diskBusy = this.#diskInFlight > 0;
    if (diskBusy) {
      if (waitMs !== 0 && !this.#disk.sleeping(true)) waitMs = 0;
      if (this.#disk.starting && (waitMs < 0 || waitMs > START_LOOK_MS)) waitMs = START_LOOK_MS;
    }
    const count = libc.epollWait(this.#epollFd, this.#memory.address, EVENTS_MAX, waitMs);
    if (diskBusy) this.#disk.sleeping(false);
    if (count < 0 && count !== -EINTR)
      throw new Failure(ExitCode.failed, "epoll", `epoll_wait: ${libc.errnoText(count)}`);
    const view = this.#memory.view;
    for (let event = 0; event < count; event++) {
      const at = event * abi.EPOLL_EVENT_BYTES;
      this.#ready(view.getInt32(at + abi.EPOLL_EVENT_DATA_OFFSET, true), view.getUint32(at, true));
    }
    if (diskBusy && this.#disk.starting) this.#disk.check();
  }

  #ready(fd: number, events: number): void {
    if (fd === this.#disk.wakeFd) {
      this.#disk.awake();
      return;
    }
    const failed = (events & (abi.EPOLLERR | abi.EPOLLHUP)) !== 0;
    if (failed || (events & abi.EPOLLIN) !== 0) this.#resume(this.#readers, fd, events);
    if (failed || (events & abi.EPOLLOUT) !== 0) this.#resume(this.#writers, fd, events);
    if (this.#readers.head(fd) >= 0 || this.#writers.head(fd) >= 0) this.#arm(fd);
  }

  /** Goes on with the operations that are parked on a descriptor, in order, until one has to wait again. */
  #resume(list: Lists, fd: number, events: number): void {
    for (let index = list.head(fd); index >= 0; index = list.head(fd)) {
      const result = this.#try(index, events);
      if (result === PARK) return;
      list.shift(fd);
      this.#complete(index, result);
    }
  }

  /** Asks for one event for what is parked on the descriptor. */
  #arm(fd: number): void {
    let events: number = abi.EPOLLONESHOT;
    if (this.#readers.head(fd) >= 0) events |= abi.EPOLLIN;
    if (this.#writers.head(fd) >= 0) events |= abi.EPOLLOUT;
    let result = libc.epollCtl(this.#epollFd, abi.EPOLL_CTL_MOD, fd, events, fd);
    if (result === -ENOENT) result = libc.epollCtl(this.#epollFd, abi.EPOLL_CTL_ADD, fd, events, fd);
    assert(result !== -EEXIST, "a descriptor is armed once");
    if (result < 0) this.#refuse(fd, result);
  }

  /** Completes what is parked on a descriptor that epoll does not take. A file or disk (-EPERM) is always readable. */
  #refuse(fd: number, errno: number): void {
    for (const list of [this.#readers, this.#writers]) {
      for (let index = list.shift(fd); index >= 0; index = list.shift(fd)) {
        const isFile = errno === -EPERM && this.#operations.kind[index] === Kind.pollIn;
        this.#complete(index, isFile ? abi.POLLIN : errno);
      }
    }
  }

  /** One try of an operation. Returns its result, or PARK. `events` are those of the descriptor, 0 at the first try. */
  #try(index: number, events: number): number {
    const operations = this.#operations;
    const fd = operations.fd[index];
    switch (operations.kind[index]) {
      case Kind.accept:
        return this.#orPark(libc.accept4(fd, abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC));
      case Kind.connect:
        return this.#tryConnect(index, fd);
      case Kind.recv:
        return this.#tryRecv(index, fd);
      case Kind.sendmsg:
        return this.#trySendmsg(index, fd);
      case Kind.sendList:
        return this.#trySendList(operations.list[index]!, fd);
      default:
        return events === 0 ? PARK : events & (abi.EPOLLIN | abi.EPOLLERR | abi.EPOLLHUP);
    }
  }

  #orPark(result: number): number {
    return result === -EAGAIN || result === -EINTR ? PARK : result;
  }

  #tryConnect(index: number, fd: number): number {
    const operations = this.#operations;
    if (operations.flag[index] === 1) {
      const error = libc.getsockoptInt(fd, abi.SOL_SOCKET, abi.SO_ERROR);
      return error > 0 ? -error : error;
    }
    operations.flag[index] = 1;
    const result = libc.connect(fd, operations.address[index], operations.argument[index]);
    return result === -EINPROGRESS || result === -EINTR ? PARK : result;
  }

  #tryRecv(index: number, fd: number): number {
    const operations = this.#operations;
    const waitAll = operations.flag[index] === 1;
    for (;;) {
      const doneBytes = operations.doneBytes[index];
      const leftBytes = operations.lengthBytes[index] - doneBytes;
      const result = libc.recv(fd, operations.address[index] + doneBytes, leftBytes, abi.MSG_DONTWAIT);
      if (result === -EAGAIN || result === -EINTR) return PARK;
      if (result <= 0) return doneBytes > 0 ? doneBytes : result;
      operations.doneBytes[index] = doneBytes + result;
      if (!waitAll || result === leftBytes) return doneBytes + result;
    }
  }

  #trySendmsg(index: number, fd: number): number {
    const iov = this.#operations.address[index];
    const header = this.#memory.view;
    header.setUint32(HEADER_OFFSET + 16, iov >>> 0, true);
    header.setUint32(HEADER_OFFSET + 20, Math.floor(iov / 2 ** 32), true);
    header.setUint32(HEADER_OFFSET + 24, this.#operations.argument[index], true);
    return this.#orPark(libc.sendmsg(fd, this.#memory.address + HEADER_OFFSET, abi.MSG_NOSIGNAL | abi.MSG_DONTWAIT));
  }

  #trySendList(list: SendList, fd: number): number {
    const result = list.send(fd);
    return result === 0 ? 1 : this.#orPark(result);
  }

  #giveToDisk(index: number): void {
    this.#diskInFlight++;
    if (this.#queues.head(FOR_DISK) >= 0 || !this.#submitToDisk(index)) this.#queues.push(FOR_DISK, index);
  }

  #submitToDisk(index: number): boolean {
    const o = this.#operations;
    const job = JOB_OF_KIND[o.kind[index]];
    const taken = this.#disk.submit(
      index,
      job,
      o.fd[index],
      o.address[index],
      o.lengthBytes[index],
      o.offsetBytes[index],
      o.argument[index],
    );
    if (taken) o.place[index] = Place.disk;
    return taken;
  }

  #collectDisk(): void {
    if (this.#diskInFlight === 0) return;
    this.#disk.collect(this.#diskReport);
    for (let index = this.#queues.head(FOR_DISK); index >= 0; index = this.#queues.head(FOR_DISK)) {
      if (this.#operations.cancelled[index] === 1) {
        this.#queues.shift(FOR_DISK);
        this.#diskReport(index, -ECANCELED);
      } else if (this.#submitToDisk(index)) {
        this.#queues.shift(FOR_DISK);
      } else {
        return;
      }
    }
  }

  #complete(index: number, result: number): void {
    const operations = this.#operations;
    const cutShort = result === -ECANCELED && operations.doneBytes[index] > 0;
    this.#completed.push(operations.token[index], cutShort ? operations.doneBytes[index] : result);
    operations.release(index);
  }

  /** Hands out what is complete; what completes meanwhile waits for the next call. */
  #deliver(handler: CompletionHandler): number {
    const count = this.#completed.length;
    for (let left = count; left > 0; left--) {
      const token = this.#completed.left;
      const result = this.#completed.right;
      this.#completed.drop();
      this.#inFlight--;
      handler(token, result);
    }
    return count;
  }

  #listOf(index: number): Lists {
    const kind = this.#operations.kind[index];
    return kind === Kind.sendmsg || kind === Kind.sendList || kind === Kind.connect ? this.#writers : this.#readers;
  }

  #queue(index: number): void {
    this.#queues.push(TO_TRY, index);
  }

  #transfer(kind: Kind, fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): number {
    assert(
      lengthBytes > 0 && lengthBytes <= TRANSFER_BYTES_MAX && Number.isInteger(lengthBytes),
      `length out of range: ${lengthBytes}`,
    );
    assertRange(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, "offset", offsetBytes);
    const index = this.#operation(kind, fd, token);
    this.#operations.address[index] = address;
    this.#operations.lengthBytes[index] = lengthBytes;
    this.#operations.offsetBytes[index] = offsetBytes;
    return index;
  }

  #operation(kind: Kind, fd: number, token: Token): number {
    assertRange((token | 0) === token && token >= 0, "token", token);
    assertRange((fd | 0) === fd && fd >= 0, "file descriptor", fd);
    this.#inFlight++;
    return this.#operations.allocate(kind, fd, token);
  }
}

/** Opens a reactor on epoll, which every Linux kernel offers. `fallbackReason`: why it is not io_uring, where that was wanted. */
export function openEpoll(fallbackReason: string | null = null): SelectedReactor {
  return new EpollReactor(fallbackReason);
}
