/**
 * Writers for the messages of a connection (BEP 3, BEP 6, BEP 10), into a buffer of the caller; the reader stands
 * in `frame-reader.ts`, ids and sizes in `frame-format.ts`, and all of it is imported from here.
 *
 * Each writer writes one whole frame at `offset` and returns the offset after it. The caller has checked that
 * there is room: one that does not fit is a bug, because it would be cut silently.
 */
import { assert } from "../errors.ts";
import { type Bitfield, bitfieldBytes } from "./bitfield.ts";
import { KEEP_ALIVE_BYTES, MessageId, PACKED_HEADER_BYTES } from "./frame-format.ts";

export * from "./frame-format.ts";
export { type FrameHandler, FrameReader } from "./frame-reader.ts";

/** Bytes of a whole bitfield frame. */
export function bitfieldFrameBytes(pieceCount: number): number {
  return 5 + bitfieldBytes(pieceCount);
}

export function writeKeepAlive(target: Uint8Array, offset: number): number {
  assert(offset + KEEP_ALIVE_BYTES <= target.length, "no room for a keep-alive");
  return writeUint32(target, offset, 0);
}

export function writeChoke(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.choke);
}

export function writeUnchoke(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.unchoke);
}

export function writeInterested(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.interested);
}

export function writeNotInterested(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.notInterested);
}

export function writeHaveAll(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.haveAll);
}

export function writeHaveNone(target: Uint8Array, offset: number): number {
  return writeState(target, offset, MessageId.haveNone);
}

export function writeHave(target: Uint8Array, offset: number, piece: number): number {
  return writeIndex(target, offset, MessageId.have, piece);
}

export function writeSuggest(target: Uint8Array, offset: number, piece: number): number {
  return writeIndex(target, offset, MessageId.suggest, piece);
}

export function writeAllowedFast(target: Uint8Array, offset: number, piece: number): number {
  return writeIndex(target, offset, MessageId.allowedFast, piece);
}

export function writeRequest(target: Uint8Array, offset: number, piece: number, begin: number, length: number): number {
  return writeBlock(target, offset, MessageId.request, piece, begin, length);
}

export function writeCancel(target: Uint8Array, offset: number, piece: number, begin: number, length: number): number {
  return writeBlock(target, offset, MessageId.cancel, piece, begin, length);
}

export function writeReject(target: Uint8Array, offset: number, piece: number, begin: number, length: number): number {
  return writeBlock(target, offset, MessageId.reject, piece, begin, length);
}

/** The header of a piece message whose payload of `length` bytes follows from elsewhere. */
export function writePieceHeader(
  target: Uint8Array,
  offset: number,
  piece: number,
  begin: number,
  length: number,
): number {
  const after = start(target, offset, MessageId.piece, 8, 8 + length);
  return writeUint32(target, writeUint32(target, after, piece), begin);
}

export function writeBitfield(target: Uint8Array, offset: number, bitfield: Bitfield): number {
  const bodyBytes = bitfieldBytes(bitfield.length);
  return bitfield.writeWire(target, start(target, offset, MessageId.bitfield, bodyBytes, bodyBytes));
}

/** An extended message (BEP 10). `extendedId` is the number that the remote peer gave; 0 is the handshake. */
export function writeExtended(target: Uint8Array, offset: number, extendedId: number, payload: Uint8Array): number {
  const bodyBytes = 1 + payload.length;
  const after = start(target, offset, MessageId.extended, bodyBytes, bodyBytes);
  target[after] = extendedId;
  target.set(payload, after + 1);
  return after + bodyBytes;
}

/**
 * The header of a packed block (PROTOCOL.md) whose payload of `packedBytes` follows from elsewhere and inflates to
 * `length` bytes. `extendedId` is the number that the remote peer gave.
 */
export function writePackedHeader(
  target: Uint8Array,
  offset: number,
  extendedId: number,
  piece: number,
  begin: number,
  length: number,
  packedBytes: number,
): number {
  const headBytes = PACKED_HEADER_BYTES - 5;
  let after = start(target, offset, MessageId.extended, headBytes, headBytes + packedBytes);
  target[after++] = extendedId;
  after = writeUint32(target, after, piece);
  after = writeUint32(target, after, begin);
  return writeUint32(target, after, length);
}

function writeState(target: Uint8Array, offset: number, id: number): number {
  return start(target, offset, id, 0, 0);
}

function writeIndex(target: Uint8Array, offset: number, id: number, piece: number): number {
  return writeUint32(target, start(target, offset, id, 4, 4), piece);
}

function writeBlock(
  target: Uint8Array,
  offset: number,
  id: number,
  piece: number,
  begin: number,
  length: number,
): number {
  let after = start(target, offset, id, 12, 12);
  after = writeUint32(target, after, piece);
  after = writeUint32(target, after, begin);
  return writeUint32(target, after, length);
}

/** Length prefix and id. `roomBytes` of the body are written here, `bodyBytes` are announced. */
function start(target: Uint8Array, offset: number, id: number, roomBytes: number, bodyBytes: number): number {
  assert(offset + 5 + roomBytes <= target.length, "no room for a frame");
  target[writeUint32(target, offset, 1 + bodyBytes)] = id;
  return offset + 5;
}

function writeUint32(target: Uint8Array, offset: number, value: number): number {
  target[offset] = value >>> 24;
  target[offset + 1] = value >>> 16;
  target[offset + 2] = value >>> 8;
  target[offset + 3] = value;
  return offset + 4;
}
