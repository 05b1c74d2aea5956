/**
 * Reads frames from any cut of a stream and calls a handler for each; the payload of a block never comes here.
 *
 * Invariant: after the header of a piece message or of a packed block the reader takes no byte more until the host has reported the
 * payload (`payloadReceived`); `controlWanted` says how many bytes the host may receive so that none of a
 * payload lands in its control buffer. Fixed frames are read without allocating. Views handed to `onBitfield`
 * and `onExtended` are valid during the call only. A PeerFault leaves the reader unusable.
 */
import { assert, PeerFault } from "../errors.ts";
import { BLOCK_BYTES_MAX, EXTENDED_BYTES_MAX, FRAME_BYTES_MAX } from "../limits.ts";
import { bitfieldBytes } from "./bitfield.ts";
import {
  EXTENDED_OVERHEAD_BYTES,
  HAVE_FRAME_BYTES,
  MessageId,
  OUR_PACKED_ID,
  PACKED_HEADER_BYTES,
  PIECE_HEADER_BYTES,
  REQUEST_FRAME_BYTES,
  STATE_FRAME_BYTES,
} from "./frame-format.ts";

/** Receives what was read. Piece indexes are below the piece count; the rest of a block's range is for the session to check. */
export interface FrameHandler {
  onKeepAlive(): void;
  onChoke(): void;
  onUnchoke(): void;
  onInterested(): void;
  onNotInterested(): void;
  onHave(piece: number): void;
  /** Body of a bitfield of the right size; spare bits are unchecked (`Bitfield.fromWire` does). */
  onBitfield(body: Uint8Array): void;
  onRequest(piece: number, begin: number, length: number): void;
  /** A block's header; `length` bytes (1 to BLOCK_BYTES_MAX) of payload follow in the stream. */
  onPieceHeader(piece: number, begin: number, length: number): void;
  /** A packed block's header; `packedBytes` (1 to `length` - 1) of payload follow, which inflate to `length` bytes. */
  onPackedHeader(piece: number, begin: number, length: number, packedBytes: number): void;
  onCancel(piece: number, begin: number, length: number): void;
  onSuggest(piece: number): void;
  onHaveAll(): void;
  onHaveNone(): void;
  onReject(piece: number, begin: number, length: number): void;
  onAllowedFast(piece: number): void;
  /** Extended message with the id of our numbering; 0 is the handshake. */
  onExtended(extendedId: number, payload: Uint8Array): void;
  /** A message of an id that is not used here (the DHT's port, others' extensions); its body is skipped. */
  onUnknown(id: number, bodyBytes: number): void;
}

const LENGTH_BYTES = 4;
const ID_AT = 4;
const BODY_AT = 5;
/** Extended messages: where the payload begins, behind the extended id. */
const EXTENDED_BODY_AT = EXTENDED_OVERHEAD_BYTES;
/** A piece message with at least one byte of payload has this length prefix. */
const PIECE_LENGTH_MIN = 10;
/** A packed block with at least one byte of payload has this length prefix. */
const PACKED_LENGTH_MIN = PACKED_HEADER_BYTES - LENGTH_BYTES + 1;
/** Bitfield accepted and skipped while the piece count is unknown: 16 million pieces. */
const UNKNOWN_BITFIELD_BYTES_MAX = 2 * 1024 * 1024;
/** What a host may receive at once when no payload can come: more than any control buffer. */
const CONTROL_BYTES_MAX = 64 * 1024;
const NO_BYTES = new Uint8Array(0);

export class FrameReader {
  /** Bytes of payload that the host has still to take from the stream; the reader takes nothing while it is not 0. */
  payloadDue = 0;

