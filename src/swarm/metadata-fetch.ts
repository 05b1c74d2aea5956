/**
 * Fetches the info dictionary of a magnet link from its swarm (BEP 9), before there is a torrent to join.
 *
 * Same events as a `Swarm`, without payload: sessions have no piece count, offer no pieces and ask for none.
 * Invariant: each metadata piece is asked from one session at a time. After a dictionary whose hash is wrong, the
 * next attempts have one source each, so that a liar is known and banned. Memory is bounded by METADATA_BYTES_MAX.
 */
import { assert, PeerFault } from "../errors.ts";
import { MiB } from "../units.ts";
import type { PeerAddress } from "../wire/address.ts";
import {
  decodeMetadataMessage,
  encodeMetadataReject,
  encodeMetadataRequest,
  HANDSHAKE_EXTENDED_ID,
  METADATA_PIECE_BYTES,
  OUR_METADATA_ID,
} from "../wire/extensions.ts";
import { equalBytes } from "../wire/handshake.ts";
import type { CloseKind, CloseReason, PeerOrigin, SessionBuffers } from "./actions.ts";
import { Extensions, readHandshake } from "./extensions.ts";
import { banKeyOf, Peers } from "./peers.ts";
import { TICK_MS, TUNING_DEFAULT, UNIT_BYTES } from "./policy.ts";
import type { Random } from "./random.ts";
import { Phase, Session } from "./session.ts";
import type { SessionConfig, SessionEvents } from "./session-events.ts";

/** Largest info dictionary fetched: 800,000 pieces, or 200,000 extents. */
export const METADATA_BYTES_MAX = 16 * MiB;
/** Metadata pieces asked of one peer at a time. */
const PIECES_AHEAD = 4;
/** A peer that does not answer in this time loses its requests and its connection. */
const ANSWER_TIMEOUT_MS = 10_000;

export interface MetadataFetchOptions {
  readonly infoHash: Uint8Array;
  readonly peerId: Uint8Array;
  readonly listenPort: number;
  readonly random: Random;
  /** SHA-1 of bytes, 20 bytes. */
  readonly sha1: (bytes: Uint8Array) => Uint8Array;
  readonly dialMax?: number;
  readonly acceptMax?: number;
}

export interface MetadataFetchActions {
  dial(address: PeerAddress): void;
  close(session: Session, reason: CloseReason): void;
  wake(session: Session): void;
  /** The info dictionary is here and its hash is right. Called once; nothing is fetched after it. */
  done(infoBytes: Uint8Array): void;
}

/** One attempt at the dictionary, of a size that a peer named; a wrong hash ends it with all who took part. */
interface Attempt {
  readonly bytes: Uint8Array;
  readonly pieceCount: number;
  /** Who is asked for each piece; null: nobody; "here" when it arrived. */
  readonly pieces: (Session | null | "here")[];
  readonly contributors: Set<Session>;
  /** The only one asked, after an attempt of several failed. */
  readonly only: Session | null;
  left: number;
}

export class MetadataFetch implements SessionEvents {
  readonly sessions: Session[] = [];
  nowMs = 0;
  private readonly config: SessionConfig;
  private readonly peers: Peers;
  private readonly extensions: Extensions;
  /** Metadata size that each session named, where it can be asked. */
  private readonly sizes = new Map<Session, number>();
  private readonly askedMs = new Map<Session, number>();
  private attempt: Attempt | null = null;
  private lastTickMs = -1;
  private ended = false;
  /** An attempt failed: from now on each has one source. */
  private oneByOne = false;
  private nextId = 0;

  constructor(
    private readonly options: MetadataFetchOptions,
    private readonly actions: MetadataFetchActions,
  ) {
    this.config = {
      infoHash: options.infoHash,
      peerId: options.peerId,
      pieceCount: null,
      pieceBytes: UNIT_BYTES,
      totalBytes: 0,
      slabBytes: UNIT_BYTES,
      blockBytesMax: UNIT_BYTES,
      packedBlocks: false,
    };
    this.peers = new Peers(options.random);
    const { listenPort } = options;
    this.extensions = new Extensions(
      {
        metadata: null,
        wantsMetadata: true,
        isPrivate: true,
        listenPort,
        blockBytesMax: UNIT_BYTES,
        packedBlocks: false,
      },
      null,
    );
  }

  // ---------------------------------------------------------------- events

  /** Null: no place; the host closes the connection at once. */
  incoming(nowMs: number, address: PeerAddress, buffers: SessionBuffers): Session | null {
    this.nowMs = nowMs;
    if (this.peers.isBanned(address.host)) return null;
    const accepted = this.sessions.filter((session) => !session.outgoing).length;
    const acceptMax = this.options.acceptMax ?? TUNING_DEFAULT.acceptMax;
    return this.ended || accepted >= acceptMax ? null : this.addSession(address, false, buffers);
  }

