/**
 * The one interface between the data plane and the kernel: submit operations, wait for completions.
 *
 * Two back ends implement it (`uring.ts`, `epoll.ts`) and are run by the same tests; a simulated twin
 * could be a third. It is synchronous and single-threaded: one thread owns a reactor and is the only
 * one that calls it. Submitting never blocks and never completes inside the call; `run` hands every
 * completion to the handler.
 *
 * Buffers belong to the caller and must stay mapped and untouched from submission to completion.
 * They are addresses of mmapped memory (see `memory.ts`), never pointers into JavaScript's heap.
 */

import type { SendList } from "./send-list.ts";

/** Address of kernel-visible memory; a user-space address fits a double exactly. */
export type Address = number;
/** Chosen by the caller, 0 to 2^31 - 1, handed back with the completion. Unique among operations in flight. */
export type Token = number;

/** Called once for each completed operation. `result` is what the system call returns, or minus errno. */
export type CompletionHandler = (token: Token, result: number) => void;

export interface Reactor {
  readonly backend: "uring" | "epoll";
  /** Operations submitted whose completion was not handed out yet. */
  readonly inFlight: number;

  /** accept4(2) with SOCK_NONBLOCK|SOCK_CLOEXEC; result: the new descriptor. One accept per call. */
  accept(listenFd: number, token: Token): void;
  /** connect(2) to a sockaddr at `address`. Result 0 or -errno. */
  connect(fd: number, sockaddr: Address, sockaddrBytes: number, token: Token): void;
  /**
   * recv(2) of at most `lengthBytes`. Result: bytes, 0 at the end of the stream. With `waitAll` the result is
   * short only at the end of the stream, on an error or on a cancel. One receive and one send at a time on
   * a socket: io_uring keeps no order among several.
   */
  recv(fd: number, address: Address, lengthBytes: number, waitAll: boolean, token: Token): void;
  /**
   * recvmsg(2) of what has arrived, at once and without a completion, into a `struct iovec` array. Returns bytes, 0 at
   * the end of the stream, -EAGAIN where nothing has arrived, or -errno. No `recv` may be in flight on the socket.
   */
  receiveNow(fd: number, iov: Address, iovCount: number): number;
  /** sendmsg(2) with MSG_NOSIGNAL of a `struct iovec` array at `iov`. May be short: the caller goes on. */
  sendmsg(fd: number, iov: Address, iovCount: number, token: Token): void;
  /**
   * Sends all of a list, memory and ranges of files, on a non-blocking socket. Result: 1 when everything has gone,
   * else -errno; the list tells whether it was a file's fault (-ENODATA: it ends too early). A range that is not in
   * the page cache is read by this thread, so it should be there. The list stays untouched until the completion.
   */
  sendList(fd: number, list: SendList, token: Token): void;
  /** pread(2). May be short: the caller goes on; 0 is the end of the file. */
  read(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void;
  /** pwrite(2). May be short: the caller goes on; 0 is an error. */
  write(fd: number, address: Address, lengthBytes: number, offsetBytes: number, token: Token): void;
  /** fallocate(2), for example to zero a range. */
  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number, token: Token): void;
  /** fdatasync(2) (a block device's cache is flushed by it). */
  sync(fd: number, token: Token): void;
  /** Completes with revents when `fd` is readable (eventfd, timers); the caller reads it. */
  pollIn(fd: number, token: Token): void;
  /** Asks that the operation of that token ends early: it completes as usual, often with -ECANCELED. */
  cancel(token: Token): void;

  /**
   * Submits what was queued, waits until at least one operation completed or `timeoutMs` passed
   * (0: only look; Infinity: no time-out), and calls the handler for all that are complete.
   * Returns how many. The handler may submit further operations.
   */
  run(timeoutMs: number, handler: CompletionHandler): number;
  /** Ends the threads and descriptors of the reactor. No operation may be in flight. */
  close(): void;
}

/** A reactor and why it is the one it is. */
export interface SelectedReactor extends Reactor {
  /** One clause: why io_uring was passed over, where it was wanted but not required; else null. */
  readonly fallbackReason: string | null;
}
