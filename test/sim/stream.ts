/**
 * The bytes of one direction of a connection, in order, from who writes them to who reads them.
 *
 * Frames are the real bytes that sessions wrote; payload is its place (piece, begin) and a mark of who spoilt it,
 * because a fleet times an image would not fit in memory. A reader that takes payload for frames gets zeroes, as it
 * would get data from a socket. How far the bytes have come is for the owner: it counts, this class keeps.
 */
import { assert } from "../../src/errors.ts";

const CONTROL_CAPACITY_START = 64;
/** A longer buffer is let go when it is empty: the lists of peers at the start are long, what follows is short. */
const CONTROL_CAPACITY_KEPT = 256;
const PAYLOADS_CAPACITY_START = 4;
/** Numbers kept per payload: frames' bytes before it, piece, begin, bytes left, who spoilt it. */
const FIELDS = 5;
const NONE = new Int32Array(0);
const NO_CONTROL = new Uint8Array(0);

export class Stream {
  /** Frames, as a ring. */
  private control = NO_CONTROL;
  private controlHead = 0;
  private controlBytes = 0;
  /** Payloads, as a ring of FIELDS numbers each. */
  private payloads = NONE;
  private payloadHead = 0;
  private payloadCount = 0;
  /** Bytes of frames written since the last payload. */
  private controlSincePayload = 0;

  protected writeControl(bytes: Uint8Array, length: number): void {
    while (this.controlBytes + length > this.control.length) this.growControl();
    const mask = this.control.length - 1;
    let at = this.controlHead + this.controlBytes;
    for (let i = 0; i < length; i++) this.control[at++ & mask] = bytes[i];
    this.controlBytes += length;
    this.controlSincePayload += length;
  }

  protected writePayload(piece: number, begin: number, length: number, spoiltBy: number): void {
    if (this.payloadCount * FIELDS === this.payloads.length) this.growPayloads();
    const at = ((this.payloadHead + this.payloadCount++) * FIELDS) % this.payloads.length;
    this.payloads[at] = this.controlSincePayload;
    this.payloads[at + 1] = piece;
    this.payloads[at + 2] = begin;
    this.payloads[at + 3] = length;
    this.payloads[at + 4] = spoiltBy;
    this.controlSincePayload = 0;
  }

  /** Payload is what comes next. */
  get isPayload(): boolean {
    return this.payloadCount > 0 && this.payloads[this.payloadHead * FIELDS] === 0;
  }

  get payloadPiece(): number {
    return this.payloads[this.payloadHead * FIELDS + 1];
  }

  /** Where in its piece the next byte of payload lies. */
  get payloadBegin(): number {
    return this.payloads[this.payloadHead * FIELDS + 2];
  }

  /** The node that spoilt the payload, or -1. */
  get payloadSpoiltBy(): number {
    return this.payloads[this.payloadHead * FIELDS + 4];
  }

  /** Takes `bytes` as a receive into a control buffer would. */
  protected takeControl(target: Uint8Array, bytes: number): void {
    let at = 0;
    while (at < bytes) {
      if (this.isPayload) {
        const taken = this.takePayload(bytes - at);
        target.fill(0, at, at + taken);
        at += taken;
        continue;
      }
      const field = this.payloadHead * FIELDS;
      const length = this.payloadCount === 0 ? bytes - at : Math.min(bytes - at, this.payloads[field]);
      assert(length <= this.controlBytes, "what is read was written");
      const mask = this.control.length - 1;
      for (let i = 0; i < length; i++) target[at++] = this.control[this.controlHead++ & mask];
      this.controlHead &= mask;
      this.controlBytes -= length;
      if (this.payloadCount === 0) this.controlSincePayload -= length;
      else this.payloads[field] -= length;
    }
    if (this.controlBytes > 0 || this.control.length <= CONTROL_CAPACITY_KEPT) return;
    this.control = NO_CONTROL;
    this.controlHead = 0;
  }

  /** Takes up to `bytesMax` of the payload that is next. Returns how many. */
  protected takePayload(bytesMax: number): number {
    const at = this.payloadHead * FIELDS;
    const bytes = Math.min(bytesMax, this.payloads[at + 3]);
    this.payloads[at + 2] += bytes;
    this.payloads[at + 3] -= bytes;
    if (this.payloads[at + 3] === 0) {
      this.payloadHead = (this.payloadHead + 1) % (this.payloads.length / FIELDS);
      this.payloadCount--;
    }
    return bytes;
  }

  private growControl(): void {
    const bigger = new Uint8Array(Math.max(CONTROL_CAPACITY_START, this.control.length * 2));
    const mask = this.control.length - 1;
    for (let i = 0; i < this.controlBytes; i++) bigger[i] = this.control[(this.controlHead + i) & mask];
    this.control = bigger;
    this.controlHead = 0;
  }

  private growPayloads(): void {
    const bigger = new Int32Array(Math.max(PAYLOADS_CAPACITY_START * FIELDS, this.payloads.length * 2));
    for (let i = 0; i < this.payloadCount; i++) {
      const from = ((this.payloadHead + i) * FIELDS) % this.payloads.length;
      bigger.set(this.payloads.subarray(from, from + FIELDS), i * FIELDS);
    }
    this.payloads = bigger;
    this.payloadHead = 0;
  }
}
