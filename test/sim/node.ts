/**
 * A simulated machine: the host of one real `Swarm`. It does what `src/peer` does, on a simulated network and disk.
 *
 * As the real host, it only queues inside the swarm's actions and settles after each event.
 */
import { assert } from "../../src/errors.ts";
import type { CloseReason, SessionBuffers, SwarmActions, SwarmReport } from "../../src/swarm/actions.ts";
import type { SwarmOptions } from "../../src/swarm/policy.ts";
import type { Session } from "../../src/swarm/session.ts";
import { Swarm } from "../../src/swarm/swarm.ts";
import { type PieceIndex, pieceIndex } from "../../src/units.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import type { Bitfield } from "../../src/wire/bitfield.ts";
import type { SimClock, Timed } from "./clock.ts";
import { type DiskOptions, SimDisk } from "./disk.ts";
import { Link, type LinkOptions, type NetworkOptions, Pipe, type PipeEnd } from "./network.ts";

/** What a node is told about the others: the simulated ether. */
export interface Ether {
  find(address: PeerAddress): SimNode | null;
  /** Something happened that a replay must repeat exactly. */
  note(node: number, kind: string, value: number): void;
  /** A machine is gone. */
  died(node: SimNode): void;
}

export interface NodeOptions {
  readonly index: number;
  readonly address: PeerAddress;
  readonly swarm: SwarmOptions;
  readonly have: Bitfield;
  readonly link: LinkOptions;
  readonly network: NetworkOptions;
  readonly disk: DiskOptions;
  readonly outboxBytes: number;
  /** Mean time until the node's thread looks at what arrived; 0: at once. */
  readonly wakeMs: number;
  /** Sends wrong payload with this chance per block. */
  readonly spoils: number;
}

/** Most bytes of frames that a node reads at once. */
const CONTROL_BYTES = 4096;
const control = new Uint8Array(CONTROL_BYTES);
/** Views of the first bytes of `control` by their number: making one costs more than reading a frame. */
const controlViews: Uint8Array[] = [];
/** Events of a node: the swarm's tick is due, or its thread wakes up. */
const TICK = 0;
const WAKE = 1;

/** One end of a connection. */
class End implements PipeEnd {
  session: Session | null = null;
  other: End | null = null;
  uploadBytes = 0;
  closed = false;
  queued = false;
  /** Something arrived that the node did not look at yet. */
  isReadable = false;

  constructor(
    readonly node: SimNode,
    readonly out: Pipe,
    readonly inn: Pipe,
  ) {}

  get sliceBytes(): number {
    return this.node.swarm.sending.sliceBytes;
  }

  sent(): void {
    this.node.sent(this);
  }

  arrived(): void {
    this.node.arrived(this);
  }
}

export class SimNode implements SwarmActions, Timed {
  readonly swarm: Swarm;
  readonly link: Link;
  readonly disk: SimDisk;
  /** Who was banned, and who was dropped for breaking the protocol. */
  readonly faults: SwarmReport[] = [];
  verifiedPieces = 0;
  failedPieces = 0;
  completedMs = -1;
  alive = true;
  /** Payload that arrived, wanted or not; and connections that stood. */
  payloadBytes = 0;
  connections = 0;
  /** Most connections at a time. */
  connectionsPeak = 0;
  joinedMs = -1;
  /** Cables pulled: nothing leaves or arrives, and nobody is told. */
  mute = false;
  private readonly ends = new Set<End>();
  private readonly woken: End[] = [];
  private readonly readable: End[] = [];
  private readonly toClose: Session[] = [];
  private readonly toDial: PeerAddress[] = [];
  private settling = false;
  /** Lent in turn to each session whose outbox is taken to be sent. */
  private spareOutbox: Uint8Array;

  constructor(
    readonly options: NodeOptions,
    private readonly clock: SimClock,
    private readonly ether: Ether,
  ) {
    this.joinedMs = clock.nowMs;
    this.link = new Link(clock, options.link, options.network);
    this.spareOutbox = new Uint8Array(options.outboxBytes);
    this.disk = new SimDisk(
      clock,
      options.disk,
      (piece, good) => this.judged(piece, good),
      () => this.event(() => this.swarm.memoryFreed(clock.nowMs)),
    );
    this.swarm = new Swarm(options.swarm, this, options.have);
    clock.schedule(clock.nowMs, this, TICK);
  }

  get index(): number {
    return this.options.index;
  }

  get complete(): boolean {
    return this.swarm.haveCount === this.options.swarm.pieceCount;
  }

  addPeers(addresses: PeerAddress[]): void {
    this.event(() => this.swarm.addPeers(this.clock.nowMs, addresses, "tracker"));
  }

