/**
 * One TCP connection: the operations on its socket, and the memory that the kernel sees of it.
 *
 * At most one receive and one send are in flight. Headers and small messages are received into the control
 * buffer, payload straight into the slab where it belongs (the session says which is due); a send gathers
 * frames from the outbox and payload from slabs or from the page cache, so no byte of payload is copied.
 *
 * Buffers: the control buffer, two outboxes (one being filled by the session, one being sent) and the send
 * list lie in one stretch of mmapped memory lent by `Connections` and reused when the connection has ended.
 */
import { assert } from "../errors.ts";
import { Errno } from "../kernel/libc.ts";
import { SEGMENTS_MAX } from "../disk/page-source.ts";
import { viewAt } from "../kernel/memory.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import { limitUnsent } from "../kernel/sockets.ts";
import { SendList, sendListMemoryBytes } from "../kernel/send-list.ts";
import { KiB } from "../units.ts";
import type { Session } from "../swarm/session.ts";
import type { PeerAddress } from "../wire/address.ts";
import { PACKED_HEADER_BYTES, PIECE_HEADER_BYTES } from "../wire/frames.ts";
import type { BatchReceive, BatchSink } from "./batch-receive.ts";
import type { Intake } from "./intake.ts";
import type { PackedEntry } from "./packed-cache.ts";
import { type Packing, SEND_PLAIN, WAIT_FOR_IT } from "./packing.ts";
import type { Serving } from "./serving.ts";
import type { SlabIndex } from "./slabs.ts";
import { Op, token } from "./tokens.ts";
import { NOT_BEGUN } from "./unpacking.ts";

const CONTROL_BYTES = 16 * KiB;
/** Blocks gathered into one send: 32 of 16 KiB, so that small blocks cost a system call per half MiB. */
const GATHER_BLOCKS_MAX = 32;
/** A header and a range for each block, room for one block that lies in several ranges, and frames at the end. */
const SEND_PARTS_MAX = 2 * GATHER_BLOCKS_MAX + SEGMENTS_MAX + 1;
const SOCKADDR_BYTES = 128;

/** Batches that a connection receives in one turn before others are looked after, hashes and writes among them. */
const BATCHES_PER_TURN = 8;
/** After something unexpected so many blocks are received one by one: copies must stay the exception. */
const SINGLE_BLOCKS = 16;

/** Control receives shorter than this are the usual ones: a piece header has 13 bytes. */
const CONTROL_VIEWS = 32;

/** What a connection needs of the peer it belongs to. */
export interface ConnectionHost {
  readonly reactor: Reactor;
  readonly intake: Intake | null;
  readonly serving: Serving | null;
  /** Receives many small blocks at once; null where nothing is fetched. */
  readonly batch: BatchReceive | null;
  /** Counts the turns of the loop: what a connection may do in one of them has a limit. */
  readonly turns: number;
  mayLand(session: Session, request: number): boolean;
  /** What the line carries outwards in a moment (`line.ts`): as much payload is sent at a time, and left unsent with the kernel. */
  readonly sliceBytes: number;
  /** Null: no block is sent packed. */
  readonly packing: Packing | null;
  /** Where payload goes that nobody asked for. */
  readonly scratchAddress: Address;
  readonly scratchBytes: number;
  receivedControl(connection: Connection, bytes: Uint8Array): void;
  receivedPayload(connection: Connection, lengthBytes: number): void;
  /** Where the next payload of the packed block goes that is due. */
  packedAddress(connection: Connection): Address;
  /** `packedBytes` above 0: the block goes out packed. */
  uploadStarted(connection: Connection, packedBytes: number): void;
  /** Blocks of `lengthBytes` were sent, as `wireBytes` of payload. */
  uploadSent(connection: Connection, lengthBytes: number, wireBytes: number): void;
  /** The source of what is sent failed at this byte of it; `result` is minus errno. */
  sourceFailed(offsetBytes: number, result: number): never;
  /** The stream ended or failed: the connection is to be closed. */
  broken(connection: Connection, why: string): void;
}

/** Bytes of mmapped memory that one connection needs, with outboxes of `outboxBytes`. */
export function connectionMemoryBytes(outboxBytes: number): number {
  return Math.ceil((CONTROL_BYTES + 2 * outboxBytes + sendListMemoryBytes(SEND_PARTS_MAX) + SOCKADDR_BYTES) / 64) * 64;
}

