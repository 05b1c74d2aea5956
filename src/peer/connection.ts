/**
 * One TCP connection: the operations on its socket, and the memory that the kernel sees of it.
 *
 * At most one receive and one send are in flight. Headers and small messages are received into the control
 * buffer, payload straight into the slab where it belongs (the session says which is due); a send gathers
 * frames from the outbox and payload from slabs, so no byte of payload is copied.
 *
 * Buffers: the control buffer, two outboxes (one being filled by the session, one being sent) and the iovec
 * array lie in one stretch of mmapped memory lent by `Connections` and reused when the connection has ended.
 */
import { assert } from "../errors.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import { viewAt } from "../kernel/memory.ts";
import { KiB, MiB } from "../units.ts";
import type { Session } from "../swarm/session.ts";
import type { PeerAddress } from "../wire/address.ts";
import type { Intake } from "./intake.ts";
import type { Serving } from "./serving.ts";
import type { SlabIndex } from "./slabs.ts";
import { Op, token } from "./tokens.ts";

const CONTROL_BYTES = 16 * KiB;
/** Blocks gathered into one send: 32 of 16 KiB, so that small blocks cost a system call per half MiB. */
const GATHER_BLOCKS_MAX = 32;
const GATHER_BYTES_MAX = 1 * MiB;
const IOVEC_BYTES = 16;
const IOVECS_MAX = 2 * GATHER_BLOCKS_MAX + 1;
const SOCKADDR_BYTES = 128;

/** Control receives shorter than this are the usual ones: a piece header has 13 bytes. */
const CONTROL_VIEWS = 32;

/** What a connection needs of the peer it belongs to. */
export interface ConnectionHost {
  readonly reactor: Reactor;
  readonly intake: Intake | null;
  readonly serving: Serving | null;
  /** Where payload goes that nobody asked for. */
  readonly scratchAddress: Address;
  readonly scratchBytes: number;
  receivedControl(connection: Connection, bytes: Uint8Array): void;
  receivedPayload(connection: Connection, lengthBytes: number): void;
  uploadStarted(connection: Connection): void;
  uploadSent(connection: Connection, lengthBytes: number): void;
  /** The stream ended or failed: the connection is to be closed. */
  broken(connection: Connection, why: string): void;
}

/** Bytes of mmapped memory that one connection needs, with outboxes of `outboxBytes`. */
export function connectionMemoryBytes(outboxBytes: number): number {
  return Math.ceil((CONTROL_BYTES + 2 * outboxBytes + IOVECS_MAX * IOVEC_BYTES + SOCKADDR_BYTES) / 64) * 64;
}

export class Connection {
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
  /** On the host's list of connections to look at. */
  queued = false;

  readonly sockaddrAddress: Address;
  readonly #controlAddress: Address;
  readonly #control: Uint8Array;
  readonly #controlViews: Uint8Array[] = [];
  readonly #outboxes: [Uint8Array, Uint8Array];
  readonly #outboxAddress: [Address, Address];
  readonly #iovAddress: Address;
  /** `struct iovec` as pairs of 32-bit words (little endian): base low, base high, length, 0. */
  readonly #iov: Uint32Array;
  readonly #sentSlabs = new Int32Array(GATHER_BLOCKS_MAX);
  #filling = 0;
  #receiving = false;
  #receivingPayload = false;
  #sending = false;
  #iovFirst = 0;
  #iovCount = 0;
  #sentSlabCount = 0;
  #sentPayloadBytes = 0;

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
    this.#iovAddress = first + 2 * outboxBytes;
    const iov = viewAt(this.#iovAddress, IOVECS_MAX * IOVEC_BYTES);
    this.#iov = new Uint32Array(iov.buffer, iov.byteOffset, IOVECS_MAX * 4);
    this.sockaddrAddress = this.#iovAddress + IOVECS_MAX * IOVEC_BYTES;
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
    this.#filling = 0;
    this.#sentSlabCount = 0;
    this.#sentPayloadBytes = 0;
  }

