/**
 * One torrent's swarm: joins sessions, download, uploads, addresses and extensions, and is what the host talks to.
 *
 * Sans-IO: every event comes with `nowMs`, every wish goes to `SwarmActions`. Invariant: `sessions` holds exactly
 * those given out by `incoming` and `outgoing` and not yet taken back by `disconnected`; an id is reused after that.
 */
import { assert, PeerFault } from "../errors.ts";
import { type PieceIndex, pieceIndex } from "../units.ts";
import { addressKey, type PeerAddress } from "../wire/address.ts";
import { Bitfield } from "../wire/bitfield.ts";
import { HANDSHAKE_EXTENDED_ID } from "../wire/extensions.ts";
import { equalBytes } from "../wire/handshake.ts";
import type { CloseKind, PeerOrigin, SessionBuffers, SwarmActions } from "./actions.ts";
import { Dialling } from "./dialling.ts";
import { Download, type DownloadHost, type PackedBlock } from "./download.ts";
import { Extensions, readHandshake } from "./extensions.ts";
import { Line } from "./line.ts";
import { impatienceWith } from "./patience.ts";
import { banKeyOf, Peers } from "./peers.ts";
import { dialAddress, Pex } from "./pex.ts";
import { Picker } from "./picker.ts";
import {
  KEEP_ALIVE_MS,
  OUTBOX_BYTES_MIN,
  type SwarmOptions,
  TICK_MS,
  UNIT_BYTES,
  USELESS_MS,
  SILENT_GRACE_MS,
} from "./policy.ts";
import { Phase, Session } from "./session.ts";
import { Uploads } from "./uploads.ts";
import type { SessionEvents } from "./session-events.ts";

export class Swarm implements SessionEvents, DownloadHost {
  readonly sessions: Session[] = [];
  readonly picker: Picker;
  readonly peers: Peers;
  /** Bytes of pieces that are not proven yet. */
  bytesLeft: number;
  uploadedBytes = 0;
  /** Our line, as far as payload shows it. */
  readonly receiving: Line;
  readonly sending: Line;
  /** Time of the event being handled. */
  nowMs = 0;
  private readonly have: Bitfield;
  private readonly download: Download;
  private readonly uploads: Uploads;
  private readonly extensions: Extensions;
  private readonly dialling: Dialling;
  private readonly byId: (Session | null)[] = [];
  /** Every piece we have, in the order of completion: each session has a cursor into it and is told the rest. */
  private readonly completed: Int32Array;
  private lastTickMs = -1;
  private shutDown = false;

  constructor(
    private readonly options: SwarmOptions,
    private readonly actions: SwarmActions,
    /** Pieces proven before; copied. */
    initialHave: Bitfield,
  ) {
    const { pieceCount, random } = options;
    assert(initialHave.length === pieceCount, "what we have counts the pieces of the torrent");
    assert(
      (options.slabBytes & (options.slabBytes - 1)) === 0 && options.slabBytes >= UNIT_BYTES,
      "slabs are a power of two",
    );
    assert(options.blockBytesMax >= UNIT_BYTES && options.blockBytesMax <= options.slabBytes, "a block fits a slab");
    this.receiving = new Line(options.sliceBytesMin);
    this.sending = new Line(options.sliceBytesMin);
    this.have = Bitfield.fromWire(initialHave.toWire(), pieceCount);
    this.completed = new Int32Array(pieceCount);
    const sessionsMax = options.dialMax + options.acceptMax + SESSIONS_SPARE;
    this.picker = new Picker({ ...options, sessionsMax }, this.have);
    this.peers = new Peers(random);
    this.dialling = new Dialling(options.dialMax, this.peers, actions, this);
    this.download = new Download(options, this.picker, this.have, actions, this);
    this.uploads = new Uploads(options, this, this.have.all, sessionsMax);
    const pex = options.isPrivate ? null : new Pex(this.sessions);
    this.extensions = new Extensions({ ...options, wantsMetadata: false }, pex);
    this.bytesLeft = options.totalBytes;
    let count = 0;
    for (let piece = 0; piece < pieceCount; piece++) {
      if (!this.have.has(piece)) continue;
      this.completed[count++] = piece;
      this.bytesLeft -= this.picker.pieceLength(piece);
    }
  }

