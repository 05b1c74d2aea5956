/**
 * A simulated network: full-duplex links with a rate each way, racks with an uplink, latency, and TCP-like
 * connections with a window.
 *
 * What is modelled: a sending link serves the connections that have something to send in turns of some KiB. What it
 * sent then passes the uplinks of both racks, where there are two, and the receiver's link, each first come, first
 * served, so that a connection takes no more of them than its window lets it: that shares a crowded link nearly
 * equally among those who send over it, and gives what one cannot use to the others (max-min). A turn is short
 * against a piece; by it a sender's shares are wrong at most. What waits for its turn is the kernel's and cannot be
 * recalled, up to `unsentBytes` of a connection: a send counts as done when all of it is there, and one that waits
 * goes on when half of that is left, as with TCP_NOTSENT_LOWAT.
 *
 * Frames of a connection that has no payload to send do not stand in that line: they wait for a turn of each
 * connection that has payload and for what a switch holds in front of the receiver, each up to `queueBytes`, and what
 * they weigh is taken off both links. Rates are goodput, as iperf3 measures it: headers count for what is sent beside full segments only. Slow
 * start and loss are not modelled: on a LAN a connection is at full rate within two milliseconds.
 */
import { type SimClock, TICKS_PER_MS, type Timed } from "./clock.ts";
import { Stream } from "./stream.ts";

/** Ethernet, IP and TCP headers, preamble and gap of a segment. */
const HEADER_BYTES = 90;
/** What is left over from a turn goes along with it where it is less than this. */
const TURN_SLACK_BYTES = 4 * 1024;
const MS_PER_TICK = 1 / TICKS_PER_MS;
/** What a receiver's kernel keeps of a connection until it is read: what `src/kernel/sockets.ts` asks for. */
const RECEIVE_BYTES = 1024 * 1024;
/** Events of a pipe that are no arrival of bytes. */
const WINDOW = -1;
const TAKEN = -2;

/** One end of a connection, as its pipes see it. */
export interface PipeEnd {
  /** What its kernel may hold of a connection (`src/swarm/line.ts`). */
  readonly sliceBytes: number;
  sent(): void;
  arrived(): void;
}

export interface NetworkOptions {
  /** Bytes that a link carries for one connection before the next one has its turn. */
  readonly turnBytes: number;
  /** Sent and not yet arrived, per connection: what congestion control allows. */
  readonly windowBytes: number;
  /** What a sender's kernel takes of a connection before it is sent, which nobody can recall (TCP_NOTSENT_LOWAT). */
  readonly unsentBytes: number;
  /** What stands in one line in front of a cable at most, frames behind payload: a card's queue, or a switch's port. */
  readonly queueBytes: number;
}

/** A line that serves what comes first: one direction of a rack's uplink, or a receiver's cable. */
export class Line {
  bytes = 0;
  private freeMs = 0;

  constructor(readonly bytesPerMs: number) {}

  /** The last of `bytes` comes at `atMs` at the earliest. Returns when it has passed. */
  pass(atMs: number, bytes: number): number {
    const lengthMs = bytes / this.bytesPerMs;
    // The first byte came its length ago, so a line that is free adds nothing.
    this.freeMs = Math.max(atMs - lengthMs, this.freeMs) + lengthMs;
    this.bytes += bytes;
    return Math.max(atMs, this.freeMs);
  }

  /** As `pass`, for frames: they wait for what a switch holds (`queueBytes`) and not for what senders keep back. */
  passFrames(atMs: number, bytes: number, queueBytes: number): number {
    const waitMs = Math.min(this.freeMs - atMs, queueBytes / this.bytesPerMs);
    this.freeMs = Math.max(atMs, this.freeMs) + bytes / this.bytesPerMs;
    this.bytes += bytes;
    return atMs + Math.max(0, waitMs) + bytes / this.bytesPerMs;
  }
}

/** Machines behind one leaf switch; inside it everybody has the full rate. */
export class Rack {
  readonly up: Line;
  readonly down: Line;

  constructor(
    uplinkBytesPerMs: number,
    /** One way from this switch to another. */
    readonly uplinkLatencyMs: number,
  ) {
    this.up = new Line(uplinkBytesPerMs);
    this.down = new Line(uplinkBytesPerMs);
  }
}

export interface LinkOptions {
  /** Bytes per ms in each direction. */
  readonly upBytesPerMs: number;
  readonly downBytesPerMs: number;
  /** One way between this machine and its switch. */
  readonly latencyMs: number;
  /** null: it hangs on the uppermost switch. */
  readonly rack: Rack | null;
}

/** One machine's cable. */
export class Link implements Timed {
  /** Bytes sent, with the headers of segments. */
  upBytes = 0;
  private readonly down: Line;
  private readonly waiting: Pipe[] = [];
  private waitingHead = 0;
  private sending: Pipe | null = null;
  private sendingBytes = 0;
  /** Exact end of the last turn: events come up to a tick late, which must not add up. */
  private freeMs = 0;
  /** Frames sent beside the line: the next turn is longer by them. */
  private owedBytes = 0;

