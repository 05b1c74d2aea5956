/**
 * Writes .torrent files, and rewrites what stands outside the info dictionary without touching the raw info bytes.
 *
 * `bencode` encodes the small parts; the file list, up to 2 million entries, is written straight into one buffer,
 * because the package would hold four arrays per extent. Returned bytes are new.
 */
import bencode from "bencode";
import { assert } from "../errors.ts";
import { EXTENTS_MAX, PIECE_BYTES_MAX, PIECE_BYTES_MIN } from "../limits.ts";
import { BencodeCursor, BencodeFault } from "./bencode-scan.ts";
import { firstOverlap, pieceCountOf, rangesEndBytes, rangesProblem } from "./extents.ts";
import { imageInfoEntries } from "./image-info.ts";
import { badTorrent, FORMAT_KEY, infoHashOf, nameProblem, SOURCE_KEY } from "./metainfo.ts";
import { SHA256_KEY, SIGNATURE_KEY, SIGNATURE_PUBLIC_KEY, SIGNATURE_VALUE } from "./signature.ts";
import type { ExtentTable, ImageInfo, TorrentSignature } from "./types.ts";

export interface NewTorrent {
  /** What the image is called; one path component. */
  readonly name: string;
  /** A power of two. */
  readonly pieceBytes: number;
  /** SHA-1 digests, 20 bytes for each piece. */
  readonly pieceHashes: Uint8Array;
  readonly extents: ExtentTable;
  /** null: no `diskswarm` dictionary, as `--compat ezio` wants it. */
  readonly image: ImageInfo | null;
  /** Tiers of announce URLs (BEP 12); may be empty. */
  readonly trackers: readonly (readonly string[])[];
  /** What was captured; stands outside the info dictionary. null: left out. */
  readonly sourcePath: string | null;
  /** What the source is, in words, where it is no raw disk or file; outside the info dictionary, so that the same disk gives the same torrent. */
  readonly sourceFormat?: string | null;
  /** For example `diskswarm 0.1.0`. */
  readonly createdBy: string;
  /** Seconds since 1970; null: left out, so that equal sources give equal files. */
  readonly creationDateSeconds: number | null;
  readonly isPrivate?: boolean;
}

const SHA1_BYTES = 20;
const OFFSET_DIGITS = 32;
/** `d6:lengthi` 16 digits `e4:pathl32:` 32 digits `eee`, rounded up. */
const FILE_ENTRY_BYTES_MAX = 96;
const OPEN_LIST = "l";
const ascii = new TextEncoder();

/** A canonical torrent file of extents (DESIGN: multi-file, each file named for its disk offset). */
export function encodeMetainfo(torrent: NewTorrent): Uint8Array {
  const outside: [string, Uint8Array][] = [
    ["created by", bencode.encode(torrent.createdBy)],
    ["info", encodeInfo(torrent)],
    ...trackerEntries(torrent.trackers),
  ];
  if (torrent.creationDateSeconds !== null)
    outside.push(["creation date", bencode.encode(torrent.creationDateSeconds)]);
  if (torrent.sourcePath !== null) outside.push([SOURCE_KEY, bencode.encode(torrent.sourcePath)]);
  if (torrent.sourceFormat) outside.push([FORMAT_KEY, bencode.encode(torrent.sourceFormat)]);
  return encodeDict(outside);
}

/** The info dictionary alone, as it is hashed. */
export function encodeInfo(
  torrent: Omit<NewTorrent, "trackers" | "sourcePath" | "sourceFormat" | "createdBy" | "creationDateSeconds">,
): Uint8Array {
  checkNew(torrent);
  const inside: [string, Uint8Array][] = [
    ["files", encodeFiles(torrent.extents)],
    ["name", bencode.encode(torrent.name)],
    ["piece length", bencode.encode(torrent.pieceBytes)],
    ["pieces", bencode.encode(torrent.pieceHashes)],
  ];
  if (torrent.image !== null) inside.push(["diskswarm", bencode.encode(imageInfoEntries(torrent.image))]);
  if (torrent.isPrivate) inside.push(["private", bencode.encode(1)]);
  return encodeDict(inside);
}

/** The same torrent with what a signature needs beside it: see `signature.ts`. */
export function withSignature(torrentBytes: Uint8Array, sha256: Uint8Array, signature: TorrentSignature): Uint8Array {
  const entry = { [SIGNATURE_PUBLIC_KEY]: signature.publicKey, [SIGNATURE_VALUE]: signature.bytes };
  return encodeDict([
    ...topEntries(torrentBytes),
    [SHA256_KEY, bencode.encode(sha256)],
    [SIGNATURE_KEY, bencode.encode(entry)],
  ]);
}

/** The raw bytes of a torrent's info dictionary. Throws Failure where it has none. */
export function infoBytesOfTorrent(torrentBytes: Uint8Array): Uint8Array {
  const info = topEntries(torrentBytes).find(([key]) => key === "info");
  if (info === undefined) throw badTorrent("it has no info dictionary");
  return info[1];
}

/** A torrent file around raw info bytes (fetched by BEP 9, say), which are not touched. */
export function wrapInfo(infoBytes: Uint8Array, trackers: readonly (readonly string[])[]): Uint8Array {
  return encodeDict([["info", infoBytes], ...trackerEntries(trackers)]);
}