  // ---------------------------------------------------------------- for the host to read

  get haveCount(): number {
    return this.have.count;
  }

  get downloadedBytes(): number {
    return this.download.receivedBytes;
  }

  /** Sessions whose handshake is done. */
  get peerCount(): number {
    let count = 0;
    for (const session of this.sessions) if (session.isOpen) count++;
    return count;
  }

  /** Somebody is connected who has something that we lack. */
  get hasSource(): boolean {
    return this.sessions.some((session) => session.isOpen && session.source.lackedCount > 0);
  }

  // ---------------------------------------------------------------- connections

  /** A connection was accepted. Null: no place, or banned; the host closes it at once. */
  incoming(nowMs: number, address: PeerAddress, buffers: SessionBuffers): Session | null {
    this.nowMs = nowMs;
    if (this.shutDown || this.peers.isBanned(address.host)) return null;
    let accepted = 0;
    for (const session of this.sessions) if (!session.outgoing) accepted++;
    if (accepted >= this.options.acceptMax) {
      this.evictUseless();
      // The one evicted counts until the host is done with it: a few more places bridge that.
      if (accepted >= this.options.acceptMax + SESSIONS_SPARE / 2 || this.liveAccepted() >= this.options.acceptMax)
        return null;
    }
    return this.addSession(address, false, buffers);
  }

  /** A connection that was asked for by `dial` stands. */
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

  /** Bytes for the control part arrived: at most `controlWanted` of the session. The view is read during the call only. */
  receivedControl(nowMs: number, session: Session, bytes: Uint8Array): void {
    this.nowMs = nowMs;
    if (session.phase === Phase.closing) return;
    session.lastReceivedMs = nowMs;
    try {
      session.takeControl(bytes);
    } catch (error) {
      if (!(error instanceof PeerFault)) throw error;
      const kind = session.triedEncryption ? "encrypted" : session.wrongTorrent ? "wrong-torrent" : "fault";
      this.drop(session, kind, error.message);
    }
    if (session.isOpen && session.outstandingBytes < session.source.budgetBytes) this.download.requests.refill(session);
  }

  /** `lengthBytes` of the payload due landed where payload* said. */
  receivedPayload(nowMs: number, session: Session, lengthBytes: number): void {
    this.nowMs = nowMs;
    session.lastReceivedMs = nowMs;
    this.receiving.carried(nowMs, lengthBytes);
    this.download.payloadArrived(session, lengthBytes);
    session.takePayload(lengthBytes);
    if (session.payloadLength === 0) this.download.requests.refill(session);
  }

  /**
   * A packed block that was received was inflated to the block that it is said to be, or (`isGood` false) could not
   * be: then whoever sent it is banned, and the block is fetched again. The session may be gone meanwhile.
   */
  inflated(nowMs: number, block: PackedBlock, isGood: boolean): void {
    this.nowMs = nowMs;
    this.download.inflated(block, isGood);
    if (!isGood) this.ban(block.banKey, block.piece);
    this.download.requests.refillOthers();
  }

  /** The answer to outstanding request i may be received before its header was seen: nobody else has or gets that block. */
  mayLand(session: Session, i: number): boolean {
    return this.download.mayLand(session, i);
  }

  /** The connection is over and the kernel is done with its buffers. */
  disconnected(nowMs: number, session: Session): void {
    this.nowMs = nowMs;
    assert(this.byId[session.id] === session, "a session is disconnected once");
    if (session.phase !== Phase.closing) {
      this.actions.report({ kind: "peer-dropped", address: session.address, reason: null });
      session.phase = Phase.closing;
    }
    this.uploads.gone(session);
    this.download.sourceGone(session);
    this.byId[session.id] = null;
    this.sessions.splice(this.sessions.indexOf(session), 1);
    const address = dialAddress(session);
    if (address !== null && !this.isConnected(address)) this.peers.disconnected(nowMs, address);
    this.uploads.fill();
    this.dialMore();
  }

  // ---------------------------------------------------------------- serving

  /** Takes upload 0 off the queue and appends its header as the outbox's last bytes; does nothing where there is no room. `packedBytes` above 0: it goes out packed. */
  uploadStarted(nowMs: number, session: Session, packedBytes = 0): void {
    this.nowMs = nowMs;
    const piece = session.uploadPiece(0);
    const lengthBytes = session.uploadLength(0);
    if (!session.startUpload(packedBytes)) return;
    this.uploads.started(session, piece, lengthBytes);
  }

