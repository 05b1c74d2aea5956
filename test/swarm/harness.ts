/** A swarm with a host that records, and a remote peer whose frames are written by hand. */
import type { CloseReason, SwarmActions, SwarmReport } from "../../src/swarm/actions.ts";
import { type SwarmOptions, TUNING_DEFAULT } from "../../src/swarm/policy.ts";
import { Random } from "../../src/swarm/random.ts";
import type { Session } from "../../src/swarm/session.ts";
import { Swarm } from "../../src/swarm/swarm.ts";
import { KiB } from "../../src/units.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import { encodeExtensionHandshake, NO_EXTENSIONS } from "../../src/wire/extensions.ts";
import * as frames from "../../src/wire/frames.ts";
import { encodeHandshake, HANDSHAKE_BYTES } from "../../src/wire/handshake.ts";

export const INFO_HASH = new Uint8Array(20).fill(7);
export const OUR_ID = new Uint8Array(20).fill(100);
export const PIECE_BYTES = 64 * KiB;
export const BLOCK = 16 * KiB;

export function options(change: Partial<SwarmOptions> = {}): SwarmOptions {
  const pieceCount = change.pieceCount ?? 8;
  return {
    ...TUNING_DEFAULT,
    blockBytesMax: BLOCK,
    outstandingBytesPerSource: 64 * KiB,
    infoHash: INFO_HASH,
    peerId: OUR_ID,
    pieceCount,
    pieceBytes: PIECE_BYTES,
    totalBytes: pieceCount * PIECE_BYTES,
    listenPort: 6881,
    slabBytes: 64 * KiB,
    random: new Random(1),
    metadata: null,
    isPrivate: false,
    seedOnly: false,
    ...change,
  };
}

/** Records what the swarm asks for. */
export class Host implements SwarmActions {
  readonly closed: { session: Session; reason: CloseReason }[] = [];
  readonly dialled: PeerAddress[] = [];
  readonly discarded: number[] = [];
  readonly reports: SwarmReport[] = [];
  readonly reserved = new Set<string>();
  mayReserve = (_piece: number, _begin: number): boolean => true;
  readonly swarm: Swarm;
  nowMs = 1000;

  constructor(change: Partial<SwarmOptions> = {}, have: Bitfield | null = null) {
    const all = options(change);
    this.swarm = new Swarm(all, this, have ?? new Bitfield(all.pieceCount));
  }

  reserve(piece: number, begin: number, length: number): boolean {
    if (!this.mayReserve(piece, begin)) return false;
    this.reserved.add(`${piece}:${begin}+${length}`);
    return true;
  }

  discard(piece: number): void {
    this.discarded.push(piece);
  }

  dial(address: PeerAddress): void {
    this.dialled.push(address);
  }

  close(session: Session, reason: CloseReason): void {
    this.closed.push({ session, reason });
  }

  wake(): void {}

  report(event: SwarmReport): void {
    this.reports.push(event);
  }

  tick(afterMs: number): void {
    this.nowMs += afterMs;
    this.swarm.tick(this.nowMs);
  }
}

/** A message that our side sent. */
export type Sent = readonly [name: string, ...values: number[]];

/** The remote end: feeds frames and reads what the session wrote. */
export class Remote {
  readonly session: Session;
  private readonly reader: frames.FrameReader;
  private readonly read: Sent[] = [];
  private handshakeLeft = HANDSHAKE_BYTES;

  constructor(
    readonly host: Host,
    readonly peerId: Uint8Array = new Uint8Array(20).fill(50),
    readonly address: PeerAddress = { host: "10.0.0.9", port: 50_000 },
    outgoing = false,
    outboxBytes = 8 * KiB,
  ) {
    const buffers = { outbox: new Uint8Array(outboxBytes) };
    if (outgoing) this.session = host.swarm.outgoing(host.nowMs, address, buffers);
    else this.session = host.swarm.incoming(host.nowMs, address, buffers)!;
    const note = (...message: Sent): void => void this.read.push(message);
    const numbers = host.swarm.picker.rarity.pieceCount;
    const handler: frames.FrameHandler = {
      onKeepAlive: () => note("keep-alive"),
      onChoke: () => note("choke"),
      onUnchoke: () => note("unchoke"),
      onInterested: () => note("interested"),
      onNotInterested: () => note("not-interested"),
      onHave: (piece) => note("have", piece),
      onBitfield: (body) => note("bitfield", ...body),
      onRequest: (piece, begin, length) => note("request", piece, begin, length),
      onPieceHeader: (piece, begin, length) => note("piece", piece, begin, length),
      onPackedHeader: (piece, begin, length, packedBytes) => note("packed", piece, begin, length, packedBytes),
      onCancel: (piece, begin, length) => note("cancel", piece, begin, length),
      onSuggest: (piece) => note("suggest", piece),
      onHaveAll: () => note("have-all"),
      onHaveNone: () => note("have-none"),
      onReject: (piece, begin, length) => note("reject", piece, begin, length),
      onAllowedFast: (piece) => note("allowed-fast", piece),
      onExtended: (id) => note("extended", id),
      onUnknown: (id) => note("unknown", id),
    };
    this.reader = new frames.FrameReader(numbers, handler, true);
  }

