/**
 * One remote peer: handshake, frames, what each side may do, and the queues between them.
 *
 * Invariant: frames are read only while no payload is due; a payload is due exactly while payloadLength > 0, and
 * then (piece, begin, length) says where it goes, claimed by this session alone unless payloadDiscard. What has to
 * be sent is kept as state (flags, rings, cursors) and written when the outbox has room, so a remote peer that does
 * not read costs a bounded amount. Nothing is decided here: what others must know is told to `SessionEvents`.
 *
 * Faults of the remote peer are thrown as PeerFault; the session is then closed by its swarm and never fed again.
 * The outbox belongs to the host; views given in are read during the call only.
 */
import { assert, PeerFault } from "../errors.ts";
import { BLOCK_BYTES, REQUESTS_OUTSTANDING_DEFAULT, REQUESTS_QUEUED_MAX } from "../limits.ts";
import type { PeerAddress } from "../wire/address.ts";
import { Bitfield } from "../wire/bitfield.ts";
import * as frames from "../wire/frames.ts";
import { equalBytes, HANDSHAKE_BYTES, HandshakeReader, writeHandshake } from "../wire/handshake.ts";
import { BlockRing } from "./block-ring.ts";
import { REQUESTS_OUTSTANDING_MAX, UNREQUESTED_BLOCKS_MAX } from "./policy.ts";
import { BLOCK_HEADER_BYTES_MAX, FrameOutbox } from "./frame-outbox.ts";
import type { SessionConfig, SessionEvents } from "./session-events.ts";
import { ExtensionState, SlotState, SourceState } from "./session-state.ts";

/** Below this much room nothing more is read: what is read may need an answer. */
const ANSWER_ROOM_BYTES = 64;

export const enum Phase {
  handshake,
  open,
  /** Given to the host to be closed; ends with `disconnected`. */
  closing,
}

export class Session extends FrameOutbox implements frames.FrameHandler {
  /** The host's connection object. */
  userData: unknown = null;
  phase = Phase.handshake;
  /** BEP 10 is offered by both sides. */
  extensions = false;
  remotePeerId: Uint8Array | null = null;
  /** What the remote peer has. */
  remoteHave: Bitfield;

  /** The remote peer chokes us; we are interested (what we want it to know, and what it was told). */
  peerChoking = true;
  amInterested = false;
  private toldInterested = false;
  /** We choke the remote peer (likewise); it is interested. */
  amChoking = true;
  private toldChoking = true;
  private grantsToTell = 0;
  peerInterested = false;

  /** Our requests that were neither answered nor rejected. */
  readonly outstanding = new BlockRing(REQUESTS_OUTSTANDING_MAX);
  outstandingBytes = 0;
  /** Requests that the remote peer queues at most (BEP 10 `reqq`), and the longest block it serves. */
  requestsMax = REQUESTS_OUTSTANDING_DEFAULT;
  blockBytes = BLOCK_BYTES;
  /** The remote peer is of our own kind: it offered `ds_block`. */
  isOurs = false;
  /** Of our own network (rack, room): between networks the way may be narrower. */
  isNear = false;
  /** The extended id under which the remote peer takes packed blocks; 0: it does not. */
  packedId = 0;
  /** The remote peer's requests to serve, and those to be rejected. */
  private readonly uploads = new BlockRing(REQUESTS_QUEUED_MAX);
  private readonly rejects = new BlockRing(2 * REQUESTS_QUEUED_MAX);

  payloadPiece = -1;
  payloadBegin = 0;
  /** Bytes of the block whose payload is due; 0: none. */
  payloadLength = 0;
  /** Bytes of payload on the wire: less than payloadLength where the block comes packed. */
  payloadBytes = 0;
  payloadReceived = 0;
  payloadDiscard = false;

  /** What the parts of the swarm keep about this session. */
  readonly source = new SourceState();
  readonly slot = new SlotState();
  readonly ext = new ExtensionState();
  /** Under which it is banned and held to account: its host, or its peer id where many share the host. */
  banKey = "";
  /** HAVE messages written so far, as a position in the swarm's log of completed pieces. */
  haveCursor = 0;

  lastReceivedMs: number;
  lastSentMs: number;
  /** Since when neither side wants anything of the other. */
  uselessSinceMs: number;
  downloadedBytes = 0;
  uploadedBytes = 0;

