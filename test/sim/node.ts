/**
 * A simulated machine: the host of one real `Swarm`. It does what `src/peer` does, on a simulated network and disk.
 *
 * As the real host, it only queues inside the swarm's actions and settles after each event.
 */
import { assert } from "../../src/errors.ts";
import type { CloseReason, SwarmActions, SwarmReport } from "../../src/swarm/actions.ts";
import type { SwarmOptions } from "../../src/swarm/policy.ts";
import type { Session } from "../../src/swarm/session.ts";
import { Swarm } from "../../src/swarm/swarm.ts";
import { type PieceIndex, pieceIndex } from "../../src/units.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import type { Bitfield } from "../../src/wire/bitfield.ts";
import type { SimClock } from "./clock.ts";
import { type DiskOptions, SimDisk } from "./disk.ts";
import { Link, type LinkOptions, Pipe, type Stretch } from "./network.ts";

/** What a node is told about the others: the simulated ether. */
export interface Ether {
  find(address: PeerAddress): SimNode | null;
  /** Something happened that a replay must repeat exactly. */
  note(node: number, kind: string, value: number): void;
}

export interface NodeOptions {
  readonly index: number;
  readonly address: PeerAddress;
  readonly swarm: SwarmOptions;
  readonly have: Bitfield;
  readonly link: LinkOptions;
  readonly disk: DiskOptions;
  readonly outboxBytes: number;
  /** Sends wrong payload with this chance per block. */
  readonly spoils: number;
}

/** One end of a connection. */
class End {
  session: Session | null = null;
  other: End | null = null;
  spareOutbox: Uint8Array;
  uploadBytes = 0;
  closed = false;
  queued = false;

  constructor(
    readonly node: SimNode,
    readonly out: Pipe,
    readonly inn: Pipe,
    readonly outbox: Uint8Array,
  ) {
    this.spareOutbox = new Uint8Array(outbox.length);
  }
}

export class SimNode implements SwarmActions {
  readonly swarm: Swarm;
  readonly link: Link;
  readonly disk: SimDisk;
  readonly reports: SwarmReport[] = [];
  verifiedPieces = 0;
  failedPieces = 0;
  completedMs = -1;
  alive = true;
  /** Cables pulled: nothing leaves or arrives, and nobody is told. */
  mute = false;
  private readonly ends = new Set<End>();
  private readonly woken: End[] = [];
  private readonly toClose: Session[] = [];
  private readonly toDial: PeerAddress[] = [];
  private settling = false;

