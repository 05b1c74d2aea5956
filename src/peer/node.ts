/**
 * The peer itself: joins the swarm (which decides), the kernel (which moves bytes) and the disk.
 *
 * One thread owns everything here. A turn of the loop: wait for completions, turn them into events of the
 * swarm, drain what it asks for (dial, close, send, receive), hand hashes and writes on, submit. Nothing
 * that the swarm asks for is done inside its call: it is queued and done after it, so it is never re-entered.
 */
import { assert } from "../errors.ts";
import { diskFault } from "../disk/disk-fault.ts";
import type { PageSource } from "../disk/page-source.ts";
import { DiskQueue, type DiskFiles, type SegmentLocator, type WithheldHead } from "../disk/queue.ts";
import type { WriteOrder } from "../disk/write-order.ts";
import type { HashHandler, Hasher, PackHandler } from "../disk/hasher.ts";
import { nowMs } from "../kernel/clock.ts";
import { ProgramPages } from "../kernel/resident.ts";
import type { Address, CompletionHandler, Reactor, Token } from "../kernel/reactor.ts";
import type { Listener } from "../kernel/sockets.ts";
import { KiB } from "../units.ts";
import type { CloseReason, SwarmActions, SwarmReport } from "../swarm/actions.ts";
import { OUTBOX_BYTES, OUTBOX_BYTES_MIN, type SwarmOptions } from "../swarm/policy.ts";
import { dialAddress } from "../swarm/pex.ts";
import type { Session } from "../swarm/session.ts";
import { Swarm } from "../swarm/swarm.ts";
import type { PieceDigests } from "../torrent/piece-digests.ts";
import type { Metainfo } from "../torrent/types.ts";
import type { PieceIndex } from "../units.ts";
import type { Bitfield } from "../wire/bitfield.ts";
import { bitfieldFrameBytes } from "../wire/frames.ts";
import { formatAddress, type PeerAddress } from "../wire/address.ts";
import { BatchReceive } from "./batch-receive.ts";
import type { Connection, ConnectionHost } from "./connection.ts";
import type { PackedBlock } from "../swarm/download.ts";
import { Intake, type IntakeHandler } from "./intake.ts";
import { Links, type LinkObserver } from "./links.ts";
import { PackedCache } from "./packed-cache.ts";
import { Packing } from "./packing.ts";
import { type MemoryPlan, PROGRAM_LOOK_MS } from "./policy.ts";
import { Serving, type ServingHandler } from "./serving.ts";
import { SlabPool } from "./slabs.ts";
import { Op, token, tokenIndex, tokenOp } from "./tokens.ts";
import { NOT_BEGUN, Unpacking } from "./unpacking.ts";

/** Kernel operations on the disk at once: enough for scattered extents, few enough for one disk's queue. */
const DISK_OPS_MAX = 128;
/** Payload that nobody asked for is received here. */
export const SCRATCH_BYTES = 64 * KiB;
/** Connections that are ending while new ones begin. */
const CONNECTIONS_SPARE = 8;
/** Longest sleep, so that messages about time are never late. */
const SLEEP_MS_MAX = 500;
/** A seeder's workers hash nothing. */
const NO_HASHES: HashHandler = { updated() {}, finished() {} };

/** Open resources that a node is given; it closes none of them but its connections and the listener. */
export interface NodeResources {
  readonly reactor: Reactor;
  readonly listener: Listener;
  /** Null where nothing is received and nothing packed. */
  readonly hasher: Hasher | null;
  /** Nothing is received. */
  readonly isSeed: boolean;
  readonly metainfo: Metainfo;
  /** What `hasher` computes of a piece is compared with these. */
  readonly digests: PieceDigests;
  readonly files: DiskFiles;
  readonly segments: SegmentLocator;
  readonly head: WithheldHead | null;
  /** Null where the target does not seek. */
  readonly writeOrder: WriteOrder | null;
  /** What can be sent from the page cache; null: nothing. */
  readonly pages: PageSource | null;
  /** plan.slabCount * plan.slabBytes bytes for slabs, plan.packedBytes for packed blocks, then SCRATCH_BYTES. */
  readonly memoryAddress: Address;
  readonly plan: MemoryPlan;
  readonly swarmOptions: SwarmOptions;
  readonly have: Bitfield;
}