  private readonly handshakeReader = new HandshakeReader();
  private readonly reader: frames.FrameReader;
  /** The handshake is written (or may no longer be). */
  private handshakeWritten = false;
  /** A message that must follow "what I have" arrived. */
  private haveStateKnown = false;
  /** A piece header was read and its payload not yet decided on. */
  private headerPending = false;
  private unrequestedBlocks = 0;
  /** Messages that changed nothing for anybody, since the swarm last looked. */
  futileFrames = 0;
  /** Blocks that may still arrive though their requests were cancelled or given up. */
  private cancelledBlocks = 0;

  constructor(
    readonly id: number,
    readonly address: PeerAddress,
    readonly outgoing: boolean,
    outboxBuffer: Uint8Array,
    private readonly config: SessionConfig,
    private readonly events: SessionEvents,
  ) {
    super(outboxBuffer);
    this.reader = new frames.FrameReader(config.pieceCount, this, config.packedBlocks);
    this.remoteHave = new Bitfield(config.pieceCount ?? 0);
    this.lastReceivedMs = events.nowMs;
    this.lastSentMs = events.nowMs;
    this.uselessSinceMs = events.nowMs;
    if (outgoing) this.writeHandshake();
  }

  /** The payload that is due is a packed block's. */
  get payloadPacked(): boolean {
    return this.payloadBytes < this.payloadLength;
  }

  get isOpen(): boolean {
    return this.phase === Phase.open;
  }

  /** The remote peer has every piece. */
  get isSeed(): boolean {
    return this.config.pieceCount !== null && this.remoteHave.all;
  }

  // ---------------------------------------------------------------- the host's side

  /** Gives the filled outbox back to the host and takes `other`, empty. Returns the bytes to send from the old one. */
  swapOutbox(other: Uint8Array): number {
    const lengthBytes = this.out.lengthBytes;
    this.out.buffer = other;
    this.out.lengthBytes = 0;
    if (lengthBytes > 0) this.lastSentMs = this.events.nowMs;
    if (this.phase !== Phase.closing) this.events.room(this);
    return lengthBytes;
  }

  /**
   * Most bytes the host may receive into its control buffer next, so that no payload lands there. 0 while payload
   * is due, while the session closes, or while the outbox is too full to answer (ask again after sending).
   */
  controlWanted(): number {
    if (this.phase === Phase.closing || this.payloadLength > 0 || this.room < ANSWER_ROOM_BYTES) return 0;
    if (this.phase === Phase.handshake) return this.handshakeReader.wanted;
    if (this.rejects.count > REQUESTS_QUEUED_MAX / 2) return 0;
    const mayRequest = !this.peerChoking && this.amInterested;
    return this.reader.controlWanted(mayRequest || this.outstanding.count > 0 || this.cancelledBlocks > 0);
  }

  /**
   * Blocks may be received together with the headers before them: what comes next is payload or begins with a header,
   * and there is room to answer whatever else may stand in between.
   */
  get expectsBlocks(): boolean {
    if (this.phase !== Phase.open || this.room < ANSWER_ROOM_BYTES) return false;
    return this.rejects.count <= REQUESTS_QUEUED_MAX / 2 && (this.payloadLength > 0 || this.reader.atFrameStart);
  }

  /** Of bytes that were received already: most that can be fed next without payload among them. */
  get frameBytesWanted(): number {
    return this.reader.controlWanted(true);
  }

  /** Requests to serve now, oldest first: what is queued, in its turn. */
  get uploadCount(): number {
    return this.slot.hasTurn ? this.queuedCount : 0;
  }

  /** Requests of the remote peer that wait, in their turn or not; `uploadPiece` and the others name them. */
  get queuedCount(): number {
    return this.phase === Phase.open ? this.uploads.count : 0;
  }

  uploadPiece(i: number): number {
    return this.uploads.piece(i);
  }

  uploadBegin(i: number): number {
    return this.uploads.begin(i);
  }

  uploadLength(i: number): number {
    return this.uploads.length(i);
  }

  // ---------------------------------------------------------------- fed by the swarm

  /** Takes control bytes. Payload among them (the host read on although none was wanted) is thrown away and asked for again. */
  takeControl(bytes: Uint8Array): void {
    let at = 0;
    if (this.phase === Phase.handshake) at = this.takeHandshake(bytes);
    while (at < bytes.length && this.phase === Phase.open) {
      if (this.payloadLength > 0) {
        assert(this.payloadDiscard, "wanted payload never comes with control bytes");
        const taken = Math.min(bytes.length - at, this.payloadBytes - this.payloadReceived);
        this.takePayload(taken);
        at += taken;
        continue;
      }
      at += this.reader.push(bytes, at);
      if (this.headerPending) this.beginPayload(at < bytes.length);
    }
  }