  /** Start of the current frame: length, id, and the body of frames of fixed size. */
  private readonly head = new Uint8Array(PACKED_HEADER_BYTES);
  private held = 0;
  /** `held` at which the next decision can be made. */
  private wanted = LENGTH_BYTES;
  /** Length prefix of the current frame. */
  private frameLength = 0;
  /** Body of a bitfield or extended message: bytes of it in all (0: none is being read) and gathered so far. */
  private bodyBytes = 0;
  private bodyHeld = 0;
  private body = NO_BYTES;
  /** Bytes of an unknown message still to skip. */
  private skipBytes = 0;

  constructor(
    /** null: not known yet (metadata is being fetched); indexes are unchecked then and a bitfield is skipped. */
    private readonly pieceCount: number | null,
    private readonly handler: FrameHandler,
    /** Packed blocks were offered (`ds_zstd`); else one is an extended message like any other. */
    private readonly takesPacked = false,
  ) {}

  /**
   * Takes bytes [start, end) until they end or a piece header was read, and returns how many it took. Bytes not
   * taken are payload: the host counts them with `payloadReceived` and pushes what follows again.
   */
  push(input: Uint8Array, start = 0, end = input.length): number {
    assert(this.payloadDue === 0, "frames pushed while payload is due");
    let at = start;
    while (at < end && this.payloadDue === 0) {
      if (this.skipBytes > 0) at = this.skip(at, end);
      else if (this.bodyBytes > 0) at = this.takeBody(input, at, end);
      else at = this.takeHead(input, at, end);
    }
    return at - start;
  }

  /** The host took `lengthBytes` of the payload that is due. */
  payloadReceived(lengthBytes: number): void {
    assert(lengthBytes <= this.payloadDue, "more payload than was due");
    this.payloadDue -= lengthBytes;
  }

  /** The next byte is the first of a frame. */
  get atFrameStart(): boolean {
    return this.held === 0 && this.skipBytes === 0 && this.bodyBytes === 0 && this.payloadDue === 0;
  }

  /**
   * Most bytes that may be received next without payload among them. The header of a piece is 13 bytes, so
   * at a frame's start it is 13; inside a frame that is no piece, its rest and 13. Without requests outstanding
   * (`expectPayload` false) nothing has to be kept out of the control buffer and it is large.
   */
  controlWanted(expectPayload: boolean): number {
    if (this.payloadDue > 0) return 0;
    if (!expectPayload) return CONTROL_BYTES_MAX;
    if (this.skipBytes > 0) return this.skipBytes + PIECE_HEADER_BYTES;
    if (this.bodyBytes > 0) return this.bodyBytes - this.bodyHeld + PIECE_HEADER_BYTES;
    if (this.held < LENGTH_BYTES) return PIECE_HEADER_BYTES - this.held;
    const id = this.held > ID_AT ? this.head[ID_AT]! : -1;
    // A longer header than a piece's; before its extended id is there, any extended message may be one.
    if (id === MessageId.extended && this.mayBePacked) return PACKED_HEADER_BYTES - this.held;
    const isPiece = id < 0 ? this.frameLength >= PIECE_LENGTH_MIN : id === MessageId.piece;
    return isPiece ? PIECE_HEADER_BYTES - this.held : LENGTH_BYTES + this.frameLength - this.held + PIECE_HEADER_BYTES;
  }

  private skip(at: number, end: number): number {
    const taken = Math.min(this.skipBytes, end - at);
    this.skipBytes -= taken;
    return at + taken;
  }