  /** Handshake and, with `ours`, the extension handshake of our own kind. */
  open(
    change: { fast?: boolean; ours?: boolean; yourHost?: string; packedId?: number; infoHash?: Uint8Array } = {},
  ): this {
    const handshake = encodeHandshake(change.infoHash ?? INFO_HASH, this.peerId);
    if (change.fast === false) handshake[27] &= ~0x04;
    this.feed(handshake);
    if (change.ours) {
      const payload = encodeExtensionHandshake({
        ...NO_EXTENSIONS,
        blockBytes: 64 * KiB,
        yourHost: change.yourHost ?? null,
        packedId: change.packedId ?? 0,
        port: 6881,
        requestsMax: 250,
      });
      this.send((target, at) => frames.writeExtended(target, at, 0, payload));
    }
    return this;
  }

  feed(bytes: Uint8Array): void {
    this.host.swarm.receivedControl(this.host.nowMs, this.session, bytes);
  }

  send(...writers: ((target: Uint8Array, at: number) => number)[]): this {
    for (const write of writers) {
      const target = new Uint8Array(4096);
      this.feed(target.subarray(0, write(target, 0)));
    }
    return this;
  }

  haveAll(): this {
    return this.send(frames.writeHaveAll);
  }

  has(...pieces: number[]): this {
    for (const piece of pieces) this.send((target, at) => frames.writeHave(target, at, piece));
    return this;
  }

  unchoke(): this {
    return this.send(frames.writeUnchoke);
  }

  /** Sends a block: header, then its payload in two parts. */
  block(piece: number, begin: number, length = BLOCK): void {
    this.send((target, at) => frames.writePieceHeader(target, at, piece, begin, length));
    if (this.session.payloadLength === 0) return;
    const first = Math.floor(length / 3);
    this.host.swarm.receivedPayload(this.host.nowMs, this.session, first);
    this.host.swarm.receivedPayload(this.host.nowMs, this.session, length - first);
  }

  /** Sends a block as `packedBytes` of payload, in two parts. */
  packedBlock(piece: number, begin: number, length: number, packedBytes: number): void {
    const id = frames.OUR_PACKED_ID;
    this.send((target, at) => frames.writePackedHeader(target, at, id, piece, begin, length, packedBytes));
    if (this.session.payloadLength === 0) return;
    const first = Math.floor(packedBytes / 3);
    this.host.swarm.receivedPayload(this.host.nowMs, this.session, first);
    this.host.swarm.receivedPayload(this.host.nowMs, this.session, packedBytes - first);
  }

  /** Messages our side wrote since the last call. */
  sent(): Sent[] {
    let outbox = this.session.outbox;
    while (outbox.lengthBytes > 0) {
      const bytes = outbox.buffer.slice(0, outbox.lengthBytes);
      this.session.swapOutbox(outbox.buffer);
      const skip = Math.min(this.handshakeLeft, bytes.length);
      this.handshakeLeft -= skip;
      for (let at = skip; at < bytes.length; ) {
        at += this.reader.push(bytes, at);
        if (this.reader.payloadDue > 0) this.reader.payloadReceived(this.reader.payloadDue);
      }
      outbox = this.session.outbox;
    }
    return this.read.splice(0);
  }

  /** Our side's requests to it that wait for an answer. */
  get outstanding(): (readonly [piece: number, begin: number])[] {
    const ring = this.session.outstanding;
    return Array.from({ length: ring.count }, (_, i) => [ring.piece(i), ring.begin(i)] as const);
  }

  named(name: string): Sent[] {
    return this.sent().filter((message) => message[0] === name);
  }

  get closedAs(): string | null {
    return this.host.closed.find((each) => each.session === this.session)?.reason.kind ?? null;
  }

  disconnect(): void {
    this.host.swarm.disconnected(this.host.nowMs, this.session);
  }
}