  /** `lengthBytes` of the payload landed where payload* said. */
  takePayload(lengthBytes: number): void {
    assert(lengthBytes > 0 && lengthBytes <= this.payloadBytes - this.payloadReceived, "payload is due");
    this.reader.payloadReceived(lengthBytes);
    this.payloadReceived += lengthBytes;
    if (this.payloadReceived < this.payloadBytes) return;
    if (!this.payloadDiscard) {
      if (this.payloadPacked) this.events.packedReceived(this);
      else this.events.blockReceived(this);
    }
    this.payloadLength = 0;
    this.payloadBytes = 0;
    this.payloadReceived = 0;
    this.payloadDiscard = false;
  }

  /** Takes upload 0 off the queue and writes its header, as the last bytes of the outbox; its payload follows on the wire: the block, or `packedBytes` that inflate to it where that is above 0. Returns false, and does nothing, where there is no room. */
  startUpload(packedBytes = 0): boolean {
    assert(this.uploadCount > 0, "an upload waits");
    const { buffer, lengthBytes } = this.out;
    if (buffer.length - lengthBytes < BLOCK_HEADER_BYTES_MAX) return false;
    const piece = this.uploads.piece(0);
    const begin = this.uploads.begin(0);
    const length = this.uploads.length(0);
    assert(packedBytes === 0 || (this.packedId > 0 && packedBytes < length), "packed is asked for, and less");
    this.out.lengthBytes =
      packedBytes === 0
        ? frames.writePieceHeader(buffer, lengthBytes, piece, begin, length)
        : frames.writePackedHeader(buffer, lengthBytes, this.packedId, piece, begin, length, packedBytes);
    this.uploads.shift();
    return true;
  }

  // ---------------------------------------------------------------- what we do

  request(piece: number, begin: number, length: number): void {
    this.out.lengthBytes = frames.writeRequest(this.out.buffer, this.out.lengthBytes, piece, begin, length);
    this.outstanding.push(piece, begin, length);
    this.outstandingBytes += length;
    this.wake();
  }

  /** Takes outstanding request i back. A block that arrives for it all the same is thrown away. */
  cancel(i: number): void {
    const ring = this.outstanding;
    this.writeCancel(ring.piece(i), ring.begin(i), ring.length(i));
    this.cancelledBlocks++;
    this.forgetRequest(i);
  }

  /** Forgets outstanding request i: answered, rejected, or dropped by a choke without BEP 6. */
  forgetRequest(i: number): void {
    this.outstandingBytes -= this.outstanding.length(i);
    this.outstanding.removeAt(i);
  }

  setInterested(interested: boolean): void {
    this.amInterested = interested;
    this.flushState();
  }

  /** Without BEP 6 the queued requests are dropped by the choke itself, with it each one is rejected. */
  choke(): void {
    this.amChoking = true;
    while (this.uploads.count > 0) {
      if (this.fast) this.reject(this.uploads.piece(0), this.uploads.begin(0), this.uploads.length(0));
      this.uploads.shift();
    }
    this.flushState();
  }

  unchoke(): void {
    assert(this.canUnchoke, "an unchoke follows a choke that was told");
    this.amChoking = false;
    this.flushState();
  }

  /** Lets a peer of our own kind begin a piece. */
  grant(): void {
    this.amChoking = false;
    this.grantsToTell++;
    this.flushState();
  }

  /** The choke before was told and its rejects are written: else a request could be answered twice. */
  get canUnchoke(): boolean {
    return this.toldChoking && this.rejects.count === 0;
  }

  /** Writes choke, rejects, unchoke and interest as far as there is room; the rest follows when there is. */
  flushState(): void {
    if (this.phase !== Phase.open) return;
    if (this.amChoking && !this.toldChoking && this.room >= frames.STATE_FRAME_BYTES) {
      this.toldChoking = true;
      this.wrote(frames.writeChoke(this.out.buffer, this.out.lengthBytes));
    }
    while (this.rejects.count > 0 && this.room >= frames.REQUEST_FRAME_BYTES) {
      const ring = this.rejects;
      this.writeReject(ring.piece(0), ring.begin(0), ring.length(0));
      ring.shift();
    }
    for (; this.grantsToTell > 0 && this.room >= frames.STATE_FRAME_BYTES; this.grantsToTell--) {
      this.toldChoking = false;
      this.wrote(frames.writeUnchoke(this.out.buffer, this.out.lengthBytes));
    }
    if (!this.amChoking && this.toldChoking && this.room >= frames.STATE_FRAME_BYTES) {
      this.toldChoking = false;
      this.wrote(frames.writeUnchoke(this.out.buffer, this.out.lengthBytes));
    }
    if (this.amInterested !== this.toldInterested && this.room >= frames.STATE_FRAME_BYTES) {
      this.toldInterested = this.amInterested;
      this.writeInterest(this.amInterested);
    }
  }