  /** Submits whatever can be submitted now: a receive, a send. */
  pump(): void {
    if (this.session === null || this.closing) return;
    if (!this.#receiving) this.#receive(this.session);
    if (!this.#sending) this.#send(this.session);
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
      if (!this.closing) this.host.broken(this, `send failed with errno ${-result}`);
      return;
    }
    let left = result;
    while (left > 0) {
      const at = this.#iovFirst * 4;
      const lengthBytes = this.#iov[at + 2]!;
      if (left < lengthBytes) {
        this.#setIovec(this.#iovFirst, this.#iov[at]! + this.#iov[at + 1]! * 2 ** 32 + left, lengthBytes - left);
        break;
      }
      left -= lengthBytes;
      this.#iovFirst++;
    }
    if (this.#iovFirst < this.#iovCount) return this.#submitSend();
    const payloadBytes = this.#sentPayloadBytes;
    this.#unpinSent();
    if (payloadBytes > 0) this.host.uploadSent(this, payloadBytes);
  }

  #receive(session: Session): void {
    const { reactor, intake } = this.host;
    const dueBytes = session.payloadLength - session.payloadReceived;
    if (session.payloadLength > 0 && dueBytes > 0) {
      this.#receivingPayload = true;
      this.#receiving = true;
      if (session.payloadDiscard || intake === null) {
        const lengthBytes = Math.min(dueBytes, this.host.scratchBytes);
        reactor.recv(this.fd, this.host.scratchAddress, lengthBytes, false, token(Op.receive, this.index));
      } else {
        const address = intake.addressOf(session.payloadPiece, session.payloadBegin + session.payloadReceived);
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

  /** Gathers the outbox and the requests whose bytes are in slabs into one send. */
  #send(session: Session): void {
    const base = this.#outboxAddress[this.#filling]!;
    const serving = this.host.serving;
    let count = 0;
    let gatheredBytes = 0;
    let framedBytes = 0;
    this.#sentSlabCount = 0;
    if (serving !== null && session.uploadCount > 0) serving.readAhead(session);
    while (serving !== null && session.uploadCount > 0 && this.#sentSlabCount < GATHER_BLOCKS_MAX) {
      const lengthBytes = session.uploadLength(0);
      if (gatheredBytes > 0 && gatheredBytes + lengthBytes > GATHER_BYTES_MAX) break;
      const slab: SlabIndex = serving.slabOf(session, 0);
      if (slab < 0) break;
      const payloadAddress = serving.addressOf(slab, session.uploadBegin(0));
      const before = session.outbox.lengthBytes;
      this.host.uploadStarted(this);
      if (session.outbox.lengthBytes === before) break;
      serving.pool.pin(slab);
      this.#sentSlabs[this.#sentSlabCount++] = slab;
      this.#setIovec(count++, base + framedBytes, session.outbox.lengthBytes - framedBytes);
      framedBytes = session.outbox.lengthBytes;
      this.#setIovec(count++, payloadAddress, lengthBytes);
      gatheredBytes += lengthBytes;
    }
    const outboxBytes = session.outbox.lengthBytes;
    if (outboxBytes > framedBytes) this.#setIovec(count++, base + framedBytes, outboxBytes - framedBytes);
    if (count === 0) return;
    this.#filling = 1 - this.#filling;
    session.swapOutbox(this.#outboxes[this.#filling]!);
    this.#iovFirst = 0;
    this.#iovCount = count;
    this.#sentPayloadBytes = gatheredBytes;
    this.#submitSend();
  }

  #submitSend(): void {
    this.#sending = true;
    const address = this.#iovAddress + this.#iovFirst * IOVEC_BYTES;
    this.host.reactor.sendmsg(this.fd, address, this.#iovCount - this.#iovFirst, token(Op.send, this.index));
  }

  #setIovec(index: number, address: Address, lengthBytes: number): void {
    this.#iov[index * 4] = address % 2 ** 32;
    this.#iov[index * 4 + 1] = Math.floor(address / 2 ** 32);
    this.#iov[index * 4 + 2] = lengthBytes;
    this.#iov[index * 4 + 3] = 0;
  }

  #unpinSent(): void {
    for (let i = 0; i < this.#sentSlabCount; i++) this.host.serving?.pool.unpin(this.#sentSlabs[i]!);
    this.#sentSlabCount = 0;
    this.#sentPayloadBytes = 0;
  }
}