export class Connection implements BatchSink {
  fd = -1;
  address: PeerAddress = { host: "0.0.0.0", port: 1 };
  session: Session | null = null;
  /** Being dialled: the connect operation is in flight. */
  connecting = false;
  closing = false;
  /** Monotonic ms after which a dial is given up. */
  deadlineMs = 0;
  /** Payload bytes received from this peer that were used. */
  fetchedBytes = 0;
  /** Where the packed block lands that is due: an entry of the cache, or as `unpacking.ts` says. */
  packedEntry: PackedEntry = NOT_BEGUN;
  /** On the host's list of connections to look at. */
  queued = false;

  readonly sockaddrAddress: Address;
  readonly #controlAddress: Address;
  readonly #control: Uint8Array;
  readonly #controlViews: Uint8Array[] = [];
  readonly #outboxes: [Uint8Array, Uint8Array];
  readonly #outboxAddress: [Address, Address];
  readonly #list: SendList;
  /** What blocks being sent pin: slabs, and packed blocks. */
  readonly #sentSlabs = new Int32Array(GATHER_BLOCKS_MAX);
  readonly #sentPacked = new Int32Array(GATHER_BLOCKS_MAX);
  #filling = 0;
  #receiving = false;
  #receivingPayload = false;
  #sending = false;
  #sentSlabCount = 0;
  #sentPackedCount = 0;
  #sentPayloadBytes = 0;
  #sentWireBytes = 0;
  #singleBlocks = 0;
  #batchTurn = 0;
  #batches = 0;
  /** The slice that the socket was told of. */
  #sliceBytes = 0;

  constructor(
    readonly index: number,
    readonly host: ConnectionHost,
    memoryAddress: Address,
    outboxBytes: number,
  ) {
    this.#controlAddress = memoryAddress;
    this.#control = viewAt(memoryAddress, CONTROL_BYTES);
    const first = memoryAddress + CONTROL_BYTES;
    this.#outboxAddress = [first, first + outboxBytes];
    this.#outboxes = [viewAt(first, outboxBytes), viewAt(first + outboxBytes, outboxBytes)];
    const listAddress = first + 2 * outboxBytes;
    this.#list = new SendList(listAddress, SEND_PARTS_MAX);
    this.sockaddrAddress = listAddress + sendListMemoryBytes(SEND_PARTS_MAX);
  }

  /** The outbox that a new session starts to fill. */
  get outbox(): Uint8Array {
    return this.#outboxes[this.#filling]!;
  }

  /** True while the kernel may touch this connection's memory or a slab on its behalf. */
  get busy(): boolean {
    return this.connecting || this.#receiving || this.#sending;
  }

  /** Forgets what an earlier use of this object left. */
  reset(fd: number, address: PeerAddress): void {
    assert(!this.busy, "a connection is reused when the kernel is done with it");
    this.fd = fd;
    this.address = address;
    this.session = null;
    this.closing = false;
    this.fetchedBytes = 0;
    this.packedEntry = NOT_BEGUN;
    this.#filling = 0;
    this.#sentSlabCount = 0;
    this.#sentPackedCount = 0;
    this.#sentPayloadBytes = 0;
    this.#singleBlocks = 0;
    this.#sentWireBytes = 0;
    this.#sliceBytes = 0;
  }