  /** Payload that `uploadStarted` announced was sent. */
  uploadSent(nowMs: number, session: Session, lengthBytes: number): void {
    this.nowMs = nowMs;
    this.uploadedBytes += lengthBytes;
    this.sending.carried(nowMs, lengthBytes);
    this.uploads.sent(session, lengthBytes);
  }

  // ---------------------------------------------------------------- pieces

  /** The hash was right and all of the piece is written. */
  pieceVerified(nowMs: number, piece: PieceIndex): void {
    this.nowMs = nowMs;
    assert(this.have.set(piece), "a piece is verified once");
    this.completed[this.have.count - 1] = piece;
    this.bytesLeft -= this.picker.pieceLength(piece);
    this.download.verified(piece);
    for (const session of this.sessions) if (this.isNews(session, piece)) this.writeHaves(session);
    if (this.have.all) this.completedAll();
    else this.download.requests.refillOthers();
  }

  /** The hash was wrong: the piece is fetched again. */
  pieceFailed(nowMs: number, piece: PieceIndex): void {
    this.nowMs = nowMs;
    this.download.failed(piece);
  }

  /** `reserve` may say yes again. */
  memoryFreed(nowMs: number): void {
    this.nowMs = nowMs;
    this.download.requests.memoryFreed();
  }

  // ---------------------------------------------------------------- time and addresses

  addPeers(nowMs: number, addresses: PeerAddress[], origin: PeerOrigin): void {
    this.nowMs = nowMs;
    if (origin === "pex" && this.options.isPrivate) return;
    for (const address of addresses) this.peers.add(address, origin);
    this.dialMore();
  }

  tick(nowMs: number): void {
    this.nowMs = nowMs;
    const intervalMs = this.lastTickMs < 0 ? TICK_MS : Math.max(1, nowMs - this.lastTickMs);
    this.lastTickMs = nowMs;
    for (let i = this.sessions.length - 1; i >= 0; i--) this.checkTimes(this.sessions[i]);
    this.download.tick(intervalMs);
    this.uploads.tick();
    for (const session of this.sessions) {
      this.writeHaves(session);
      if (session.isOpen) this.extensions.flush(nowMs, session);
    }
    this.dialMore();
  }

  /** When the swarm wishes to be ticked next, absolute. */
  nextTickMs(): number {
    return this.lastTickMs < 0 ? 0 : this.lastTickMs + TICK_MS;
  }

  /** Closes every session and dials no more. */
  shutdown(nowMs: number): void {
    this.nowMs = nowMs;
    this.shutDown = true;
    this.dialling.end();
    for (const session of this.sessions) this.drop(session, "shutdown", "this peer ends");
  }

  // ---------------------------------------------------------------- SessionEvents

  opened(session: Session): void {
    const peerId = session.remotePeerId!;
    session.banKey = banKeyOf(session.address, peerId);
    if (equalBytes(peerId, this.options.peerId)) {
      if (session.outgoing) this.peers.markSelf(session.address);
      return this.drop(session, "self", "connected to ourselves");
    }
    if (this.peers.isBanned(session.banKey)) return this.drop(session, "banned", "sent bad data before");
    if (this.isDuplicate(session)) return;
    session.source.suspected = this.peers.isSuspected(session.banKey);
    if (session.outgoing) this.peers.proven(session.address);
    // Told as having nothing where the bitfield did not fit: then the cursor starts at the first piece.
    if (session.writeHaveState(this.have)) session.haveCursor = this.have.count;
    this.extensions.opened(session, this.download.finished);
    this.writeHaves(session);
    this.actions.report({
      kind: "peer-connected",
      address: session.address,
      client: clientOf(peerId),
      outgoing: session.outgoing,
    });
  }

  remoteHas(session: Session, piece: number): void {
    if (!session.isOpen) return;
    this.download.sourceHas(session, piece);
    this.uploads.remoteHas(session, piece);
    this.checkSeeds(session);
  }

  remoteHasSet(session: Session): void {
    if (!session.isOpen) return;
    this.download.sourceHasSet(session);
    this.uploads.remoteHasSet(session);
    this.checkSeeds(session);
  }