/** What a node tells its owner; called from inside its loop. */
export interface NodeObserver {
  report(event: SwarmReport): void;
  acceptFailed(errno: number): void;
  /** Once per turn: messages, progress, time-outs. Returns true to end the loop. */
  turn(nowMs: number): boolean;
  /** Operations of its own, besides polls, are in flight. */
  readonly busy: boolean;
  /** A completion of an operation that the observer submitted itself. */
  completed(operation: Token, result: number): void;
}

export class Node implements ConnectionHost, LinkObserver, SwarmActions, IntakeHandler, ServingHandler, PackHandler {
  readonly reactor: Reactor;
  readonly pool: SlabPool;
  readonly intake: Intake | null;
  readonly serving: Serving;
  readonly packing: Packing | null;
  readonly unpacking: Unpacking | null;
  readonly swarm: Swarm;
  readonly disk: DiskQueue;
  readonly links: Links;
  readonly scratchAddress: Address;
  readonly scratchBytes = SCRATCH_BYTES;
  /** Monotonic ms at which payload last arrived. */
  lastPayloadMs = nowMs();
  readonly batch: BatchReceive | null;
  turns = 0;
  /** Payload as it crossed the wire: packed blocks count as what they were packed to. */
  wireReceivedBytes = 0;
  wireSentBytes = 0;
  readonly #fetchedFrom = new Map<string, number>();
  readonly #hasher: Hasher | null;
  readonly #observer: NodeObserver;
  readonly #hashHandler: HashHandler;
  /** Null where memory is ample. */
  readonly #program: ProgramPages | null;
  #loaded = false;

  constructor(resources: NodeResources, observer: NodeObserver) {
    const { reactor, metainfo, plan, hasher } = resources;
    this.reactor = reactor;
    this.#observer = observer;
    this.#hasher = hasher;
    this.#program = plan.programBytesMax === null ? null : new ProgramPages(plan.programBytesMax, PROGRAM_LOOK_MS);
    const partsPerPiece = Math.ceil(metainfo.pieceBytes / plan.slabBytes);
    const { slabBytes, slabCount } = plan;
    this.pool = new SlabPool(resources.memoryAddress, slabBytes, slabCount, partsPerPiece, metainfo.pieceCount);
    const packedAddress = resources.memoryAddress + slabCount * slabBytes;
    this.scratchAddress = packedAddress + plan.packedBytes;
    const tokenOf = (index: number) => token(Op.disk, index);
    const done = (isWrite: boolean, tag: number) => this.#diskDone(isWrite, tag);
    this.disk = new DiskQueue(
      reactor,
      resources.files,
      resources.segments,
      resources.head,
      done,
      tokenOf,
      plan.slabCount,
      DISK_OPS_MAX,
      resources.writeOrder,
    );
    const receives = hasher !== null && !resources.isSeed;
    this.intake = !receives
      ? null
      : new Intake(metainfo, resources.digests, this.pool, hasher, this, plan.intakeSlabsMax);
    this.batch = this.intake === null ? null : new BatchReceive();
    this.#hashHandler = this.intake ?? NO_HASHES;
    this.serving = new Serving(metainfo, this.pool, this, plan.readsMax, resources.pages);
    const packs = hasher !== null && plan.packedBytes > 0;
    const cache = packs ? new PackedCache(packedAddress, plan.packedBytes, metainfo.pieceBytes) : null;
    this.packing = packs && cache !== null ? new Packing(this.serving, cache, hasher, hasher.workers) : null;
    const inflated = (block: PackedBlock, isGood: boolean) => this.swarm.inflated(nowMs(), block, isGood);
    this.unpacking =
      packs && cache !== null && this.intake !== null ? new Unpacking(this.intake, cache, hasher, inflated) : null;
    this.swarm = new Swarm(resources.swarmOptions, this, resources.have);
    const connectionsMax = plan.tuning.dialMax + plan.tuning.acceptMax + CONNECTIONS_SPARE;
    const outboxBytes = Math.max(OUTBOX_BYTES, bitfieldFrameBytes(metainfo.pieceCount) + OUTBOX_BYTES_MIN);
    this.links = new Links(this, this.swarm, this, resources.listener, connectionsMax, outboxBytes);
  }