  constructor(
    readonly options: NodeOptions,
    private readonly clock: SimClock,
    private readonly ether: Ether,
  ) {
    this.link = new Link(clock, options.link);
    this.disk = new SimDisk(
      clock,
      options.disk,
      (piece, good) => this.judged(piece, good),
      () => this.event(() => this.swarm.memoryFreed(clock.nowMs)),
    );
    this.swarm = new Swarm(options.swarm, this, options.have);
    clock.after(0, () => this.tick());
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
    this.reports.push(event);
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

  private tick(): void {
    if (!this.alive) return;
    this.event(() => this.swarm.tick(this.clock.nowMs));
    this.clock.at(this.swarm.nextTickMs(), () => this.tick());
  }

  private settle(): void {
    if (this.settling) return;
    this.settling = true;
    while (this.woken.length + this.toClose.length + this.toDial.length > 0) {
      for (let session = this.toClose.shift(); session !== undefined; session = this.toClose.shift())
        this.hangUpOwn(session);
      for (let address = this.toDial.shift(); address !== undefined; address = this.toDial.shift())
        this.connect(address);
      for (let end = this.woken.shift(); end !== undefined; end = this.woken.shift()) {
        end.queued = false;
        this.pumpSend(end);
        this.pumpReceive(end);
      }
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
    const latencyMs = this.options.link.latencyMs + (target?.options.link.latencyMs ?? 0);
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
    const there = new Pipe(this.clock, this.link, target.link);
    const back = new Pipe(this.clock, target.link, this.link);
    const mine = new End(this, there, back, new Uint8Array(this.options.outboxBytes));
    const theirs = new End(target, back, there, new Uint8Array(target.options.outboxBytes));
    mine.other = theirs;
    theirs.other = mine;
    const ephemeral = { host: this.options.address.host, port: 32768 + ((this.index * 131 + target.index) % 28000) };
    this.attach(mine, this.swarm.outgoing(this.clock.nowMs, address, { outbox: mine.outbox }));
    target.attach(theirs, target.swarm.incoming(this.clock.nowMs, ephemeral, { outbox: theirs.outbox }));
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
    end.out.onSent = () => this.sent(end);
    end.inn.onArrived = () => {
      if (!end.closed && !this.mute) this.pumpReceive(end);
      this.settle();
    };
    this.queue(end);
  }

  /** Tells the other end of a connection that it is over. */
  private hangUp(end: End): void {
    const other = end.other!;
    this.clock.after(this.options.link.latencyMs + other.node.options.link.latencyMs, () => other.node.ended(other));
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

  private sent(end: End): void {
    if (end.closed || !this.alive) return;
    const bytes = end.uploadBytes;
    end.uploadBytes = 0;
    if (bytes > 0) this.swarm.uploadSent(this.clock.nowMs, end.session!, bytes);
    this.queue(end);
    this.settle();
  }

  /** One send at a time: the outbox, and behind it the payload of one block. */
  private pumpSend(end: End): void {
    const session = end.session!;
    if (end.closed || end.out.sending) return;
    const stretches: Stretch[] = [];
    let payload: Stretch | null = null;
    if (session.uploadCount > 0) {
      const piece = session.uploadPiece(0);
      const begin = session.uploadBegin(0);
      const lengthBytes = session.uploadLength(0);
      const spoilt = this.options.spoils > 0 && this.options.swarm.random.chance(this.options.spoils);
      const before = session.outbox.lengthBytes;
      this.swarm.uploadStarted(this.clock.nowMs, session);
      if (session.outbox.lengthBytes > before) {
        payload = { control: null, piece, begin, lengthBytes, takenBytes: 0, spoiltBy: spoilt ? this.index : -1 };
        end.uploadBytes = lengthBytes;
      }
    }
    if (session.outbox.lengthBytes === 0) return;
    const filled = session.outbox.buffer;
    const bytes = session.swapOutbox(end.spareOutbox);
    end.spareOutbox = filled;
    stretches.push({
      control: filled.slice(0, bytes),
      piece: -1,
      begin: 0,
      lengthBytes: bytes,
      takenBytes: 0,
      spoiltBy: -1,
    });
    if (payload !== null) stretches.push(payload);
    end.out.send(stretches);
  }

  private pumpReceive(end: End): void {
    const session = end.session!;
    const now = this.clock.nowMs;
    for (let head = end.inn.head; head !== null && !end.closed; head = end.inn.head) {
      const dueBytes = session.payloadLength - session.payloadReceived;
      if (session.payloadLength > 0 && dueBytes > 0) {
        assert(head.control === null, "payload is due and payload comes");
        this.takePayload(session, head, Math.min(dueBytes, head.lengthBytes));
        end.inn.readPayload(Math.min(dueBytes, head.lengthBytes));
        this.swarm.receivedPayload(now, session, this.lastTaken);
        continue;
      }
      const wantedBytes = Math.min(session.controlWanted(), 4096);
      if (wantedBytes === 0) break;
      this.swarm.receivedControl(now, session, end.inn.readControl(wantedBytes));
    }
    this.settle();
  }

  private lastTaken = 0;

  private takePayload(session: Session, head: Stretch, bytes: number): void {
    this.lastTaken = bytes;
    if (session.payloadDiscard) return;
    assert(
      head.piece === session.payloadPiece && head.begin === session.payloadBegin + session.payloadReceived,
      "payload lands where it belongs",
    );
    if (head.spoiltBy >= 0) this.disk.spoil(head.piece);
    if (session.payloadReceived + bytes < session.payloadLength) return;
    this.disk.landed(session.payloadPiece, session.payloadBegin, session.payloadLength);
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