  /** The machine is gone. Others see their connections reset, or with `silently` nothing at all. */
  kill(silently: boolean): void {
    if (!this.alive) return;
    this.alive = false;
    this.mute = silently;
    for (const end of this.ends) {
      end.closed = true;
      end.out.close();
      if (silently) continue;
      end.inn.close();
      this.hangUp(end);
    }
    this.ends.clear();
    this.ether.died(this);
  }

  /** What the remote peer of a session keeps about this node; null: it has hung up. */
  remoteOf(session: Session): Session | null {
    return (session.userData as End).other!.session;
  }

  // ---------------------------------------------------------------- SwarmActions: queue only

  reserve(piece: PieceIndex, begin: number, length: number): boolean {
    return this.disk.reserve(piece, begin, length);
  }

  discard(piece: PieceIndex): void {
    this.disk.discard(piece);
  }

  dial(address: PeerAddress): void {
    this.toDial.push(address);
  }

  close(session: Session, _reason: CloseReason): void {
    this.toClose.push(session);
  }

  wake(session: Session): void {
    this.queue(session.userData as End);
  }

  report(event: SwarmReport): void {
    if (isFault(event)) this.faults.push(event);
    if (event.kind === "complete") this.completedMs = this.clock.nowMs;
    this.ether.note(this.index, event.kind, this.swarm?.haveCount ?? 0);
  }

  // ---------------------------------------------------------------- inside

  /** Runs an event of the swarm and then what it asked for. */
  private event(run: () => void): void {
    if (!this.alive) return;
    run();
    this.settle();
  }

  /** The swarm's tick is due, or the thread wakes up. */
  fire(code: number): void {
    if (!this.alive) return;
    if (code === WAKE) return this.awake();
    this.event(() => this.swarm.tick(this.clock.nowMs));
    this.clock.schedule(this.swarm.nextTickMs(), this, TICK);
  }

  private settle(): void {
    if (this.settling) return;
    this.settling = true;
    while (this.woken.length > 0 || this.toClose.length > 0 || this.toDial.length > 0) {
      for (let session = this.toClose.shift(); session !== undefined; session = this.toClose.shift())
        this.hangUpOwn(session);
      for (let address = this.toDial.shift(); address !== undefined; address = this.toDial.shift())
        this.connect(address);
      // More may be woken meanwhile: they are looked at in this loop too.
      for (let i = 0; i < this.woken.length; i++) {
        const end = this.woken[i];
        end.queued = false;
        this.pumpSend(end);
        this.pumpReceive(end);
      }
      this.woken.length = 0;
    }
    this.settling = false;
  }

  private queue(end: End): void {
    if (end.queued) return;
    end.queued = true;
    this.woken.push(end);
  }

  private connect(address: PeerAddress): void {
    const target = this.ether.find(address);
    const latencyMs = this.link.latencyTo(target?.link ?? this.link);
    if (target === null || !target.alive) {
      const waitMs = target?.mute ? 5_000 : 2 * latencyMs;
      this.clock.after(waitMs, () => this.event(() => this.swarm.dialFailed(this.clock.nowMs, address)));
      return;
    }
    this.clock.after(2 * latencyMs, () => this.connected(target, address));
  }

  private connected(target: SimNode, address: PeerAddress): void {
    if (!this.alive) return;
    if (!target.alive) return this.event(() => this.swarm.dialFailed(this.clock.nowMs, address));
    const { network } = this.options;
    const there = new Pipe(this.clock, this.link, target.link, network);
    const back = new Pipe(this.clock, target.link, this.link, network);
    const mine = new End(this, there, back);
    const theirs = new End(target, back, there);
    mine.other = theirs;
    theirs.other = mine;
    const ephemeral = { host: this.options.address.host, port: 32768 + ((this.index * 131 + target.index) % 28000) };
    this.attach(mine, this.swarm.outgoing(this.clock.nowMs, address, this.newOutbox()));
    target.attach(theirs, target.swarm.incoming(this.clock.nowMs, ephemeral, target.newOutbox()));
    this.settle();
    target.settle();
  }

  private attach(end: End, session: Session | null): void {
    if (session === null) {
      // Refused: the dialling end sees its new connection close at once.
      end.closed = true;
      this.hangUp(end);
      return;
    }
    end.session = session;
    session.userData = end;
    this.ends.add(end);
    this.connections++;
    this.connectionsPeak = Math.max(this.connectionsPeak, this.ends.size);
    end.out.sender = end;
    end.inn.receiver = end;
    this.queue(end);
  }

  private newOutbox(): SessionBuffers {
    return { outbox: new Uint8Array(this.options.outboxBytes) };
  }

  /** Tells the other end of a connection that it is over. */
  private hangUp(end: End): void {
    const other = end.other!;
    this.clock.after(this.link.latencyTo(other.node.link), () => other.node.ended(other));
  }

  private hangUpOwn(session: Session): void {
    const end = session.userData as End;
    if (end.closed) return;
    end.closed = true;
    end.out.close();
    end.inn.close();
    this.hangUp(end);
    this.clock.after(0, () => {
      this.ends.delete(end);
      this.event(() => this.swarm.disconnected(this.clock.nowMs, session));
    });
  }