  /** Runs until the observer ends it. Throws DiskFault and AssertionError. */
  run(): void {
    const completion = (operation: Token, result: number) => this.#completed(operation, result);
    for (;;) {
      const now = nowMs();
      if (this.swarm.nextTickMs() <= now) this.swarm.tick(now);
      const dialsMs = this.links.connections.expireDials(now);
      this.links.connections.accept(now);
      this.settle();
      this.#program?.turn(now);
      if (this.#observer.turn(now)) return;
      this.settle();
      this.#wait(Math.min(this.swarm.nextTickMs(), dialsMs, now + SLEEP_MS_MAX), completion);
    }
  }

  /** Ends all connections and waits for what is on its way to the disk. */
  shutdown(): void {
    this.swarm.shutdown(nowMs());
    this.links.settle();
    this.links.connections.shutdown();
    this.disk.order?.endHolding();
    const completion = (operation: Token, result: number) => this.#completed(operation, result);
    while (!this.links.connections.idle || this.#memoryBusy || this.#observer.busy) {
      this.#wait(nowMs() + SLEEP_MS_MAX, completion);
      this.unpacking?.pump();
      this.disk.pump();
    }
    this.links.connections.free();
    this.batch?.free();
  }

  /** The disk or a worker may still touch a slab. */
  get #memoryBusy(): boolean {
    return this.disk.pending > 0 || !!this.intake?.busy || !!this.packing?.busy || !!this.unpacking?.busy;
  }

  get sliceBytes(): number {
    return this.swarm.sending.sliceBytes;
  }

  /** Payload that was used, in bytes, by remote peer. */
  shares(): ReadonlyMap<string, number> {
    for (const connection of this.links.connections) this.#rememberShare(connection);
    return this.#fetchedFrom;
  }