  constructor(
    private readonly clock: SimClock,
    readonly options: LinkOptions,
    private readonly network: NetworkOptions,
  ) {
    this.down = new Line(options.downBytesPerMs);
  }

  get downBytes(): number {
    return this.down.bytes;
  }

  /** Payload of somebody is on the line now. */
  get isSending(): boolean {
    return this.sending !== null;
  }

  /** The pipe has payload to send. */
  offer(pipe: Pipe): void {
    if (pipe.isOffered) return;
    pipe.isOffered = true;
    this.waiting.push(pipe);
    if (this.sending === null) this.next();
  }

  /** Frames of a pipe that sends nothing else. Returns when they arrive. */
  sendFrames(to: Link, bytes: number): number {
    const wireBytes = onWire(bytes);
    const { queueBytes } = this.network;
    this.upBytes += wireBytes;
    let atMs = this.clock.nowMs;
    if (this.sending === null) atMs += wireBytes / this.options.upBytesPerMs;
    else {
      this.owedBytes += wireBytes;
      // Of each connection one turn stands in the queue.
      const aheadBytes = (1 + this.waiting.length - this.waitingHead) * this.network.turnBytes;
      atMs += Math.min(aheadBytes, queueBytes) / this.options.upBytesPerMs;
    }
    atMs += this.options.latencyMs + to.options.latencyMs;
    const [from, there] = [this.options.rack, to.options.rack];
    if (from !== there) {
      if (from !== null) atMs = from.up.passFrames(atMs, wireBytes, queueBytes) + from.uplinkLatencyMs;
      if (there !== null) atMs = there.down.passFrames(atMs, wireBytes, queueBytes) + there.uplinkLatencyMs;
    }
    return to.down.passFrames(atMs, wireBytes, queueBytes);
  }

  /** Milliseconds from this machine to another over lines that are free. */
  latencyTo(to: Link): number {
    const [from, there] = [this.options.rack, to.options.rack];
    const between = from === there ? 0 : (from?.uplinkLatencyMs ?? 0) + (there?.uplinkLatencyMs ?? 0);
    return this.options.latencyMs + to.options.latencyMs + between;
  }

  /** The turn is over. */
  fire(): void {
    const pipe = this.sending!;
    const bytes = this.sendingBytes;
    this.sending = null;
    pipe.left(bytes, this.arrivalMs(pipe.to, bytes));
    if (pipe.canSend) this.offer(pipe);
    if (this.sending === null) this.next();
  }

  private next(): void {
    while (this.waitingHead < this.waiting.length) {
      const pipe = this.waiting[this.waitingHead++];
      if (this.waitingHead === this.waiting.length) {
        this.waiting.length = 0;
        this.waitingHead = 0;
      } else if (this.waitingHead > 64) {
        this.waiting.splice(0, this.waitingHead);
        this.waitingHead = 0;
      }
      pipe.isOffered = false;
      const bytes = pipe.takeForWire(this.network.turnBytes);
      if (bytes === 0) continue;
      this.upBytes += bytes;
      this.sending = pipe;
      this.sendingBytes = bytes;
      this.freeMs = Math.max(this.freeMs, this.clock.nowMs - MS_PER_TICK);
      this.freeMs += (bytes + this.owedBytes) / this.options.upBytesPerMs;
      this.owedBytes = 0;
      this.clock.schedule(this.freeMs, this, 0);
      return;
    }
  }

  private arrivalMs(to: Link, wireBytes: number): number {
    let atMs = this.freeMs + this.options.latencyMs + to.options.latencyMs;
    const [from, there] = [this.options.rack, to.options.rack];
    if (from !== there) {
      if (from !== null) atMs = from.up.pass(atMs, wireBytes) + from.uplinkLatencyMs;
      if (there !== null) atMs = there.down.pass(atMs, wireBytes) + there.uplinkLatencyMs;
    }
    return to.down.pass(atMs, wireBytes);
  }
}

/** One direction of a connection: what is to be sent, what is on its way, and what arrived. */
export class Pipe extends Stream implements Timed {
  isOffered = false;
  /** Who is told that everything given to `send` left, and that something arrived. */
  sender: PipeEnd | null = null;
  receiver: PipeEnd | null = null;
  /** Written and not yet given to the line; and of that, what the kernel did not take yet. */
  private waitingBytes = 0;
  private refusedBytes = 0;
  /** The kernel took all, and the sender is not told yet. */
  private isTaken = false;
  /** On the way; and that with what arrived and is not read yet. */
  private onWayBytes = 0;
  private unreadBytes = 0;
  private arrivedBytes = 0;
  /** When what was sent last arrives: nothing overtakes it. */
  private lastArrivalMs = 0;
  private isHeldBack = false;
  private closed = false;

  constructor(
    private readonly clock: SimClock,
    readonly from: Link,
    readonly to: Link,
    private readonly network: NetworkOptions,
  ) {
    super();
  }

  /** Frames to send, before anything else. The bytes are copied. */
  send(frames: Uint8Array, length: number): void {
    this.writeControl(frames, length);
    this.waitingBytes += length;
    this.refusedBytes += length;
  }