  outgoing(nowMs: number, address: PeerAddress, buffers: SessionBuffers): Session {
    this.nowMs = nowMs;
    this.peers.dialSucceeded(address);
    return this.addSession(address, true, buffers);
  }

  dialFailed(nowMs: number, address: PeerAddress): void {
    this.nowMs = nowMs;
    this.peers.dialFailed(nowMs, address);
    this.dialMore();
  }

  receivedControl(nowMs: number, session: Session, bytes: Uint8Array): void {
    this.nowMs = nowMs;
    if (session.phase === Phase.closing) return;
    session.lastReceivedMs = nowMs;
    try {
      session.takeControl(bytes);
    } catch (error) {
      if (!(error instanceof PeerFault)) throw error;
      this.drop(
        session,
        session.triedEncryption ? "encrypted" : session.wrongTorrent ? "wrong-torrent" : "fault",
        error.message,
      );
    }
  }

  /** Payload that nobody asked for; it is thrown away. */
  receivedPayload(nowMs: number, session: Session, lengthBytes: number): void {
    this.nowMs = nowMs;
    session.takePayload(lengthBytes);
  }

  disconnected(nowMs: number, session: Session): void {
    this.nowMs = nowMs;
    session.phase = Phase.closing;
    const at = this.sessions.indexOf(session);
    assert(at >= 0, "a session is disconnected once");
    this.sessions.splice(at, 1);
    this.sizes.delete(session);
    this.giveBack(session);
    if (session.outgoing) this.peers.disconnected(nowMs, session.address);
    this.askAll();
    this.dialMore();
  }

  addPeers(nowMs: number, addresses: PeerAddress[], origin: PeerOrigin): void {
    this.nowMs = nowMs;
    for (const address of addresses) this.peers.add(address, origin);
    this.dialMore();
  }

  tick(nowMs: number): void {
    this.nowMs = nowMs;
    this.lastTickMs = nowMs;
    for (const session of [...this.sessions]) {
      const asked = this.askedMs.get(session);
      if (asked !== undefined && nowMs - asked >= ANSWER_TIMEOUT_MS)
        this.drop(session, "timeout", "does not answer metadata requests");
      else if (
        session.phase === Phase.handshake &&
        nowMs - session.uselessSinceMs >= TUNING_DEFAULT.handshakeTimeoutMs
      ) {
        this.drop(session, "timeout", "no handshake");
      }
    }
    this.dialMore();
  }

  nextTickMs(): number {
    return this.lastTickMs < 0 ? 0 : this.lastTickMs + TICK_MS;
  }

  shutdown(nowMs: number): void {
    this.nowMs = nowMs;
    this.ended = true;
    for (const session of this.sessions) this.drop(session, "shutdown", "the metadata is here");
  }

  // ---------------------------------------------------------------- SessionEvents

  opened(session: Session): void {
    if (equalBytes(session.remotePeerId!, this.options.peerId)) {
      if (session.outgoing) this.peers.markSelf(session.address);
      return this.drop(session, "self", "connected to ourselves");
    }
    session.banKey = banKeyOf(session.address, session.remotePeerId!);
    if (this.peers.isBanned(session.banKey)) return this.drop(session, "banned", "sent wrong metadata before");
    if (!session.extensions) return this.drop(session, "fault", "cannot send metadata: no BEP 10");
    if (session.outgoing) this.peers.proven(session.address);
    this.extensions.opened(session, false);
  }

  extended(session: Session, extendedId: number, payload: Uint8Array): void {
    if (session.phase === Phase.closing || this.ended) return;
    if (extendedId === HANDSHAKE_EXTENDED_ID) this.offered(session, payload);
    else if (extendedId === OUR_METADATA_ID) this.metadataMessage(session, payload);
  }

  room(session: Session): void {
    if (this.sizes.has(session)) this.ask(session);
  }

  wake(session: Session): void {
    this.actions.wake(session);
  }

  remoteHas(): void {}
  remoteHasSet(): void {}
  remoteChoked(): void {}
  remoteUnchoked(): void {}
  remoteInterestChanged(): void {}
  suggested(): void {}
  uploadQueued(): void {}

  weHave(): boolean {
    return false;
  }

  blockArriving(): boolean {
    return false;
  }

  packedReceived(): void {}

  blockReceived(): void {
    assert(false, "no block is asked for while metadata is fetched");
  }

  rejected(): void {
    assert(false, "no block is asked for while metadata is fetched");
  }

  // ---------------------------------------------------------------- inside

  private addSession(address: PeerAddress, outgoing: boolean, buffers: SessionBuffers): Session {
    const session = new Session(this.nextId++, address, outgoing, buffers.outbox, this.config, this);
    this.sessions.push(session);
    return session;
  }