  /** Tells the host that there is something to do. */
  override wake(): void {
    if (this.phase !== Phase.closing) this.events.wake(this);
  }

  // ---------------------------------------------------------------- frames (FrameHandler)

  onKeepAlive(): void {}
  onChoke(): void {
    this.haveStateKnown = true;
    this.futileFrames++;
    if (this.peerChoking) return;
    this.peerChoking = true;
    this.events.remoteChoked(this);
  }

  onUnchoke(): void {
    this.haveStateKnown = true;
    if (!this.peerChoking && !this.isOurs) return;
    this.peerChoking = false;
    this.events.remoteUnchoked(this);
  }

  onInterested(): void {
    this.setPeerInterested(true);
  }
  onNotInterested(): void {
    this.setPeerInterested(false);
  }
  onHave(piece: number): void {
    this.haveStateKnown = true;
    if (this.config.pieceCount === null || !this.remoteHave.set(piece)) return void this.futileFrames++;
    this.events.remoteHas(this, piece);
  }

  onBitfield(body: Uint8Array): void {
    const told = Bitfield.fromWire(body, this.remoteHave.length);
    if (this.haveStateKnown) return this.addHave(told);
    this.haveStateKnown = true;
    this.remoteHave = told;
    this.events.remoteHasSet(this);
  }

  onHaveAll(): void {
    this.needFast("have-all");
    if (this.config.pieceCount === null) return;
    if (this.haveStateKnown) return this.addHave(Bitfield.full(this.remoteHave.length));
    this.haveStateKnown = true;
    this.remoteHave.setAll();
    this.events.remoteHasSet(this);
  }

  onHaveNone(): void {
    this.needFast("have-none");
    if (this.haveStateKnown) throw new PeerFault("have-none after other messages");
    this.haveStateKnown = true;
    this.events.remoteHasSet(this);
  }

  onRequest(piece: number, begin: number, length: number): void {
    this.haveStateKnown = true;
    if (this.config.pieceCount === null) return this.refuse(piece, begin, length);
    this.checkBlock("request", piece, begin, length);
    const slab = this.config.slabBytes;
    const crosses = Math.floor(begin / slab) !== Math.floor((begin + length - 1) / slab);
    if (this.amChoking || crosses || this.uploads.full || !this.events.weHave(piece))
      return this.refuse(piece, begin, length);
    this.uploads.push(piece, begin, length);
    this.events.uploadQueued(this, piece);
    this.wake();
  }

  onPieceHeader(piece: number, begin: number, length: number): void {
    this.haveStateKnown = true;
    this.payloadPiece = piece;
    this.payloadBegin = begin;
    this.payloadLength = length;
    this.payloadBytes = length;
    this.payloadReceived = 0;
    this.headerPending = true;
  }

  onPackedHeader(piece: number, begin: number, length: number, packedBytes: number): void {
    if (!this.extensions) throw new PeerFault("packed block without BEP 10");
    this.onPieceHeader(piece, begin, length);
    this.payloadBytes = packedBytes;
  }

  onCancel(piece: number, begin: number, length: number): void {
    this.futileFrames++;
    this.haveStateKnown = true;
    const at = this.uploads.find(piece, begin, length);
    if (at < 0) return;
    this.uploads.removeAt(at);
    if (this.fast) this.reject(piece, begin, length);
    this.flushState();
  }

  onSuggest(piece: number): void {
    this.needFast("suggest");
    this.haveStateKnown = true;
    if (this.config.pieceCount !== null) this.events.suggested(this, piece);
  }

  onReject(piece: number, begin: number, length: number): void {
    this.needFast("reject");
    this.haveStateKnown = true;
    const at = this.outstanding.find(piece, begin, length);
    if (at >= 0) {
      this.forgetRequest(at);
      this.events.rejected(this, piece, begin, length, false);
    } else if (this.cancelledBlocks > 0) this.cancelledBlocks--;
    else throw new PeerFault(`reject of a request that was not made: piece ${piece} at ${begin}`);
  }