  /** Hands on whatever the last events caused, until nothing more follows. */
  settle(): void {
    do {
      this.unpacking?.pump();
      if (this.intake !== null) {
        this.intake.pump();
        if (this.intake.takeRelief()) this.swarm.memoryFreed(nowMs());
      }
      this.disk.pump();
      if (this.#loaded) {
        this.#loaded = false;
        this.links.lookAtUploads();
      }
      this.links.settle();
    } while (this.#hasWork());
  }

  // SwarmActions: called from inside the swarm; nothing here calls back into it.

  reserve(piece: PieceIndex, begin: number): boolean {
    assert(this.intake !== null, "a seeder requests nothing");
    return this.intake.reserve(piece, begin);
  }

  discard(piece: PieceIndex): void {
    this.intake?.discard(piece);
    this.disk.order?.giveUp(piece);
  }

  dial(address: PeerAddress): void {
    this.links.dialLater(address);
  }

  close(session: Session, _reason: CloseReason): void {
    this.links.closeLater(session);
  }

  wake(session: Session): void {
    this.links.look(session);
  }

  report(event: SwarmReport): void {
    this.#observer.report(event);
  }

  // LinkObserver

  acceptFailed(errno: number): void {
    this.#observer.acceptFailed(errno);
  }

  ending(connection: Connection): void {
    this.unpacking?.abandon(connection.packedEntry);
    connection.packedEntry = NOT_BEGUN;
    this.#rememberShare(connection);
  }

  // ConnectionHost

  receivedControl(connection: Connection, bytes: Uint8Array): void {
    this.swarm.receivedControl(nowMs(), connection.session!, bytes);
  }

  receivedPayload(connection: Connection, lengthBytes: number): void {
    const session = connection.session!;
    const now = nowMs();
    this.lastPayloadMs = now;
    this.wireReceivedBytes += lengthBytes;
    if (!session.payloadDiscard && session.payloadReceived + lengthBytes === session.payloadBytes) {
      assert(this.intake !== null, "a seeder receives no payload");
      connection.fetchedBytes += session.payloadLength;
      if (session.payloadPacked) this.#receivedPacked(connection, session);
      else this.intake.landed(session.payloadPiece, session.payloadBegin, session.payloadLength);
    }
    this.swarm.receivedPayload(now, session, lengthBytes);
  }

  mayLand(session: Session, request: number): boolean {
    return this.swarm.mayLand(session, request);
  }

  packedAddress(connection: Connection): Address {
    assert(this.unpacking !== null, "packed blocks come where they were offered");
    const session = connection.session!;
    if (connection.packedEntry === NOT_BEGUN) connection.packedEntry = this.unpacking.begin(session);
    return this.unpacking.addressOf(session, connection.packedEntry);
  }

  uploadStarted(connection: Connection, packedBytes: number): void {
    this.swarm.uploadStarted(nowMs(), connection.session!, packedBytes);
  }

  uploadSent(connection: Connection, lengthBytes: number, wireBytes: number): void {
    this.wireSentBytes += wireBytes;
    this.swarm.uploadSent(nowMs(), connection.session!, lengthBytes);
  }

  sourceFailed(offsetBytes: number, result: number): never {
    throw diskFault(this.disk.files.path, "read", offsetBytes, result);
  }

  broken(connection: Connection, _why: string): void {
    this.links.connections.close(connection);
  }

  // IntakeHandler and ServingHandler

  write(tag: number, torrentOffsetBytes: number, lengthBytes: number, address: Address): void {
    this.disk.head?.invalidate();
    this.disk.submit(true, tag, torrentOffsetBytes, lengthBytes, address);
  }

  read(slab: number, torrentOffsetBytes: number, lengthBytes: number, address: Address): void {
    this.disk.submit(false, slab, torrentOffsetBytes, lengthBytes, address);
  }

  verified(piece: number): void {
    this.swarm.pieceVerified(nowMs(), piece as PieceIndex);
  }

  failed(piece: number): void {
    this.unpacking?.cache.dropPiece(piece);
    this.swarm.pieceFailed(nowMs(), piece as PieceIndex);
  }

  // PackHandler

  packed(tag: number, packedBytes: number): void {
    this.packing!.packed(tag, packedBytes);
    // Whoever waits for it may go on.
    this.#loaded = true;
  }

  unpacked(tag: number, isSound: boolean): void {
    this.unpacking!.unpacked(tag, isSound);
  }

  /** Sleeps until `wakeMs` or until something completed, hashes included. */
  #wait(wakeMs: number, completion: CompletionHandler): void {
    this.turns++;
    const hasher = this.#hasher;
    if (hasher === null) {
      this.reactor.run(this.#hasWork() ? 0 : Math.max(0, wakeMs - nowMs()), completion);
      return;
    }
    // First say that the reactor may be asleep, then look once more: a hash that ends in between rings the bell.
    hasher.sleeping(true);
    const drained = hasher.drain(this.#hashHandler, this);
    this.reactor.run(drained > 0 || this.#hasWork() ? 0 : Math.max(0, wakeMs - nowMs()), completion);
    hasher.sleeping(false);
    hasher.drain(this.#hashHandler, this);
  }

  #receivedPacked(connection: Connection, session: Session): void {
    this.unpacking!.received(session, connection.packedEntry);
    connection.packedEntry = NOT_BEGUN;
  }

  #hasWork(): boolean {
    return this.#loaded || this.links.hasWork || (this.intake?.hashDue ?? false);
  }

  #rememberShare(connection: Connection): void {
    if (connection.fetchedBytes === 0) return;
    // A peer that called us is named by where it listens: its connection's own port would make it another one.
    const { session, address } = connection;
    const peer = formatAddress((session && dialAddress(session)) ?? address);
    this.#fetchedFrom.set(peer, (this.#fetchedFrom.get(peer) ?? 0) + connection.fetchedBytes);
    connection.fetchedBytes = 0;
  }

  #diskDone(isWrite: boolean, tag: number): void {
    if (isWrite) {
      this.intake!.written(tag);
      return;
    }
    this.serving.loaded(tag);
    this.#loaded = true;
  }

  #completed(operation: Token, result: number): void {
    if (this.links.completed(operation, result)) return;
    if (tokenOp(operation) === Op.disk) this.disk.completed(tokenIndex(operation), result);
    else this.#observer.completed(operation, result);
  }
}