  private ended(end: End): void {
    if (end.closed || end.session === null) return;
    end.closed = true;
    end.out.close();
    end.inn.close();
    this.ends.delete(end);
    this.event(() => this.swarm.disconnected(this.clock.nowMs, end.session!));
  }

  /** Everything that the end gave to its pipe left. */
  sent(end: End): void {
    if (end.closed || !this.alive) return;
    const bytes = end.uploadBytes;
    end.uploadBytes = 0;
    if (bytes > 0) this.swarm.uploadSent(this.clock.nowMs, end.session!, bytes);
    this.queue(end);
    this.settle();
  }

  /** Something arrived at the end. */
  arrived(end: End): void {
    if (end.closed || this.mute || !this.alive) return;
    if (this.options.wakeMs === 0) {
      this.pumpReceive(end);
      this.settle();
      return;
    }
    if (end.isReadable) return;
    end.isReadable = true;
    this.readable.push(end);
    if (this.readable.length > 1) return;
    const { random } = this.options.swarm;
    this.clock.schedule(
      this.clock.nowMs - this.options.wakeMs * Math.log(1 - random.next() / 0x1_0000_0000),
      this,
      WAKE,
    );
  }

  /** Looks at everything that arrived meanwhile. */
  private awake(): void {
    for (const end of this.readable) {
      end.isReadable = false;
      this.pumpReceive(end);
    }
    this.readable.length = 0;
    this.settle();
  }

  /** One send at a time: the outbox, and behind it the payload of one block. */
  private pumpSend(end: End): void {
    const session = end.session!;
    const out = end.out;
    if (end.closed || out.isSending) return;
    let piece = -1;
    let begin = 0;
    let lengthBytes = 0;
    if (session.uploadCount > 0) {
      const before = session.outbox.lengthBytes;
      piece = session.uploadPiece(0);
      begin = session.uploadBegin(0);
      lengthBytes = session.uploadLength(0);
      this.swarm.uploadStarted(this.clock.nowMs, session);
      if (session.outbox.lengthBytes === before) piece = -1;
    }
    if (session.outbox.lengthBytes === 0) return;
    const filled = session.outbox.buffer;
    const bytes = session.swapOutbox(this.spareOutbox);
    this.spareOutbox = filled;
    out.send(filled, bytes);
    if (piece >= 0) {
      const spoilt = this.options.spoils > 0 && this.options.swarm.random.chance(this.options.spoils);
      out.sendPayload(piece, begin, lengthBytes, spoilt ? this.index : -1);
      end.uploadBytes = lengthBytes;
    }
    out.flush(piece >= 0);
  }

  private pumpReceive(end: End): void {
    const session = end.session!;
    const inn = end.inn;
    while (inn.available > 0 && !end.closed) {
      const dueBytes = session.payloadLength - session.payloadReceived;
      if (session.payloadLength > 0 && dueBytes > 0) {
        assert(inn.isPayload, "payload is due and payload comes");
        this.takePayload(session, inn, dueBytes);
        continue;
      }
      const wantedBytes = Math.min(session.controlWanted(), CONTROL_BYTES);
      if (wantedBytes === 0) break;
      const bytes = inn.readControl(control, wantedBytes);
      controlViews[bytes] ??= control.subarray(0, bytes);
      this.swarm.receivedControl(this.clock.nowMs, session, controlViews[bytes]);
    }
  }

  private takePayload(session: Session, inn: Pipe, dueBytes: number): void {
    const wanted = !session.payloadDiscard;
    if (wanted) {
      assert(
        inn.payloadPiece === session.payloadPiece &&
          inn.payloadBegin === session.payloadBegin + session.payloadReceived,
        "payload lands where it belongs",
      );
      if (inn.payloadSpoiltBy >= 0) this.disk.spoil(session.payloadPiece);
    }
    const bytes = inn.readPayload(dueBytes);
    this.payloadBytes += bytes;
    if (wanted && bytes === dueBytes)
      this.disk.landed(session.payloadPiece, session.payloadBegin, session.payloadLength);
    this.swarm.receivedPayload(this.clock.nowMs, session, bytes);
  }

  private judged(piece: number, good: boolean): void {
    if (good) this.verifiedPieces++;
    else this.failedPieces++;
    this.ether.note(this.index, good ? "verified" : "failed", piece);
    this.event(() => {
      if (good) this.swarm.pieceVerified(this.clock.nowMs, pieceIndex(piece));
      else this.swarm.pieceFailed(this.clock.nowMs, pieceIndex(piece));
    });
  }
}

function isFault(event: SwarmReport): boolean {
  return event.kind === "banned" || (event.kind === "peer-dropped" && event.reason?.kind === "fault");
}