  onAllowedFast(_piece: number): void {
    this.needFast("allowed-fast");
  }

  onExtended(extendedId: number, payload: Uint8Array): void {
    if (!this.extensions) throw new PeerFault("extended message without BEP 10");
    this.events.extended(this, extendedId, payload);
  }

  onUnknown(_id: number, _bodyBytes: number): void {}

  // ---------------------------------------------------------------- inside

  private writeHandshake(): void {
    assert(this.out.lengthBytes === 0 && this.out.buffer.length >= HANDSHAKE_BYTES, "the handshake comes first");
    this.handshakeWritten = true;
    // No wake: the host looks at a new session by itself, and at an accepted one what follows wakes it.
    this.out.lengthBytes = writeHandshake(this.out.buffer, 0, this.config.infoHash, this.config.peerId);
  }

  private takeHandshake(bytes: Uint8Array): number {
    const taken = this.handshakeReader.push(bytes);
    if (this.handshakeReader.hasInfoHash && !equalBytes(this.handshakeReader.infoHash, this.config.infoHash)) {
      throw new PeerFault("handshake for another torrent");
    }
    if (!this.handshakeReader.done) return taken;
    if (!this.handshakeWritten) this.writeHandshake();
    this.phase = Phase.open;
    this.wake();
    this.fast = this.handshakeReader.supportsFast;
    this.extensions = this.handshakeReader.supportsExtensions;
    this.remotePeerId = this.handshakeReader.peerId;
    this.events.opened(this);
    return taken;
  }

  /** The bytes were no plaintext handshake: most likely the remote peer tried encryption first. */
  get triedEncryption(): boolean {
    return this.handshakeReader.notPlaintext;
  }

  /** The handshake named another torrent. */
  get wrongTorrent(): boolean {
    return this.handshakeReader.hasInfoHash && !equalBytes(this.handshakeReader.infoHash, this.config.infoHash);
  }

  /** Decides where the payload of the header just read goes. */
  private beginPayload(payloadInControl: boolean): void {
    this.headerPending = false;
    const at = this.outstanding.find(this.payloadPiece, this.payloadBegin, this.payloadLength);
    if (at < 0) {
      this.payloadDiscard = true;
      if (this.cancelledBlocks > 0) this.cancelledBlocks--;
      else if (++this.unrequestedBlocks > UNREQUESTED_BLOCKS_MAX) throw new PeerFault("blocks that nobody asked for");
      return;
    }
    const { payloadPiece: piece, payloadBegin: begin, payloadLength: length } = this;
    this.forgetRequest(at);
    if (payloadInControl) {
      this.payloadDiscard = true;
      this.events.rejected(this, piece, begin, length, true);
    } else this.payloadDiscard = !this.events.blockArriving(this, piece, begin, length);
  }

  private setPeerInterested(interested: boolean): void {
    this.futileFrames++;
    this.haveStateKnown = true;
    if (this.peerInterested === interested) return;
    this.peerInterested = interested;
    this.events.remoteInterestChanged(this);
  }

  private refuse(piece: number, begin: number, length: number): void {
    // Without BEP 6 a request that crossed our choke is dropped without a word.
    if (this.fast) this.reject(piece, begin, length);
    else if (!this.amChoking)
      throw new PeerFault(`request that cannot be served: piece ${piece} at ${begin}, ${length} bytes`);
    this.flushState();
  }

  private reject(piece: number, begin: number, length: number): void {
    if (this.rejects.full) throw new PeerFault("requests on and on without reading the answers");
    this.rejects.push(piece, begin, length);
  }

  private checkBlock(what: string, piece: number, begin: number, length: number): void {
    const pieceBytes = Math.min(this.config.pieceBytes, this.config.totalBytes - piece * this.config.pieceBytes);
    if (length < 1 || length > this.config.blockBytesMax || begin + length > pieceBytes) {
      throw new PeerFault(`${what} out of bounds: piece ${piece} at ${begin}, ${length} bytes`);
    }
  }

  private needFast(what: string): void {
    if (!this.fast) throw new PeerFault(`${what} without BEP 6`);
  }

  /** BEP 3 allows a bitfield as the first message only; aria2 sends one instead of many haves at any time. */
  private addHave(told: Bitfield): void {
    for (let piece = 0; piece < told.length; piece++) if (told.has(piece)) this.onHave(piece);
  }
}