  private offered(session: Session, payload: Uint8Array): void {
    const { metadataBytes: bytes } = readHandshake(session, payload);
    if (session.ext.metadataId === 0 || bytes === null) return;
    if (bytes > METADATA_BYTES_MAX)
      throw new PeerFault(`metadata of ${bytes} bytes, at most ${METADATA_BYTES_MAX} are fetched`);
    this.sizes.set(session, bytes);
    this.ask(session);
  }

  private ask(session: Session): void {
    const bytes = this.sizes.get(session);
    if (bytes === undefined || session.phase !== Phase.open || this.ended) return;
    this.attempt ??= begin(bytes, this.oneByOne ? session : null);
    const attempt = this.attempt;
    if (attempt.bytes.length !== bytes || (attempt.only !== null && attempt.only !== session)) return;
    let asked = attempt.pieces.filter((piece) => piece === session).length;
    for (let piece = 0; piece < attempt.pieceCount && asked < PIECES_AHEAD; piece++) {
      if (attempt.pieces[piece] !== null) continue;
      if (!session.writeExtended(session.ext.metadataId, encodeMetadataRequest(piece))) return;
      attempt.pieces[piece] = session;
      if (asked++ === 0) this.askedMs.set(session, this.nowMs);
    }
  }

  private askAll(): void {
    for (const session of this.sessions) this.ask(session);
  }

  private metadataMessage(session: Session, payload: Uint8Array): void {
    const message = decodeMetadataMessage(payload);
    if (message.kind === "request") {
      if (session.ext.metadataId !== 0)
        session.writeExtended(session.ext.metadataId, encodeMetadataReject(message.piece));
      return;
    }
    const attempt = this.attempt;
    if (message.kind === "unknown" || attempt === null || attempt.pieces[message.piece] !== session) return;
    if (message.kind === "reject") {
      this.sizes.delete(session);
      this.giveBack(session);
      this.askAll();
      return;
    }
    const begin = message.piece * METADATA_PIECE_BYTES;
    const expected = Math.min(METADATA_PIECE_BYTES, attempt.bytes.length - begin);
    if (message.data.length !== expected)
      throw new PeerFault(`metadata piece ${message.piece} of ${message.data.length} bytes, expected ${expected}`);
    attempt.bytes.set(message.data, begin);
    attempt.pieces[message.piece] = "here";
    attempt.contributors.add(session);
    this.askedMs.set(session, this.nowMs);
    if (!attempt.pieces.includes(session)) this.askedMs.delete(session);
    if (--attempt.left === 0) this.judge(attempt);
    else this.ask(session);
  }

  private judge(attempt: Attempt): void {
    this.attempt = null;
    if (equalBytes(this.options.sha1(attempt.bytes), this.options.infoHash)) {
      this.ended = true;
      this.actions.done(attempt.bytes);
      return;
    }
    this.oneByOne = true;
    const [first] = attempt.contributors;
    if (attempt.contributors.size === 1) {
      this.peers.ban(first.banKey);
      this.sizes.delete(first);
      this.drop(first, "banned", "sent metadata with a wrong hash");
    }
    this.askAll();
  }

  /** What a session was asked for is asked from others. An attempt nobody goes on with ends, so that another size has its chance. */
  private giveBack(session: Session): void {
    this.askedMs.delete(session);
    const attempt = this.attempt;
    if (attempt === null) return;
    for (let piece = 0; piece < attempt.pieceCount; piece++)
      if (attempt.pieces[piece] === session) attempt.pieces[piece] = null;
    const size = attempt.bytes.length;
    if (attempt.only === null) for (const other of this.sizes.values()) if (other === size) return;
    if (attempt.only === null || attempt.only === session) this.attempt = null;
  }

  private drop(session: Session, kind: CloseKind, text: string): void {
    if (session.phase === Phase.closing) return;
    session.phase = Phase.closing;
    this.actions.close(session, { kind, text });
  }

  private dialMore(): void {
    if (this.ended) return;
    let outgoing = this.peers.dialling;
    for (const session of this.sessions) if (session.outgoing) outgoing++;
    for (; outgoing < (this.options.dialMax ?? TUNING_DEFAULT.dialMax); outgoing++) {
      const address = this.peers.choose(this.nowMs, true);
      if (address === null) return;
      this.peers.dialStarted(address);
      this.actions.dial(address);
    }
  }
}

function begin(bytes: number, only: Session | null): Attempt {
  const pieceCount = Math.ceil(bytes / METADATA_PIECE_BYTES);
  const pieces = new Array<Session | null | "here">(pieceCount).fill(null);
  return { bytes: new Uint8Array(bytes), pieceCount, pieces, contributors: new Set(), only, left: pieceCount };
}
