/**
 * Many small blocks with one system call: what a source sends next is known from what was asked of it.
 *
 * With blocks of 16 KiB a receive for each header and one for each payload cost more than the bytes. Requests are
 * answered in order, so one recvmsg(2) takes the rest of the block that is due, the next header, its payload
 * straight into its slab, the next header, and so on. Nothing waits: the call takes what has arrived, and the
 * session is fed before anything else happens, so nobody else can begin to receive the same blocks meanwhile.
 *
 * Where something else stands between two blocks (a HAVE, a choke, a block out of order), what came behind it was
 * put into wrong places. It is then copied together and handed on byte by byte as it came; the slabs it touched hold
 * nothing yet, because only blocks that nobody has or is receiving are expected.
 *
 * One is shared by all connections of a thread: it owns its memory and keeps nothing between two calls.
 */
import { assert } from "../errors.ts";
import { IOVEC_BYTES } from "../kernel/abi.ts";
import { copyMemory } from "../kernel/libc.ts";
import { mapMemory, type Memory } from "../kernel/memory.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import type { Session } from "../swarm/session.ts";
import { KiB } from "../units.ts";
import { PIECE_HEADER_BYTES } from "../wire/frames.ts";
import type { Intake } from "./intake.ts";

/** Larger blocks are worth a receive of their own. */
const BLOCK_BYTES_MAX = 64 * KiB;
/** Blocks expected in one call: 256 KiB of 16 KiB blocks, about what arrives while the last ones are handed on. */
const BLOCKS_MAX = 16;
const HEADERS_AT = 2 * (BLOCKS_MAX + 1) * IOVEC_BYTES;
const STRAY_AT = 1 * KiB;
const STRAY_BYTES_MAX = (BLOCKS_MAX + 1) * (BLOCK_BYTES_MAX + PIECE_HEADER_BYTES);

/** Whom the received bytes are handed to; the session of the call is fed by it. */
export interface BatchSink {
  control(bytes: Uint8Array): void;
  payload(lengthBytes: number): void;
  /** Where the payload that is due goes on; 0: nowhere, it is thrown away. */
  payloadAddress(session: Session): Address;
  /** Whether the answer to a request may be received unseen: nobody has or is receiving it, and nobody else was asked. */
  mayLand(session: Session, request: number): boolean;
}

export class BatchReceive {
  readonly #memory: Memory = mapMemory(STRAY_AT + STRAY_BYTES_MAX);
  readonly #iov: Uint32Array;
  readonly #headers: Uint8Array[] = [];
  /** What is expected: address and length of every iovec, and the block behind each header. */
  readonly #address = new Float64Array(2 * (BLOCKS_MAX + 1));
  readonly #lengthBytes = new Int32Array(2 * (BLOCKS_MAX + 1));
  readonly #piece = new Int32Array(BLOCKS_MAX);
  readonly #begin = new Int32Array(BLOCKS_MAX);
  #count = 0;
  #strayed = false;

  constructor() {
    const { bytes } = this.#memory;
    this.#iov = new Uint32Array(bytes.buffer, bytes.byteOffset, HEADERS_AT / 4);
    assert(HEADERS_AT + BLOCKS_MAX * PIECE_HEADER_BYTES <= STRAY_AT, "the headers have their place");
    for (let block = 0; block < BLOCKS_MAX; block++) {
      const at = HEADERS_AT + block * PIECE_HEADER_BYTES;
      this.#headers.push(bytes.subarray(at, at + PIECE_HEADER_BYTES));
    }
  }

  /** Something else than what was expected came in the last call. */
  get strayed(): boolean {
    return this.#strayed;
  }

  free(): void {
    this.#memory.free();
  }

