/**
 * A simulated network: full-duplex links with a rate each way, latency, and TCP-like connections with a window.
 *
 * Frames travel as the real bytes that sessions wrote; payload travels as its place (piece, begin) and a mark of
 * who spoilt it, because 50 nodes times an image would not fit in memory. A reader that takes payload for control
 * bytes gets zeroes, as it would get data from a socket.
 */
import type { SimClock } from "./clock.ts";

/** Bytes a link carries before the next connection has its turn: about what a switch buffers per flow. */
const TURN_BYTES = 64 * 1024;
/** Sent and not yet taken by the receiver, per connection. */
const WINDOW_BYTES = 1024 * 1024;

/** A stretch of the stream: control bytes, or payload of a block. */
export interface Stretch {
  readonly control: Uint8Array | null;
  readonly piece: number;
  /** Offset in the piece of the first byte not yet taken. */
  begin: number;
  lengthBytes: number;
  /** Bytes of `control` already taken. */
  takenBytes: number;
  /** The node that spoilt this payload, or -1. */
  readonly spoiltBy: number;
}

export interface LinkOptions {
  /** Bytes per ms in each direction. */
  readonly upBytesPerMs: number;
  readonly downBytesPerMs: number;
  readonly latencyMs: number;
}

/** One machine's cable. */
export class Link {
  upBytes = 0;
  downBytes = 0;
  private readonly waiting: Pipe[] = [];
  private busy = false;
  private downFreeMs = 0;

  constructor(
    private readonly clock: SimClock,
    readonly options: LinkOptions,
  ) {}

  /** The pipe has bytes to send. */
  offer(pipe: Pipe): void {
    if (pipe.queuedOnLink) return;
    pipe.queuedOnLink = true;
    this.waiting.push(pipe);
    if (!this.busy) this.next();
  }

  private next(): void {
    const pipe = this.waiting.shift();
    this.busy = pipe !== undefined;
    if (pipe === undefined) return;
    pipe.queuedOnLink = false;
    const stretches = pipe.takeForWire(TURN_BYTES);
    let bytes = 0;
    for (const stretch of stretches) bytes += stretch.lengthBytes;
    if (bytes === 0) return this.next();
    this.upBytes += bytes;
    const doneMs = this.clock.nowMs + bytes / this.options.upBytesPerMs;
    this.clock.at(doneMs, () => {
      pipe.sentToWire(bytes);
      this.deliver(pipe, stretches, bytes);
      if (pipe.canSend) this.offer(pipe);
      if (this.waiting.length > 0) this.next();
      else this.busy = false;
    });
  }

  private deliver(pipe: Pipe, stretches: Stretch[], bytes: number): void {
    const to = pipe.to.options;
    const arriveMs = this.clock.nowMs + this.options.latencyMs + to.latencyMs;
    // The first byte of the turn left its length ago, so an idle receiver's line adds nothing.
    const startMs = Math.max(arriveMs - bytes / to.downBytesPerMs, pipe.to.downFreeMs);
    pipe.to.downFreeMs = startMs + bytes / to.downBytesPerMs;
    pipe.to.downBytes += bytes;
    this.clock.at(Math.max(arriveMs, pipe.to.downFreeMs), () => pipe.arrived(stretches));
  }
}

/** One direction of a connection. */
export class Pipe {
  queuedOnLink = false;
  /** Told when everything given to `send` left, and when something arrived. */
  onSent: () => void = () => {};
  onArrived: () => void = () => {};
  private readonly toSend: Stretch[] = [];
  private readonly inbox: Stretch[] = [];
  private unsentBytes = 0;
  private windowUsedBytes = 0;
  private closed = false;

  constructor(
    private readonly clock: SimClock,
    readonly from: Link,
    readonly to: Link,
  ) {}

  get canSend(): boolean {
    return !this.closed && this.toSend.length > 0 && this.windowUsedBytes < WINDOW_BYTES;
  }

  get sending(): boolean {
    return this.unsentBytes > 0;
  }

  send(stretches: Stretch[]): void {
    for (const stretch of stretches) {
      this.toSend.push(stretch);
      this.unsentBytes += stretch.lengthBytes;
    }
    if (this.canSend) this.from.offer(this);
  }

  close(): void {
    this.closed = true;
    this.toSend.length = 0;
    this.inbox.length = 0;
  }

  takeForWire(bytesMax: number): Stretch[] {
    const taken: Stretch[] = [];
    let left = this.closed ? 0 : Math.min(bytesMax, WINDOW_BYTES - this.windowUsedBytes);
    while (left > 0 && this.toSend.length > 0) {
      const stretch = this.toSend[0];
      if (stretch.lengthBytes <= left || stretch.control !== null) {
        taken.push(this.toSend.shift()!);
        left -= stretch.lengthBytes;
        this.windowUsedBytes += stretch.lengthBytes;
        continue;
      }
      taken.push({ ...stretch, lengthBytes: left });
      stretch.begin += left;
      stretch.lengthBytes -= left;
      this.windowUsedBytes += left;
      left = 0;
    }
    return taken;
  }

  sentToWire(bytes: number): void {
    this.unsentBytes -= bytes;
    if (this.unsentBytes === 0 && !this.closed) this.onSent();
  }

  arrived(stretches: Stretch[]): void {
    if (this.closed) return;
    this.inbox.push(...stretches);
    this.onArrived();
  }

  /** The stretch at the head of what has arrived. */
  get head(): Stretch | null {
    return this.inbox.length === 0 ? null : this.inbox[0];
  }

  /** Takes up to `bytesMax` bytes as a receive into a control buffer would. */
  readControl(bytesMax: number): Uint8Array {
    const out = new Uint8Array(bytesMax);
    let at = 0;
    while (at < bytesMax && this.inbox.length > 0) {
      const stretch = this.inbox[0];
      const taken = Math.min(bytesMax - at, stretch.lengthBytes);
      if (stretch.control !== null)
        out.set(stretch.control.subarray(stretch.takenBytes, stretch.takenBytes + taken), at);
      this.take(stretch, taken);
      at += taken;
    }
    return out.subarray(0, at);
  }

  /** Takes payload from the head. */
  readPayload(bytes: number): void {
    this.take(this.inbox[0], bytes);
  }

  private take(stretch: Stretch, bytes: number): void {
    stretch.takenBytes += bytes;
    stretch.begin += bytes;
    stretch.lengthBytes -= bytes;
    if (stretch.lengthBytes === 0) this.inbox.shift();
    const wasFull = this.windowUsedBytes >= WINDOW_BYTES;
    this.windowUsedBytes -= bytes;
    if (wasFull)
      this.clock.after(
        this.from.options.latencyMs + this.to.options.latencyMs,
        () => this.canSend && this.from.offer(this),
      );
  }
}
