/**
 * Bodies of extended messages: the handshake (BEP 10), metadata exchange (BEP 9), peer exchange (BEP 11).
 *
 * What arrives is read with the bounded cursor; malformed bencode is the peer's fault. An entry of an
 * unexpected type or range is treated as absent, because clients differ and a handshake is only an offer.
 * Encoders return new bytes; views in decoded messages are of the payload and valid as long as it is.
 */
import bencode, { type Encodable } from "bencode";
import { PeerFault } from "../errors.ts";
import { BLOCK_BYTES, BLOCK_BYTES_MAX, PEX_PEERS_MAX, TORRENT_BYTES_MAX } from "../limits.ts";
import { BencodeCursor, BencodeFault } from "../torrent/bencode-scan.ts";
import {
  COMPACT4_BYTES,
  COMPACT6_BYTES,
  decodeCompact4,
  decodeCompact6,
  encodeCompact4,
  encodeCompact6,
  hostBytes,
  hostFromBytes,
  isIPv6,
  type PeerAddress,
} from "./address.ts";

/** Extended id of the handshake itself. */
export const HANDSHAKE_EXTENDED_ID = 0;
/** Our own numbering, offered in `m`: remote peers send with these. */
export const OUR_METADATA_ID = 1;
export const OUR_PEX_ID = 2;
/** BEP 9: metadata travels in pieces of this size. */
export const METADATA_PIECE_BYTES = 16 * 1024;

const CLIENT_BYTES_MAX = 64;
const EXTENDED_ID_MAX = 255;

export interface ExtensionHandshake {
  /** The sender's ids, 0 where the extension is not offered. Never send an id that was not offered. */
  readonly metadataId: number;
  readonly pexId: number;
  /** `ds_zstd`: blocks may be sent packed. */
  readonly packedId: number;
  /** `v`: client name and version, or null. */
  readonly client: string | null;
  /** `p`: TCP port it listens on, or null. */
  readonly port: number | null;
  /** `reqq`: requests it queues, or null. */
  readonly requestsMax: number | null;
  /** `metadata_size`: bytes of the info dictionary, or null. */
  readonly metadataBytes: number | null;
  /** `yourip`: our address as it sees it, or null. */
  readonly yourHost: string | null;
  /** `upload_only` (BEP 21). */
  readonly uploadOnly: boolean;
  /** `ds_block`: largest block it serves, a multiple of 16 KiB; null where it is not one of ours. */
  readonly blockBytes: number | null;
}

export const NO_EXTENSIONS: ExtensionHandshake = {
  metadataId: 0,
  pexId: 0,
  packedId: 0,
  client: null,
  port: null,
  requestsMax: null,
  metadataBytes: null,
  yourHost: null,
  uploadOnly: false,
  blockBytes: null,
};

export function encodeExtensionHandshake(handshake: ExtensionHandshake): Uint8Array {
  const yourIp = handshake.yourHost === null ? null : hostBytes(handshake.yourHost);
  return bencode.encode({
    m: {
      ut_metadata: handshake.metadataId || undefined,
      ut_pex: handshake.pexId || undefined,
      ds_zstd: handshake.packedId || undefined,
    },
    v: handshake.client ?? undefined,
    p: handshake.port ?? undefined,
    reqq: handshake.requestsMax ?? undefined,
    metadata_size: handshake.metadataBytes ?? undefined,
    yourip: yourIp ?? undefined,
    upload_only: handshake.uploadOnly ? 1 : undefined,
    ds_block: handshake.blockBytes ?? undefined,
  });
}

/** Reads a handshake. Throws PeerFault where it is no dictionary of valid bencode. */
export function decodeExtensionHandshake(payload: Uint8Array): ExtensionHandshake {
  return reading("extension handshake", () => {
    const cursor = lenientCursor(payload);
    const found: { -readonly [K in keyof ExtensionHandshake]: ExtensionHandshake[K] } = { ...NO_EXTENSIONS };
    cursor.enterDict();
    while (cursor.nextKey()) {
      if (cursor.stringIs("m") && cursor.type() === "dict") readIds(cursor, found);
      else if (cursor.stringIs("v")) found.client = optionalText(cursor);
      else if (cursor.stringIs("p")) found.port = optionalCount(cursor, 1, 65535);
      else if (cursor.stringIs("reqq")) found.requestsMax = optionalCount(cursor, 1, Number.MAX_SAFE_INTEGER);
      else if (cursor.stringIs("metadata_size")) found.metadataBytes = optionalCount(cursor, 1, TORRENT_BYTES_MAX);
      else if (cursor.stringIs("yourip")) found.yourHost = optionalHost(cursor);
      else if (cursor.stringIs("upload_only")) found.uploadOnly = (optionalCount(cursor, 0, 1) ?? 0) === 1;
      else if (cursor.stringIs("ds_block")) found.blockBytes = readBlockBytes(cursor);
      else cursor.skipValue();
    }
    cursor.finish();
    return found;
  });
}