  /**
   * Receives what has arrived and feeds it to `sink`. Returns the bytes received, 0 at the end of the stream, -EAGAIN
   * where nothing has arrived, else minus errno; null where a batch is not worth it now.
   */
  run(session: Session, fd: number, reactor: Reactor, intake: Intake, sink: BatchSink): number | null {
    this.#strayed = false;
    if (!session.expectsBlocks || session.outstanding.count === 0) return null;
    const dueBytes = session.payloadBytes - session.payloadReceived;
    if (dueBytes > BLOCK_BYTES_MAX || session.payloadDiscard || session.payloadPacked) return null;
    this.#expect(session, dueBytes, intake, sink);
    if (this.#count < 2) return null;
    const received = reactor.receiveNow(fd, this.#memory.address, this.#count);
    if (received > 0) this.#handOn(session, dueBytes, received, sink);
    return received;
  }

  #expect(session: Session, dueBytes: number, intake: Intake, sink: BatchSink): void {
    const ring = session.outstanding;
    this.#count = 0;
    if (dueBytes > 0) this.#add(sink.payloadAddress(session), dueBytes);
    const blocks = Math.min(ring.count, BLOCKS_MAX);
    for (let block = 0; block < blocks; block++) {
      const lengthBytes = ring.length(block);
      if (lengthBytes > BLOCK_BYTES_MAX || !sink.mayLand(session, block)) return;
      this.#piece[block] = ring.piece(block);
      this.#begin[block] = ring.begin(block);
      this.#add(this.#memory.address + HEADERS_AT + block * PIECE_HEADER_BYTES, PIECE_HEADER_BYTES);
      this.#add(intake.addressOf(ring.piece(block), ring.begin(block)), lengthBytes);
    }
  }

  #add(address: Address, lengthBytes: number): void {
    const index = this.#count++;
    this.#address[index] = address;
    this.#lengthBytes[index] = lengthBytes;
    this.#iov[index * 4] = address % 2 ** 32;
    this.#iov[index * 4 + 1] = Math.floor(address / 2 ** 32);
    this.#iov[index * 4 + 2] = lengthBytes;
    this.#iov[index * 4 + 3] = 0;
  }

  #handOn(session: Session, dueBytes: number, receivedBytes: number, sink: BatchSink): void {
    let left = receivedBytes;
    let index = 0;
    if (dueBytes > 0) {
      const taken = Math.min(left, dueBytes);
      sink.payload(taken);
      left -= taken;
      index = 1;
    }
    for (let block = 0; left > 0 && session.isOpen; block++, index += 2) {
      const header = this.#headers[block];
      const headerBytes = Math.min(left, PIECE_HEADER_BYTES);
      sink.control(headerBytes === PIECE_HEADER_BYTES ? header : header.subarray(0, headerBytes));
      left -= headerBytes;
      if (left === 0 || !session.isOpen) return;
      if (!this.#isExpected(session, block)) return this.#handOnStray(session, index + 1, left, sink);
      const taken = Math.min(left, this.#lengthBytes[index + 1]);
      sink.payload(taken);
      left -= taken;
    }
  }

  #isExpected(session: Session, block: number): boolean {
    return (
      session.payloadLength === this.#lengthBytes[this.#indexOfPayload(block)] &&
      session.payloadPiece === this.#piece[block] &&
      session.payloadBegin === this.#begin[block] &&
      !session.payloadDiscard &&
      !session.payloadPacked
    );
  }

  #indexOfPayload(block: number): number {
    // The rest of a block that was due stands before the headers.
    return 2 * block + 1 + (this.#count & 1);
  }

  /** Hands on `lengthBytes` that lie where something else was expected, from the iovec `first` on. */
  #handOnStray(session: Session, first: number, lengthBytes: number, sink: BatchSink): void {
    this.#strayed = true;
    let gathered = 0;
    for (let index = first; gathered < lengthBytes; index++) {
      const part = Math.min(this.#lengthBytes[index], lengthBytes - gathered);
      copyMemory(this.#memory.address + STRAY_AT + gathered, this.#address[index], part);
      gathered += part;
    }
    const { bytes, address } = this.#memory;
    for (let at = 0; at < lengthBytes && session.isOpen; ) {
      const left = lengthBytes - at;
      if (session.payloadLength === 0) {
        const wanted = Math.min(left, session.frameBytesWanted);
        sink.control(bytes.subarray(STRAY_AT + at, STRAY_AT + at + wanted));
        at += wanted;
        continue;
      }
      const due = Math.min(left, session.payloadBytes - session.payloadReceived);
      const into = sink.payloadAddress(session);
      if (into > 0) copyMemory(into, address + STRAY_AT + at, due);
      sink.payload(due);
      at += due;
    }
  }
}
