/**
 * What one send consists of: memory and ranges of files, in order, and how much of it has gone.
 *
 * Memory goes by sendmsg(2), a file's range by sendfile(2) straight from the page cache, so that what lies there
 * is copied nowhere on this machine. The iovec array is mmapped memory lent by the owner; the memory and the
 * descriptors that parts name belong to the caller and stay valid until everything has gone or failed.
 *
 * sendfile(2) knows no MSG_NOSIGNAL: the runtime ignores SIGPIPE, so a peer that is gone is -EPIPE here too.
 */
import { assert } from "../errors.ts";
import * as abi from "./abi.ts";
import * as libc from "./libc.ts";
import { type Memory, mapMemory, viewAt } from "./memory.ts";
import type { Address } from "./reactor.ts";

const MEMORY = -1;
const WORD = 2 ** 32;

/** One `struct msghdr` for each thread that loads this module: filled and used within one call. */
let headerMemory: Memory | null = null;

/** Bytes of mmapped memory that a list of `capacity` parts needs. */
export function sendListMemoryBytes(capacity: number): number {
  return capacity * abi.IOVEC_BYTES;
}

export class SendList {
  /** `struct iovec` as pairs of 32-bit words (little endian): base low, base high, length, 0. */
  readonly #iov: Uint32Array;
  readonly #fileFd: Int32Array;
  readonly #offsetBytes: Float64Array;
  #first = 0;
  #count = 0;
  #fileParts = 0;
  #fileFault = false;

  constructor(
    readonly iovAddress: Address,
    readonly capacity: number,
  ) {
    const iov = viewAt(iovAddress, sendListMemoryBytes(capacity));
    this.#iov = new Uint32Array(iov.buffer, iov.byteOffset, capacity * 4);
    this.#fileFd = new Int32Array(capacity);
    this.#offsetBytes = new Float64Array(capacity);
  }

  /** Parts that have not gone in full. */
  get count(): number {
    return this.#count - this.#first;
  }

  /** Parts that can still be added. */
  get room(): number {
    return this.capacity - this.#count;
  }

  get hasFile(): boolean {
    return this.#fileParts > 0;
  }

  /** The last failure was of a file, not of the socket. */
  get fileFault(): boolean {
    return this.#fileFault;
  }

  /** Where in its file the first part goes on. */
  get fileOffsetBytes(): number {
    return this.#offsetBytes[this.#first];
  }

  /** Address of the first iovec that has not gone in full: for a list without files. */
  get firstIovec(): Address {
    return this.iovAddress + this.#first * abi.IOVEC_BYTES;
  }

  clear(): void {
    this.#first = 0;
    this.#count = 0;
    this.#fileParts = 0;
    this.#fileFault = false;
  }

  addMemory(address: Address, lengthBytes: number): void {
    this.#add(MEMORY, lengthBytes, 0);
    this.#setBase(this.#count - 1, address);
  }

  addFile(fd: number, offsetBytes: number, lengthBytes: number): void {
    this.#add(fd, lengthBytes, offsetBytes);
    this.#fileParts++;
  }

  /** Takes the parts from the `count`th on off again. */
  truncate(count: number): void {
    while (this.#count > count) if (this.#fileFd[--this.#count] !== MEMORY) this.#fileParts--;
  }

  /** `sentBytes` of what was left have gone. */
  advance(sentBytes: number): void {
    let left = sentBytes;
    while (left > 0) {
      assert(this.#first < this.#count, "no more is sent than there was");
      const at = this.#first * 4;
      const lengthBytes = this.#iov[at + 2];
      if (left < lengthBytes) {
        this.#iov[at + 2] = lengthBytes - left;
        if (this.#fileFd[this.#first] === MEMORY) {
          this.#setBase(this.#first, this.#iov[at] + this.#iov[at + 1] * WORD + left);
        } else this.#offsetBytes[this.#first] += left;
        return;
      }
      left -= lengthBytes;
      this.#first++;
    }
  }

  /**
   * Sends what a non-blocking socket takes now. Returns 0 when everything has gone, -EAGAIN when the socket takes no
   * more for now (wait until it is writable, call again), else minus errno; -ENODATA: a file ends before its part does.
   */
  send(socketFd: number): libc.Result {
    // Several ranges would otherwise leave as packets of their own, each pushed to the other end.
    const corks = this.#fileParts > 1;
    if (corks) {
      const corked = libc.setsockoptInt(socketFd, abi.IPPROTO_TCP, abi.TCP_CORK, 1);
      if (corked < 0) return corked;
    }
    const result = this.#sendParts(socketFd);
    if (!corks) return result;
    const uncorked = libc.setsockoptInt(socketFd, abi.IPPROTO_TCP, abi.TCP_CORK, 0);
    return result === 0 ? uncorked : result;
  }

  #sendParts(socketFd: number): libc.Result {
    while (this.#first < this.#count) {
      const isFile = this.#fileFd[this.#first] !== MEMORY;
      const result = isFile ? this.#sendFile(socketFd) : this.#sendMemory(socketFd);
      if (result > 0) this.advance(result);
      else if (result !== -libc.Errno.EINTR) {
        this.#fileFault = isFile && (result === 0 || result === -libc.Errno.EIO);
        return result === 0 ? -libc.Errno.ENODATA : result;
      }
    }
    return 0;
  }

  /** The run of memory at the head; where a file follows, the kernel waits for it to fill the packet. */
  #sendMemory(socketFd: number): libc.Result {
    let end = this.#first;
    while (end < this.#count && this.#fileFd[end] === MEMORY) end++;
    headerMemory ??= mapMemory(abi.MSGHDR_BYTES);
    const header = headerMemory.view;
    const iov = this.firstIovec;
    header.setUint32(16, iov >>> 0, true);
    header.setUint32(20, Math.floor(iov / WORD), true);
    header.setUint32(24, end - this.#first, true);
    const more = end < this.#count ? abi.MSG_MORE : 0;
    return libc.sendmsg(socketFd, headerMemory.address, abi.MSG_NOSIGNAL | abi.MSG_DONTWAIT | more);
  }

  #sendFile(socketFd: number): libc.Result {
    const first = this.#first;
    return libc.sendfile(socketFd, this.#fileFd[first], this.#offsetBytes[first], this.#iov[first * 4 + 2]);
  }

  #add(fileFd: number, lengthBytes: number, offsetBytes: number): void {
    assert(this.#count < this.capacity, "a send list has room");
    assert(lengthBytes > 0 && lengthBytes < WORD, "a part of a send has bytes");
    const index = this.#count++;
    this.#fileFd[index] = fileFd;
    this.#offsetBytes[index] = offsetBytes;
    this.#iov[index * 4 + 2] = lengthBytes;
    this.#iov[index * 4 + 3] = 0;
  }

  #setBase(index: number, address: Address): void {
    this.#iov[index * 4] = address % WORD;
    this.#iov[index * 4 + 1] = Math.floor(address / WORD);
  }
}