export type MetadataMessage =
  | { readonly kind: "request"; readonly piece: number }
  | { readonly kind: "data"; readonly piece: number; readonly totalBytes: number | null; readonly data: Uint8Array }
  | { readonly kind: "reject"; readonly piece: number }
  /** A type of a later version of BEP 9: to be ignored. */
  | { readonly kind: "unknown" };

const METADATA_REQUEST = 0;
const METADATA_DATA = 1;
const METADATA_REJECT = 2;

export function encodeMetadataRequest(piece: number): Uint8Array {
  return bencode.encode({ msg_type: METADATA_REQUEST, piece });
}

export function encodeMetadataReject(piece: number): Uint8Array {
  return bencode.encode({ msg_type: METADATA_REJECT, piece });
}

/** Answer with piece `piece` of the info dictionary; null where there is no such piece. */
export function encodeMetadataData(infoBytes: Uint8Array, piece: number): Uint8Array | null {
  const start = piece * METADATA_PIECE_BYTES;
  if (start >= infoBytes.length) return null;
  const data = infoBytes.subarray(start, start + METADATA_PIECE_BYTES);
  const header = bencode.encode({ msg_type: METADATA_DATA, piece, total_size: infoBytes.length });
  const message = new Uint8Array(header.length + data.length);
  message.set(header);
  message.set(data, header.length);
  return message;
}

/** Reads a metadata message. Throws PeerFault where it is malformed. */
export function decodeMetadataMessage(payload: Uint8Array): MetadataMessage {
  return reading("metadata message", () => {
    const cursor = lenientCursor(payload);
    let type: number | null = null;
    let piece: number | null = null;
    let totalBytes: number | null = null;
    cursor.enterDict();
    while (cursor.nextKey()) {
      if (cursor.stringIs("msg_type")) type = cursor.readCount();
      else if (cursor.stringIs("piece")) piece = cursor.readCount();
      else if (cursor.stringIs("total_size")) totalBytes = optionalCount(cursor, 1, TORRENT_BYTES_MAX);
      else cursor.skipValue();
    }
    if (type !== null && type > METADATA_REJECT) return { kind: "unknown" };
    if (type === null || piece === null) throw new PeerFault("metadata message without type or piece");
    if (type === METADATA_DATA) return readMetadataData(payload.subarray(cursor.at), piece, totalBytes);
    return { kind: type === METADATA_REQUEST ? "request" : "reject", piece };
  });
}

export interface PexPeer {
  readonly address: PeerAddress;
  /** `PexFlag`s of this peer. */
  readonly flags: number;
}

export interface PexMessage {
  readonly added: readonly PexPeer[];
  readonly dropped: readonly PeerAddress[];
}

/** Bits of `added.f` (BEP 11). */
export const PexFlag = {
  prefersEncryption: 0x01,
  seed: 0x02,
  utp: 0x04,
  holepunch: 0x08,
  /** The sender connected to it, so it accepts connections. */
  reachable: 0x10,
} as const;

export function encodePex(message: PexMessage): Uint8Array {
  const added4 = message.added.filter(({ address }) => !isIPv6(address));
  const added6 = message.added.filter(({ address }) => isIPv6(address));
  const flags = (peers: readonly PexPeer[]): Encodable => Uint8Array.from(peers, (peer) => peer.flags);
  return bencode.encode({
    added: encodeCompact4(added4.map((peer) => peer.address)),
    "added.f": flags(added4),
    added6: encodeCompact6(added6.map((peer) => peer.address)),
    "added6.f": flags(added6),
    dropped: encodeCompact4(message.dropped),
    dropped6: encodeCompact6(message.dropped),
  });
}