  private takeHead(input: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && this.held < this.wanted) this.head[this.held++] = input[at++]!;
    if (this.held < this.wanted) return at;
    if (this.held === LENGTH_BYTES) this.onLength();
    else if (this.held === BODY_AT && this.wanted === BODY_AT) this.onId();
    else if (this.wanted === EXTENDED_BODY_AT) this.onExtendedId();
    else this.onFixedFrame();
    return at;
  }

  /** Takes a body, in place where it lies in one piece, else gathered in a buffer made for it. */
  private takeBody(input: Uint8Array, at: number, end: number): number {
    const missing = this.bodyBytes - this.bodyHeld;
    if (this.bodyHeld === 0 && end - at >= missing) {
      this.endBody(input.subarray(at, at + missing));
      return at + missing;
    }
    if (this.bodyHeld === 0) this.body = new Uint8Array(this.bodyBytes);
    const taken = Math.min(missing, end - at);
    this.body.set(input.subarray(at, at + taken), this.bodyHeld);
    this.bodyHeld += taken;
    if (taken === missing) this.endBody(this.body);
    return at + taken;
  }

  private onLength(): void {
    this.frameLength = this.uint32(0);
    if (this.frameLength === 0) {
      this.nextFrame();
      this.handler.onKeepAlive();
      return;
    }
    const lengthMax = Math.max(FRAME_BYTES_MAX, 1 + this.bitfieldBytesMax());
    if (this.frameLength > lengthMax)
      throw new PeerFault(`frame of ${this.frameLength} bytes, at most ${lengthMax} are accepted`);
    this.wanted = BODY_AT;
  }

  /** Length and id are known: checks that they fit each other and decides how the rest is read. */
  private onId(): void {
    switch (this.head[ID_AT]) {
      case MessageId.choke:
      case MessageId.unchoke:
      case MessageId.interested:
      case MessageId.notInterested:
      case MessageId.haveAll:
      case MessageId.haveNone:
        this.wantFixed(STATE_FRAME_BYTES);
        this.onFixedFrame();
        return;
      case MessageId.have:
      case MessageId.suggest:
      case MessageId.allowedFast:
        this.wantFixed(HAVE_FRAME_BYTES);
        return;
      case MessageId.request:
      case MessageId.cancel:
      case MessageId.reject:
        this.wantFixed(REQUEST_FRAME_BYTES);
        return;
      case MessageId.piece:
        this.wantPieceHeader();
        return;
      case MessageId.bitfield:
        this.wantBitfield();
        return;
      case MessageId.extended:
        if (this.frameLength < 2 || (!this.mayBePacked && this.isTooLong)) this.wrongLength();
        this.wanted = EXTENDED_BODY_AT;
        return;
      default:
        this.skipBody(FRAME_BYTES_MAX);
    }
  }

  private wantFixed(frameBytes: number): void {
    if (LENGTH_BYTES + this.frameLength !== frameBytes) this.wrongLength();
    this.wanted = frameBytes;
  }

  private wantPieceHeader(): void {
    const payloadBytes = this.frameLength - (PIECE_LENGTH_MIN - 1);
    if (payloadBytes < 1 || payloadBytes > BLOCK_BYTES_MAX) this.wrongLength();
    this.wanted = PIECE_HEADER_BYTES;
  }

  private wantBitfield(): void {
    if (this.pieceCount === null) {
      this.skipBody(1 + UNKNOWN_BITFIELD_BYTES_MAX);
      return;
    }
    if (this.frameLength !== 1 + bitfieldBytes(this.pieceCount)) this.wrongLength();
    this.bodyBytes = this.frameLength - 1;
  }

  /** A packed block has a head of its own; any other message has a body, which begins with the extended id. */
  private onExtendedId(): void {
    if (this.mayBePacked && this.head[BODY_AT] === OUR_PACKED_ID) {
      this.wanted = PACKED_HEADER_BYTES;
      return;
    }
    if (this.isTooLong) this.wrongLength();
    this.bodyBytes = this.frameLength - 1;
    this.body = new Uint8Array(this.bodyBytes);
    this.body[0] = this.head[BODY_AT]!;
    this.bodyHeld = 1;
    if (this.bodyBytes === 1) this.endBody(this.body);
  }

  /** For an extended message that is no packed block. */
  private get isTooLong(): boolean {
    return this.frameLength > 1 + EXTENDED_BYTES_MAX;
  }

  private get mayBePacked(): boolean {
    return this.takesPacked && this.frameLength >= PACKED_LENGTH_MIN;
  }

  private skipBody(lengthMax: number): void {
    if (this.frameLength > lengthMax) this.wrongLength();
    const id = this.head[ID_AT]!;
    const bodyBytes = this.frameLength - 1;
    this.skipBytes = bodyBytes;
    this.nextFrame();
    this.handler.onUnknown(id, bodyBytes);
  }

  /** A bitfield or extended message is complete. The buffer made for it is let go: such messages are rare. */
  private endBody(body: Uint8Array): void {
    const id = this.head[ID_AT];
    this.bodyBytes = 0;
    this.bodyHeld = 0;
    this.body = NO_BYTES;
    this.nextFrame();
    if (id === MessageId.bitfield) this.handler.onBitfield(body);
    else this.handler.onExtended(body[0]!, body.subarray(1));
  }

  private onFixedFrame(): void {
    const id = this.head[ID_AT]!;
    if (id === MessageId.extended) return this.onPackedHead();
    // The head keeps its bytes until the next push, so the reader is ready for the next frame before the call.
    this.nextFrame();
    switch (id) {
      case MessageId.choke:
        this.handler.onChoke();
        return;
      case MessageId.unchoke:
        this.handler.onUnchoke();
        return;
      case MessageId.interested:
        this.handler.onInterested();
        return;
      case MessageId.notInterested:
        this.handler.onNotInterested();
        return;
      case MessageId.haveAll:
        this.handler.onHaveAll();
        return;
      case MessageId.haveNone:
        this.handler.onHaveNone();
        return;
      case MessageId.have:
        this.handler.onHave(this.piece());
        return;
      case MessageId.suggest:
        this.handler.onSuggest(this.piece());
        return;
      case MessageId.allowedFast:
        this.handler.onAllowedFast(this.piece());
        return;
      case MessageId.request:
        this.handler.onRequest(this.piece(), this.uint32(9), this.uint32(13));
        return;
      case MessageId.cancel:
        this.handler.onCancel(this.piece(), this.uint32(9), this.uint32(13));
        return;
      case MessageId.reject:
        this.handler.onReject(this.piece(), this.uint32(9), this.uint32(13));
        return;
      default:
        assert(id === MessageId.piece, `message ${id} read as a fixed frame`);
        this.payloadDue = this.frameLength - (PIECE_LENGTH_MIN - 1);
        this.handler.onPieceHeader(this.piece(), this.uint32(9), this.payloadDue);
    }
  }

  private onPackedHead(): void {
    this.nextFrame();
    const packedBytes = this.frameLength - (PACKED_LENGTH_MIN - 1);
    const length = this.uint32(EXTENDED_BODY_AT + 8);
    if (length > BLOCK_BYTES_MAX || packedBytes >= length)
      throw new PeerFault(`packed block of ${packedBytes} bytes for ${length}`);
    const piece = this.piece(EXTENDED_BODY_AT);
    this.payloadDue = packedBytes;
    this.handler.onPackedHeader(piece, this.uint32(EXTENDED_BODY_AT + 4), length, packedBytes);
  }

  private nextFrame(): void {
    this.held = 0;
    this.wanted = LENGTH_BYTES;
  }

  private piece(at = BODY_AT): number {
    const piece = this.uint32(at);
    if (this.pieceCount !== null && piece >= this.pieceCount) {
      throw new PeerFault(`message ${this.head[ID_AT]} names piece ${piece} of ${this.pieceCount}`);
    }
    return piece;
  }

  private uint32(at: number): number {
    const head = this.head;
    return ((head[at]! << 24) | (head[at + 1]! << 16) | (head[at + 2]! << 8) | head[at + 3]!) >>> 0;
  }

  private bitfieldBytesMax(): number {
    return this.pieceCount === null ? UNKNOWN_BITFIELD_BYTES_MAX : bitfieldBytes(this.pieceCount);
  }

  private wrongLength(): never {
    throw new PeerFault(`message ${this.head[ID_AT]} with a length of ${this.frameLength}`);
  }
}