  /** A block's payload, right after the frames. */
  sendPayload(piece: number, begin: number, length: number, spoiltBy: number): void {
    this.writePayload(piece, begin, length, spoiltBy);
    this.waitingBytes += length;
    this.refusedBytes += length;
  }

  /** Sends what was written: in turns with others where payload is among it or before it, else at once. */
  flush(hasPayload: boolean): void {
    if (this.closed) return;
    if (hasPayload || this.waitingBytes > this.refusedBytes) {
      this.refill(this.unsentBytes);
      if (this.canSend) this.from.offer(this);
      else this.isHeldBack = true;
      return;
    }
    const bytes = this.waitingBytes;
    this.waitingBytes = 0;
    this.refusedBytes = 0;
    this.onWayBytes += bytes;
    this.unreadBytes += bytes;
    this.arrivesAt(this.from.sendFrames(this.to, bytes), bytes);
  }

  /** Something given to `send` was not taken by the kernel yet, or the sender does not know that it was. */
  get isSending(): boolean {
    return this.refusedBytes > 0 || this.isTaken;
  }

  get canSend(): boolean {
    return !this.closed && this.waitingBytes > this.refusedBytes && this.hasWindow;
  }

  private get hasWindow(): boolean {
    return this.onWayBytes < this.network.windowBytes && this.unreadBytes < RECEIVE_BYTES;
  }

  close(): void {
    this.closed = true;
    this.sender = null;
    this.receiver = null;
  }

  /** The line takes up to about `bytesMax` bytes. */
  takeForWire(bytesMax: number): number {
    if (!this.canSend) return 0;
    const heldBytes = this.waitingBytes - this.refusedBytes;
    const bytes = heldBytes <= bytesMax + TURN_SLACK_BYTES ? heldBytes : bytesMax;
    this.waitingBytes -= bytes;
    this.onWayBytes += bytes;
    this.unreadBytes += bytes;
    return bytes;
  }

  /** The line has sent bytes that it took. */
  left(bytes: number, arrivalMs: number): void {
    if (this.closed) return;
    this.arrivesAt(arrivalMs, bytes);
    // A sender that waits is woken when half of what it may have there is left.
    this.refill(this.unsentBytes / 2);
    if (this.waitingBytes > 0 && !this.canSend) this.isHeldBack = true;
  }

  /** Bytes arrived; the sender learns (WINDOW) that the window has room, or (TAKEN) that all it gave was taken. */
  fire(bytes: number): void {
    if (this.closed) return;
    if (bytes === WINDOW) {
      if (this.canSend) this.from.offer(this);
      return;
    }
    if (bytes === TAKEN) {
      this.isTaken = false;
      this.sender!.sent();
      return;
    }
    this.arrivedBytes += bytes;
    this.onWayBytes -= bytes;
    this.widen();
    this.receiver!.arrived();
  }

  /** As much as the sender lets the kernel hold, and what the option allows. */
  private get unsentBytes(): number {
    return Math.min(this.sender?.sliceBytes ?? Infinity, this.network.unsentBytes);
  }

  /** The kernel takes as much as it has room for, where it holds less than `belowBytes`. */
  private refill(belowBytes: number): void {
    const heldBytes = this.waitingBytes - this.refusedBytes;
    if (this.refusedBytes === 0 || heldBytes >= belowBytes) return;
    this.refusedBytes = Math.max(0, this.refusedBytes + heldBytes - this.unsentBytes);
    if (this.refusedBytes > 0) return;
    this.isTaken = true;
    this.clock.schedule(this.clock.nowMs, this, TAKEN);
  }

  /** Bytes that can be read. */
  get available(): number {
    return this.arrivedBytes;
  }

  /** Takes up to `bytesMax` bytes as a receive into a control buffer would. Returns how many. */
  readControl(target: Uint8Array, bytesMax: number): number {
    const bytes = Math.min(bytesMax, this.arrivedBytes);
    this.takeControl(target, bytes);
    this.wasRead(bytes);
    return bytes;
  }

  /** Takes up to `bytesMax` bytes of the payload that is next. Returns how many. */
  readPayload(bytesMax: number): number {
    const bytes = this.takePayload(Math.min(bytesMax, this.arrivedBytes));
    this.wasRead(bytes);
    return bytes;
  }

  private wasRead(bytes: number): void {
    this.arrivedBytes -= bytes;
    this.unreadBytes -= bytes;
    this.widen();
  }

  /** The sender that waits for room learns of it. */
  private widen(): void {
    if (!this.isHeldBack || !this.hasWindow) return;
    this.isHeldBack = false;
    this.clock.schedule(this.clock.nowMs + this.to.latencyTo(this.from), this, WINDOW);
  }

  private arrivesAt(atMs: number, bytes: number): void {
    this.lastArrivalMs = Math.max(this.lastArrivalMs, atMs);
    this.clock.schedule(this.lastArrivalMs, this, bytes);
  }
}

/** What a segment of a few bytes uses of a line; full segments' headers are not in the rates of lines. */
function onWire(bytes: number): number {
  return bytes + HEADER_BYTES;
}