/** Reads a peer exchange. At most PEX_PEERS_MAX of each list are taken, the rest is ignored. Throws PeerFault. */
export function decodePex(payload: Uint8Array): PexMessage {
  return reading("peer exchange", () => {
    const cursor = lenientCursor(payload);
    const none: Uint8Array = new Uint8Array(0);
    const lists = { added: none, addedFlags: none, added6: none, added6Flags: none, dropped: none, dropped6: none };
    cursor.enterDict();
    while (cursor.nextKey()) {
      if (cursor.stringIs("added")) lists.added = cursor.readBytes();
      else if (cursor.stringIs("added.f")) lists.addedFlags = cursor.readBytes();
      else if (cursor.stringIs("added6")) lists.added6 = cursor.readBytes();
      else if (cursor.stringIs("added6.f")) lists.added6Flags = cursor.readBytes();
      else if (cursor.stringIs("dropped")) lists.dropped = cursor.readBytes();
      else if (cursor.stringIs("dropped6")) lists.dropped6 = cursor.readBytes();
      else cursor.skipValue();
    }
    cursor.finish();
    const added = [
      ...readPeers(lists.added, lists.addedFlags, COMPACT4_BYTES),
      ...readPeers(lists.added6, lists.added6Flags, COMPACT6_BYTES),
    ];
    const dropped = [
      ...readPeers(lists.dropped, none, COMPACT4_BYTES),
      ...readPeers(lists.dropped6, none, COMPACT6_BYTES),
    ];
    return {
      added: added.slice(0, PEX_PEERS_MAX),
      dropped: dropped.slice(0, PEX_PEERS_MAX).map((peer) => peer.address),
    };
  });
}

function readPeers(bytes: Uint8Array, flags: Uint8Array, entryBytes: number): PexPeer[] {
  if (bytes.length % entryBytes !== 0) throw new PeerFault(`peer exchange with a list of ${bytes.length} bytes`);
  const decode = entryBytes === COMPACT4_BYTES ? decodeCompact4 : decodeCompact6;
  const peers: PexPeer[] = [];
  for (let i = 0; i < Math.min(bytes.length / entryBytes, PEX_PEERS_MAX); i++) {
    // One entry at a time, so that an address that is left out does not shift the flags of the others.
    const address = decode(bytes.subarray(i * entryBytes, (i + 1) * entryBytes))?.[0];
    if (address !== undefined) peers.push({ address, flags: flags[i] ?? 0 });
  }
  return peers;
}

function readMetadataData(data: Uint8Array, piece: number, totalBytes: number | null): MetadataMessage {
  if (data.length > METADATA_PIECE_BYTES) throw new PeerFault(`metadata piece of ${data.length} bytes`);
  return { kind: "data", piece, totalBytes, data };
}

function readIds(cursor: BencodeCursor, found: { metadataId: number; pexId: number; packedId: number }): void {
  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs("ut_metadata")) found.metadataId = optionalCount(cursor, 1, EXTENDED_ID_MAX) ?? 0;
    else if (cursor.stringIs("ut_pex")) found.pexId = optionalCount(cursor, 1, EXTENDED_ID_MAX) ?? 0;
    else if (cursor.stringIs("ds_zstd")) found.packedId = optionalCount(cursor, 1, EXTENDED_ID_MAX) ?? 0;
    else cursor.skipValue();
  }
}

/** An integer from `min` to `max`; null for anything else. */
function optionalCount(cursor: BencodeCursor, min: number, max: number): number | null {
  const value = cursor.readIntegerOrSkip();
  return value !== null && value >= min && value <= max ? value : null;
}

function optionalText(cursor: BencodeCursor): string | null {
  if (cursor.type() !== "string") return skipped(cursor);
  const text = new TextDecoder().decode(cursor.readBytes().subarray(0, CLIENT_BYTES_MAX));
  // It ends up in logs and on terminals.
  return text.replaceAll(/\p{Cc}/gu, "?");
}

function optionalHost(cursor: BencodeCursor): string | null {
  if (cursor.type() !== "string") return skipped(cursor);
  const bytes = cursor.readBytes();
  return bytes.length === 4 || bytes.length === 16 ? hostFromBytes(bytes) : null;
}

function readBlockBytes(cursor: BencodeCursor): number | null {
  const offered = optionalCount(cursor, BLOCK_BYTES, Number.MAX_SAFE_INTEGER);
  if (offered === null) return null;
  const usable = Math.min(offered, BLOCK_BYTES_MAX);
  return usable - (usable % BLOCK_BYTES);
}

function skipped(cursor: BencodeCursor): null {
  cursor.skipValue();
  return null;
}

function lenientCursor(payload: Uint8Array): BencodeCursor {
  return new BencodeCursor(payload, 0, payload.length, false);
}

function reading<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof BencodeFault) throw new PeerFault(`malformed ${what}: ${error.message}`);
    throw error;
  }
}