  remoteChoked(session: Session): void {
    if (session.isOpen) this.download.choked(session);
  }

  remoteUnchoked(session: Session): void {
    if (session.isOpen) this.download.unchoked(session);
  }

  remoteInterestChanged(session: Session): void {
    if (!session.isOpen) return;
    this.uploads.interestChanged(session);
  }

  uploadQueued(session: Session, piece: number): void {
    this.uploads.queued(session, piece, this.picker.pieceLength(piece));
  }

  weHave(piece: number): boolean {
    return this.have.has(piece);
  }

  blockArriving(session: Session, piece: number, begin: number, length: number): boolean {
    return this.download.blockArriving(session, piece, begin, length);
  }

  blockReceived(session: Session): void {
    this.download.blockReceived(session);
  }

  packedReceived(session: Session): void {
    this.download.packedReceived(session);
  }

  rejected(session: Session, piece: number, begin: number, length: number, ours: boolean): void {
    this.download.rejected(session, piece, begin, length, ours);
  }

  suggested(session: Session, piece: number): void {
    this.download.suggested(session, piece);
  }

  extended(session: Session, extendedId: number, payload: Uint8Array): void {
    if (!session.isOpen) return;
    if (extendedId !== HANDSHAKE_EXTENDED_ID) {
      this.extensions.received(this.nowMs, session, extendedId, payload, (found) =>
        this.addPeers(this.nowMs, found, "pex"),
      );
      return;
    }
    const { ourHost } = readHandshake(session, payload);
    if (ourHost !== null) this.dialling.learnOwn(ourHost);
    const address = dialAddress(session);
    if (address !== null && !session.outgoing) this.peers.connected(address, "pex");
    if (address !== null && session.isSeed) this.peers.markSeed(address);
    this.extensions.flush(this.nowMs, session);
    this.dialMore();
  }

  room(session: Session): void {
    if (!session.isOpen) return;
    session.flushState();
    if (session.slot.havesWaitForRoom) this.writeHaves(session);
    if (session.ext.metadataWanted.length > 0) this.extensions.flush(this.nowMs, session);
    if (!session.source.waitsForRoom) return;
    session.source.waitsForRoom = false;
    this.download.requests.refill(session);
  }

  wake(session: Session): void {
    this.actions.wake(session);
  }

  // ---------------------------------------------------------------- DownloadHost

  drop(session: Session, kind: CloseKind, text: string): void {
    if (session.phase === Phase.closing) return;
    session.phase = Phase.closing;
    const reason = { kind, text };
    this.actions.report({ kind: "peer-dropped", address: session.address, reason });
    this.actions.close(session, reason);
  }

  ban(banKey: string, piece: number): void {
    this.peers.ban(banKey);
    for (const session of this.sessions) {
      if (session.banKey !== banKey) continue;
      this.actions.report({ kind: "banned", address: session.address, piece: pieceIndex(piece) });
      // It may come back under another peer id; at least it is not called again.
      const address = dialAddress(session);
      if (address !== null) this.peers.ban(addressKey(address));
      this.drop(session, "banned", `sent bad data for piece ${piece}`);
    }
  }

  suspect(banKey: string): void {
    this.peers.suspect(banKey);
    for (const session of this.sessions) if (session.banKey === banKey) session.source.suspected = true;
  }

  clear(banKey: string): void {
    if (!this.peers.isSuspected(banKey)) return;
    this.peers.clear(banKey);
    for (const session of this.sessions) if (session.banKey === banKey) session.source.suspected = false;
  }

  // ---------------------------------------------------------------- inside

  private addSession(address: PeerAddress, outgoing: boolean, buffers: SessionBuffers): Session {
    assert(buffers.outbox.length >= OUTBOX_BYTES_MIN, "an outbox has its least size");
    let id = this.byId.indexOf(null);
    if (id < 0) id = this.byId.push(null) - 1;
    const session = new Session(id, address, outgoing, buffers.outbox, this.options, this);
    this.byId[id] = session;
    this.sessions.push(session);
    return session;
  }

  private liveAccepted(): number {
    let count = 0;
    for (const session of this.sessions) if (!session.outgoing && session.phase !== Phase.closing) count++;
    return count;
  }

