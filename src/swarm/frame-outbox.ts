/**
 * The frames of one session that wait to be sent, written into a buffer that the host lends and swaps.
 *
 * Room for one block's header is always kept, so that a block can be sent whatever else waits. A writer that finds
 * no room says so and writes nothing; what it had to say is kept by its caller as state.
 */
import type { Bitfield } from "../wire/bitfield.ts";
import * as frames from "../wire/frames.ts";
import type { Outbox } from "./actions.ts";

/** What stands before a block, packed or not. */
export const BLOCK_HEADER_BYTES_MAX = Math.max(frames.PIECE_HEADER_BYTES, frames.PACKED_HEADER_BYTES);
/** Kept free so that `uploadStarted` always finds room for its header. */
const OUTBOX_RESERVE_BYTES = BLOCK_HEADER_BYTES_MAX;

export abstract class FrameOutbox {
  protected readonly out: { buffer: Uint8Array; lengthBytes: number };
  /** BEP 6 is offered by both sides. */
  fast = false;

  constructor(buffer: Uint8Array) {
    this.out = { buffer, lengthBytes: 0 };
  }

  /** Tells the host that there is something to send. */
  abstract wake(): void;

  get outbox(): Outbox {
    return this.out;
  }

  /** Bytes that may be written now. */
  get room(): number {
    return this.out.buffer.length - this.out.lengthBytes - OUTBOX_RESERVE_BYTES;
  }

  /** Bytes that may be written into an empty outbox. */
  get roomMax(): number {
    return this.out.buffer.length - OUTBOX_RESERVE_BYTES;
  }

  /** Returns false where there is no room now. */
  writeHave(piece: number): boolean {
    if (this.room < frames.HAVE_FRAME_BYTES) return false;
    this.wrote(frames.writeHave(this.out.buffer, this.out.lengthBytes, piece));
    return true;
  }

  /** Returns false where there is no room now. */
  writeSuggest(piece: number): boolean {
    if (this.room < frames.HAVE_FRAME_BYTES) return false;
    this.wrote(frames.writeSuggest(this.out.buffer, this.out.lengthBytes, piece));
    return true;
  }

  /** Writes nothing where there is no room now: a block that comes all the same is thrown away. */
  writeCancel(piece: number, begin: number, length: number): void {
    if (this.room < frames.REQUEST_FRAME_BYTES) return;
    this.wrote(frames.writeCancel(this.out.buffer, this.out.lengthBytes, piece, begin, length));
  }

  /** There is room. */
  protected writeInterest(interested: boolean): void {
    const write = interested ? frames.writeInterested : frames.writeNotInterested;
    this.wrote(write(this.out.buffer, this.out.lengthBytes));
  }

  /** There is room. */
  protected writeReject(piece: number, begin: number, length: number): void {
    this.wrote(frames.writeReject(this.out.buffer, this.out.lengthBytes, piece, begin, length));
  }

  /** Returns false where there is no room now. */
  writeExtended(extendedId: number, payload: Uint8Array): boolean {
    if (this.room < frames.EXTENDED_OVERHEAD_BYTES + payload.length) return false;
    this.wrote(frames.writeExtended(this.out.buffer, this.out.lengthBytes, extendedId, payload));
    return true;
  }

  /**
   * Says what we have, first of all frames. Returns false where the bitfield does not fit: then the peer was told
   * that we have nothing, and HAVE messages must follow for every piece.
   */
  writeHaveState(have: Bitfield): boolean {
    const target = this.out.buffer;
    if (this.fast && have.all) this.wrote(frames.writeHaveAll(target, this.out.lengthBytes));
    else if (this.fast && have.count === 0) this.wrote(frames.writeHaveNone(target, this.out.lengthBytes));
    else if (have.count === 0) return true;
    else if (this.room >= frames.bitfieldFrameBytes(have.length))
      this.wrote(frames.writeBitfield(target, this.out.lengthBytes, have));
    else {
      if (this.fast) this.wrote(frames.writeHaveNone(target, this.out.lengthBytes));
      return false;
    }
    return true;
  }

  writeKeepAlive(): void {
    if (this.out.lengthBytes === 0) this.wrote(frames.writeKeepAlive(this.out.buffer, 0));
  }

  protected wrote(lengthBytes: number): void {
    this.out.lengthBytes = lengthBytes;
    this.wake();
  }
}