/** SHA-1 of the raw info bytes of a torrent file: 20 bytes. Throws Failure where it has none. */
export function infoHashOfTorrent(torrentBytes: Uint8Array): Uint8Array {
  return infoHashOf(infoBytesOfTorrent(torrentBytes));
}

/** The same torrent without the path that it was captured from: what a server hands out. */
export function withoutSource(torrentBytes: Uint8Array): Uint8Array {
  return encodeDict(topEntries(torrentBytes).filter(([key]) => key !== SOURCE_KEY));
}

/** The same torrent with these tracker tiers and no others. */
export function withTrackers(torrentBytes: Uint8Array, trackers: readonly (readonly string[])[]): Uint8Array {
  const kept = topEntries(torrentBytes).filter(([key]) => key !== "announce" && key !== "announce-list");
  return encodeDict([...kept, ...trackerEntries(trackers)]);
}

function checkNew(torrent: Pick<NewTorrent, "name" | "pieceBytes" | "pieceHashes" | "extents" | "image">): void {
  const { name, pieceBytes, pieceHashes, extents, image } = torrent;
  const problem = nameProblem(name);
  if (problem !== null) throw badTorrent(`its name ${problem}`);
  assert(
    pieceBytes >= PIECE_BYTES_MIN && pieceBytes <= PIECE_BYTES_MAX && (pieceBytes & (pieceBytes - 1)) === 0,
    `pieces of ${pieceBytes} bytes`,
  );
  if (extents.count === 0) throw badTorrent("it is empty: nothing of the source is in use");
  if (extents.count > EXTENTS_MAX) throw badTorrent(`it has more than ${EXTENTS_MAX} extents`);
  assert(rangesProblem(extents.diskOffsetBytes, extents.lengthBytes, extents.count) === null, "extents out of order");
  const pieceCount = pieceCountOf(extents.totalBytes, pieceBytes);
  assert(
    pieceHashes.length === pieceCount * SHA1_BYTES,
    `${pieceHashes.length} bytes of hashes for ${pieceCount} pieces`,
  );
  if (image === null) return;
  assert(rangesEndBytes(extents) <= image.diskBytes, "extents beyond the disk");
  assert(rangesEndBytes(image.zeroRanges) <= image.diskBytes, "zero ranges beyond the disk");
  assert(firstOverlap(image.zeroRanges, extents) < 0, "a zero range overlaps an extent");
}

function encodeFiles(extents: ExtentTable): Uint8Array {
  const out = new Uint8Array(extents.count * FILE_ENTRY_BYTES_MAX + 2);
  let at = writeAscii(out, 0, OPEN_LIST);
  for (let i = 0; i < extents.count; i++) {
    at = writeAscii(out, at, "d6:lengthi");
    at = writeAscii(out, at, extents.lengthBytes[i]!.toString());
    at = writeAscii(out, at, "e4:pathl32:");
    at = writeAscii(out, at, extents.diskOffsetBytes[i]!.toString(16).padStart(OFFSET_DIGITS, "0"));
    at = writeAscii(out, at, "ee");
  }
  at = writeAscii(out, at, "e");
  return out.subarray(0, at);
}

function writeAscii(out: Uint8Array, offset: number, text: string): number {
  for (let i = 0; i < text.length; i++) out[offset + i] = text.charCodeAt(i);
  return offset + text.length;
}

function trackerEntries(tiers: readonly (readonly string[])[]): [string, Uint8Array][] {
  const named = tiers.filter((tier) => tier.length > 0);
  const first = named[0]?.[0];
  if (first === undefined) return [];
  const entries: [string, Uint8Array][] = [["announce", bencode.encode(first)]];
  // Clients that know BEP 12 ignore `announce` where there is a list; one tracker needs none.
  if (named.length > 1 || named[0]!.length > 1) entries.push(["announce-list", bencode.encode(named)]);
  return entries;
}

/** Keys of the outermost dictionary and the raw bytes of their values. */
function topEntries(torrentBytes: Uint8Array): [string, Uint8Array][] {
  const entries: [string, Uint8Array][] = [];
  const cursor = new BencodeCursor(torrentBytes);
  try {
    cursor.enterDict();
    while (cursor.nextKey()) {
      const key = cursor.stringText();
      const start = cursor.at;
      cursor.skipValue();
      entries.push([key, torrentBytes.subarray(start, cursor.at)]);
    }
    cursor.finish();
  } catch (error) {
    if (error instanceof BencodeFault) throw badTorrent(error.message);
    throw error;
  }
  return entries;
}

/** A dictionary of values that are encoded already. Keys are one character per byte. */
function encodeDict(entries: readonly (readonly [string, Uint8Array])[]): Uint8Array {
  const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  const parts: Uint8Array[] = [ascii.encode("d")];
  for (const [key, value] of sorted)
    parts.push(
      Uint8Array.from(`${key.length}:${key}`, (c) => c.charCodeAt(0)),
      value,
    );
  parts.push(ascii.encode("e"));
  return joinBytes(parts);
}

function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
