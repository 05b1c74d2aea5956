/**
 * Datagrams in batches: one system call receives up to 64 of them, another sends the replies. For a server
 * whose replies are short and made at once.
 *
 * Packets, addresses and replies stand in one mapping; a packet's view is valid until the next `receive`.
 */
import { assert } from "../errors.ts";
import * as abi from "./abi.ts";
import * as libc from "./libc.ts";
import { type Memory, mapMemory } from "./memory.ts";
import { SOCKADDR_BYTES, sockaddrHostBytes } from "./sockets.ts";

const BATCH = 64;
/** A longer packet is cut to this. */
const PACKET_BYTES = 2048;
const SOCKADDR_ROOM = 32;
const IN_AT = 0;
const OUT_AT = BATCH * PACKET_BYTES;
const ADDRESSES_AT = OUT_AT + BATCH * PACKET_BYTES;
const IN_IOVS_AT = ADDRESSES_AT + BATCH * SOCKADDR_ROOM;
const OUT_IOVS_AT = IN_IOVS_AT + BATCH * abi.IOVEC_BYTES;
const IN_HEADERS_AT = OUT_IOVS_AT + BATCH * abi.IOVEC_BYTES;
const OUT_HEADERS_AT = IN_HEADERS_AT + BATCH * abi.MMSGHDR_BYTES;
const TOTAL_BYTES = OUT_HEADERS_AT + BATCH * abi.MMSGHDR_BYTES;
/** Members of `struct msghdr` and `mmsghdr`. */
const NAME = 0;
const NAME_BYTES = 8;
const IOV = 16;
const IOV_COUNT = 24;
const TRANSFERRED = 56;

export class DatagramBatch {
  readonly #fd: number;
  readonly #memory: Memory = mapMemory(TOTAL_BYTES);
  readonly #packets: Uint8Array[] = [];
  #replies = 0;

  /** `fd` is a bound UDP socket; it stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
    for (let index = 0; index < BATCH; index++) {
      this.#packets.push(this.#memory.bytes.subarray(IN_AT + index * PACKET_BYTES, IN_AT + (index + 1) * PACKET_BYTES));
      this.#setPointer(IN_IOVS_AT + index * abi.IOVEC_BYTES, IN_AT + index * PACKET_BYTES);
      this.#memory.view.setUint32(IN_IOVS_AT + index * abi.IOVEC_BYTES + 8, PACKET_BYTES, true);
      this.#setPointer(OUT_IOVS_AT + index * abi.IOVEC_BYTES, OUT_AT + index * PACKET_BYTES);
      this.#setHeader(IN_HEADERS_AT + index * abi.MMSGHDR_BYTES, index, IN_IOVS_AT + index * abi.IOVEC_BYTES);
    }
  }

  /** Receives what is there. Returns how many packets, 0 where there is none; -errno of ICMP errors and the like. */
  receive(): libc.Result {
    const view = this.#memory.view;
    for (let index = 0; index < BATCH; index++)
      view.setUint32(IN_HEADERS_AT + index * abi.MMSGHDR_BYTES + NAME_BYTES, SOCKADDR_BYTES, true);
    const count = libc.recvmmsg(this.#fd, this.#memory.address + IN_HEADERS_AT, BATCH, abi.MSG_DONTWAIT);
    return count === -libc.Errno.EAGAIN ? 0 : count;
  }

  /** Packet `index` of those received last. */
  packet(index: number): Uint8Array {
    const lengthBytes = this.#memory.view.getUint32(IN_HEADERS_AT + index * abi.MMSGHDR_BYTES + TRANSFERRED, true);
    return this.#packets[index].subarray(0, lengthBytes);
  }

  /** The sender's IP address, 4 or 16 bytes, new. */
  senderHost(index: number): Uint8Array | null {
    return sockaddrHostBytes(this.#memory.bytes, ADDRESSES_AT + index * SOCKADDR_ROOM);
  }

  /** Sets aside a reply to the sender of packet `index`; the bytes are copied. One for each packet at most. */
  reply(index: number, bytes: Uint8Array): void {
    assert(bytes.length <= PACKET_BYTES && this.#replies < BATCH, `a reply of ${bytes.length} bytes`);
    const slot = this.#replies++;
    this.#memory.bytes.set(bytes, OUT_AT + slot * PACKET_BYTES);
    const iov = OUT_IOVS_AT + slot * abi.IOVEC_BYTES;
    this.#memory.view.setUint32(iov + 8, bytes.length, true);
    const header = OUT_HEADERS_AT + slot * abi.MMSGHDR_BYTES;
    this.#setHeader(header, index, iov);
    const nameBytes = this.#memory.view.getUint32(IN_HEADERS_AT + index * abi.MMSGHDR_BYTES + NAME_BYTES, true);
    this.#memory.view.setUint32(header + NAME_BYTES, nameBytes, true);
  }

  /**
   * Sends the replies. One that the kernel refuses (no route, a forged source port 0) is lost, as the network
   * may lose it; a full socket buffer loses the rest. Returns how many were sent.
   */
  flush(): number {
    let sent = 0;
    for (let at = 0; at < this.#replies; ) {
      const headers = this.#memory.address + OUT_HEADERS_AT + at * abi.MMSGHDR_BYTES;
      const count = libc.sendmmsg(this.#fd, headers, this.#replies - at, abi.MSG_DONTWAIT | abi.MSG_NOSIGNAL);
      if (count === -libc.Errno.EAGAIN) break;
      if (count > 0) sent += count;
      at += count > 0 ? count : 1;
    }
    this.#replies = 0;
    return sent;
  }

  close(): void {
    this.#memory.free();
  }

  #setHeader(header: number, addressIndex: number, iov: number): void {
    this.#setPointer(header + NAME, ADDRESSES_AT + addressIndex * SOCKADDR_ROOM);
    this.#setPointer(header + IOV, iov);
    this.#memory.view.setUint32(header + IOV_COUNT, 1, true);
  }

  #setPointer(at: number, target: number): void {
    const address = this.#memory.address + target;
    this.#memory.view.setUint32(at, address >>> 0, true);
    this.#memory.view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
  }
}