  /** A connection in which nobody has wanted anything for a while gives its place to a newcomer. */
  private evictUseless(): void {
    let worst: Session | null = null;
    for (const session of this.sessions) {
      const graceMs = session.phase === Phase.handshake ? SILENT_GRACE_MS : USELESS_MS;
      if (session.outgoing || session.phase === Phase.closing || this.nowMs - session.uselessSinceMs < graceMs)
        continue;
      if (worst === null || session.uselessSinceMs < worst.uselessSinceMs) worst = session;
    }
    if (worst !== null) this.drop(worst, "full", "gave its place to a newcomer");
  }

  /** Both ends keep the connection that the peer with the smaller id dialled; of two dialled by the same end, the older. */
  private isDuplicate(session: Session): boolean {
    const peerId = session.remotePeerId!;
    for (const other of this.sessions) {
      if (other === session || !other.isOpen || !equalBytes(other.remotePeerId!, peerId)) continue;
      const weAreSmaller = compareBytes(this.options.peerId, peerId) < 0;
      const newIsPreferred = other.outgoing !== session.outgoing && session.outgoing === weAreSmaller;
      this.drop(newIsPreferred ? other : session, "duplicate", "connected to this peer already");
      return !newIsPreferred;
    }
    return false;
  }

  private isConnected(address: PeerAddress): boolean {
    const key = addressKey(address);
    return this.sessions.some((session) => {
      const theirs = dialAddress(session);
      return theirs !== null && addressKey(theirs) === key;
    });
  }

  /**
   * The session is to hear at once that we have a piece. One of our own kind that has it too does not begin anything
   * for it, and is told with what is news to it, or at the next tick: half of all messages would be such ones. A seeder
   * goes by them in what it suggests.
   */
  private isNews(session: Session, piece: PieceIndex): boolean {
    return !session.isOurs || session.isSeed || this.have.all || !session.remoteHave.has(piece);
  }

  private writeHaves(session: Session): void {
    if (!session.isOpen) return;
    while (session.haveCursor < this.have.count && session.writeHave(this.completed[session.haveCursor]))
      session.haveCursor++;
    session.slot.havesWaitForRoom = session.haveCursor < this.have.count;
  }

  /** Two complete peers have nothing to say to each other. */
  private checkSeeds(session: Session): void {
    if (!session.isSeed) return;
    const address = dialAddress(session);
    if (address !== null) this.peers.markSeed(address);
    if (this.download.finished && session.haveCursor === this.have.count)
      this.drop(session, "seed-to-seed", "both have everything");
  }

  private completedAll(): void {
    this.dialling.end();
    this.actions.report({ kind: "complete" });
    for (const session of this.sessions) {
      if (!session.isOpen) continue;
      this.download.requests.updateInterest(session);
      this.checkSeeds(session);
    }
  }

  private checkTimes(session: Session): void {
    if (session.phase === Phase.closing) return;
    const silentMs = this.nowMs - session.lastReceivedMs;
    if (session.phase === Phase.handshake) {
      // Nothing has moved uselessSinceMs since the connection was made.
      if (this.nowMs - session.uselessSinceMs >= this.options.handshakeTimeoutMs)
        this.drop(session, "timeout", "no handshake");
      return;
    }
    if (silentMs >= this.options.idleTimeoutMs) return this.drop(session, "idle", "silent for too long");
    const impatience = impatienceWith(session, this.nowMs);
    if (impatience !== null) return this.drop(session, impatience.kind, impatience.text);
    if (this.nowMs - session.lastSentMs >= KEEP_ALIVE_MS) session.writeKeepAlive();
    // One of our own kind is interested only while it would begin a piece at once.
    const isOfUse = session.amInterested || session.peerInterested || session.source.lackedCount > 0;
    if (isOfUse) session.uselessSinceMs = this.nowMs;
    this.checkSeeds(session);
  }

  private dialMore(): void {
    this.dialling.fill(!this.download.finished);
  }
}

/** Sessions beyond the limits that may exist while the host is closing others. */
const SESSIONS_SPARE = 8;

/** Client and version as peer ids spell them, for example `-DS0010-`; what is no printable ASCII becomes a dot. */
function clientOf(peerId: Uint8Array): string {
  return String.fromCharCode(...peerId.subarray(0, 8)).replace(/[^!-~]/g, ".");
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return 0;
}