  /** Submits whatever can be submitted now: a receive, a send. */
  pump(): void {
    if (this.session === null || this.closing) return;
    if (!this.#receiving) this.#receive(this.session);
    if (this.session === null || this.closing) return;
    if (this.#sending) this.host.packing?.lookAhead(this.session);
    else this.#send(this.session);
  }

  // BatchSink

  control(bytes: Uint8Array): void {
    this.host.receivedControl(this, bytes);
  }

  payload(lengthBytes: number): void {
    this.host.receivedPayload(this, lengthBytes);
  }

  payloadAddress(session: Session): Address {
    const { intake } = this.host;
    if (session.payloadDiscard || intake === null) return 0;
    if (session.payloadPacked) return this.host.packedAddress(this);
    return intake.addressOf(session.payloadPiece, session.payloadBegin + session.payloadReceived);
  }

  mayLand(session: Session, request: number): boolean {
    return this.host.mayLand(session, request);
  }

  received(result: number): void {
    this.#receiving = false;
    if (this.closing || this.session === null) return;
    if (result === 0) return this.host.broken(this, "closed by the peer");
    if (result < 0) return this.host.broken(this, `receive failed with errno ${-result}`);
    if (this.#receivingPayload) this.host.receivedPayload(this, result);
    else this.host.receivedControl(this, this.#controlView(result));
  }

  sent(result: number): void {
    this.#sending = false;
    if (result <= 0 || this.closing) {
      this.#unpinSent();
      if (this.#list.fileFault) this.host.sourceFailed(this.#list.fileOffsetBytes, result);
      if (!this.closing) this.host.broken(this, `send failed with errno ${-result}`);
      return;
    }
    if (!this.#list.hasFile) {
      this.#list.advance(result);
      if (this.#list.count > 0) return this.#submitSend();
    }
    const payloadBytes = this.#sentPayloadBytes;
    const wireBytes = this.#sentWireBytes;
    this.#unpinSent();
    if (payloadBytes > 0) this.host.uploadSent(this, payloadBytes, wireBytes);
  }

  #receive(session: Session): void {
    if (this.#singleBlocks === 0) {
      if (!this.#receiveBatches(session)) return;
    } else if (session.payloadLength > 0) this.#singleBlocks--;
    const { reactor } = this.host;
    const dueBytes = session.payloadBytes - session.payloadReceived;
    if (session.payloadLength > 0 && dueBytes > 0) {
      this.#receivingPayload = true;
      this.#receiving = true;
      const address = this.payloadAddress(session);
      if (address === 0) {
        const lengthBytes = Math.min(dueBytes, this.host.scratchBytes);
        reactor.recv(this.fd, this.host.scratchAddress, lengthBytes, false, token(Op.receive, this.index));
      } else {
        reactor.recv(this.fd, address, dueBytes, true, token(Op.receive, this.index));
      }
      return;
    }
    const wantedBytes = Math.min(session.controlWanted(), CONTROL_BYTES);
    if (wantedBytes === 0) return;
    this.#receivingPayload = false;
    this.#receiving = true;
    reactor.recv(this.fd, this.#controlAddress, wantedBytes, false, token(Op.receive, this.index));
  }

  /** Takes small blocks as long as whole batches of them have arrived. False: the connection or its session is over. */
  #receiveBatches(session: Session): boolean {
    const { batch, intake, reactor, turns } = this.host;
    if (batch === null || intake === null) return true;
    if (this.#batchTurn !== turns) this.#batches = 0;
    this.#batchTurn = turns;
    while (this.#batches < BATCHES_PER_TURN) {
      const result = batch.run(session, this.fd, reactor, intake, this);
      if (result === null || result === -Errno.EAGAIN) return true;
      if (result <= 0) {
        this.received(result);
        return false;
      }
      this.#batches++;
      if (!session.isOpen) return false;
      if (!batch.strayed) continue;
      this.#singleBlocks = SINGLE_BLOCKS;
      return true;
    }
    return true;
  }

  /** Views of the lengths that headers and small messages have are made once. */
  #controlView(lengthBytes: number): Uint8Array {
    if (lengthBytes >= CONTROL_VIEWS) return this.#control.subarray(0, lengthBytes);
    let view = this.#controlViews[lengthBytes];
    if (view === undefined) {
      view = this.#control.subarray(0, lengthBytes);
      this.#controlViews[lengthBytes] = view;
    }
    return view;
  }

  /** Gathers the outbox and the requests whose bytes are at hand into one send. */
  #send(session: Session): void {
    const base = this.#outboxAddress[this.#filling]!;
    const list = this.#list;
    this.#followLine();
    list.clear();
    this.#sentSlabCount = 0;
    this.#sentPackedCount = 0;
    const framedBytes = this.#gatherBlocks(session, base);
    const outboxBytes = session.outbox.lengthBytes;
    if (outboxBytes > framedBytes) list.addMemory(base + framedBytes, outboxBytes - framedBytes);
    if (list.count === 0) return;
    this.#filling = 1 - this.#filling;
    session.swapOutbox(this.#outboxes[this.#filling]!);
    this.#submitSend();
  }

  /** Words wait behind what the kernel has taken and not sent: that follows the line's rate. */
  #followLine(): void {
    const { sliceBytes } = this.host;
    if (sliceBytes === this.#sliceBytes) return;
    this.#sliceBytes = sliceBytes;
    limitUnsent(this.fd, sliceBytes);
  }

  /** Puts blocks, each behind its header, on the list. Returns how much of the outbox went with them. */
  #gatherBlocks(session: Session, base: Address): number {
    const { serving, packing } = this.host;
    const list = this.#list;
    let framedBytes = 0;
    this.#sentPayloadBytes = 0;
    this.#sentWireBytes = 0;
    if (serving === null || session.queuedCount === 0) return 0;
    if (session.uploadCount > 0) packing?.look(session, this.fd);
    serving.readAhead(session, packing);
    packing?.lookAhead(session);
    for (let blocks = 0; blocks < GATHER_BLOCKS_MAX && session.uploadCount > 0; blocks++) {
      const lengthBytes = session.uploadLength(0);
      if (this.#sentPayloadBytes > 0 && this.#sentPayloadBytes + lengthBytes > this.host.sliceBytes) break;
      if (list.room < SEGMENTS_MAX + 2) break;
      const packed = packing === null ? SEND_PLAIN : packing.choose(session, this.fd);
      if (packed === WAIT_FOR_IT) break;
      const sentBytes =
        packing !== null && packed >= 0
          ? this.#gatherPacked(session, packing, packed, base + framedBytes, framedBytes)
          : this.#gatherPlain(session, serving, base + framedBytes, framedBytes);
      if (sentBytes === 0) break;
      packing?.sent(session, sentBytes);
      framedBytes = session.outbox.lengthBytes;
      this.#sentPayloadBytes += lengthBytes;
      this.#sentWireBytes += sentBytes;
    }
    return framedBytes;
  }

  /** Puts the first request's block on the list. Returns its bytes, or 0 where it is not at hand or has no room. */
  #gatherPlain(session: Session, serving: Serving, headAddress: Address, framedBytes: number): number {
    const list = this.#list;
    const lengthBytes = session.uploadLength(0);
    const slab: SlabIndex = serving.slabOf(session, 0);
    if (slab < 0 && !serving.isInPages(session, 0)) return 0;
    const parts = list.count;
    const payloadAddress = slab < 0 ? 0 : serving.addressOf(slab, session.uploadBegin(0));
    // The header comes before its payload on the list, but is only known after it: its place is kept.
    list.addMemory(headAddress, session.outbox.lengthBytes + PIECE_HEADER_BYTES - framedBytes);
    if (slab < 0) serving.addPages(list, session, 0);
    else list.addMemory(payloadAddress, lengthBytes);
    if (!this.#start(session, 0, PIECE_HEADER_BYTES)) {
      list.truncate(parts);
      return 0;
    }
    if (slab >= 0) {
      serving.pool.pin(slab);
      this.#sentSlabs[this.#sentSlabCount++] = slab;
    }
    return lengthBytes;
  }

  /** Likewise for a packed block, which is pinned already. */
  #gatherPacked(
    session: Session,
    { cache }: Packing,
    packed: PackedEntry,
    headAddress: Address,
    framedBytes: number,
  ): number {
    const packedBytes = cache.length(packed);
    if (!this.#start(session, packedBytes, PACKED_HEADER_BYTES)) {
      cache.unpin(packed);
      return 0;
    }
    this.#list.addMemory(headAddress, session.outbox.lengthBytes - framedBytes);
    this.#list.addMemory(cache.address(packed), packedBytes);
    this.#sentPacked[this.#sentPackedCount++] = packed;
    return packedBytes;
  }

  /** Takes the first request off its queue, its header is written. False: it has no room. */
  #start(session: Session, packedBytes: number, headerBytes: number): boolean {
    const before = session.outbox.lengthBytes;
    this.host.uploadStarted(this, packedBytes);
    if (session.outbox.lengthBytes === before) return false;
    assert(session.outbox.lengthBytes === before + headerBytes, "a block's header is the outbox's last bytes");
    return true;
  }

  #submitSend(): void {
    this.#sending = true;
    const operation = token(Op.send, this.index);
    const { reactor } = this.host;
    if (this.#list.hasFile) reactor.sendList(this.fd, this.#list, operation);
    else reactor.sendmsg(this.fd, this.#list.firstIovec, this.#list.count, operation);
  }

  #unpinSent(): void {
    for (let i = 0; i < this.#sentSlabCount; i++) this.host.serving?.pool.unpin(this.#sentSlabs[i]!);
    for (let i = 0; i < this.#sentPackedCount; i++) this.host.packing?.cache.unpin(this.#sentPacked[i]!);
    this.#sentSlabCount = 0;
    this.#sentPackedCount = 0;
    this.#sentPayloadBytes = 0;
    this.#sentWireBytes = 0;
  }
}
