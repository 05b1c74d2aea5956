/**
 * Reads a .torrent (BEP 3, 12, 27; layouts of EZIO and partclone) into typed arrays.
 *
 * The result's `infoBytes` and `pieceHashes` are views of the caller's bytes, which must not change while it is
 * in use: the info hash is of the raw bytes, never of a re-encoding. What cannot be deployed is refused with one
 * line that says why.
 */
import { ExitCode, Failure } from "../errors.ts";
import { PIECE_BYTES_MAX, PIECE_BYTES_MIN, TORRENT_BYTES_MAX, TRACKERS_MAX } from "../limits.ts";
import { formatBytes } from "../units.ts";
import { BencodeCursor, BencodeFault } from "./bencode-scan.ts";
import { firstOverlap, makeExtentTable, pieceCountOf, rangesEndBytes } from "./extents.ts";
import { type FileList, readFileList } from "./file-list.ts";
import { readImageInfo } from "./image-info.ts";
import { quote } from "./quote.ts";
import { PUBLIC_KEY_BYTES, SIGNATURE_BYTES } from "./ed25519.ts";
import { SHA256_KEY, SIGNATURE_KEY, SIGNATURE_PUBLIC_KEY, SIGNATURE_VALUE } from "./signature.ts";
import type { ExtentTable, ImageInfo, Metainfo, TorrentSignature } from "./types.ts";

const SHA1_BYTES = 20;
const SHA256_BYTES = 32;
/** A name is shown, logged and served as a path's last part. */
const NAME_BYTES_MAX = 255;
/** Key outside the info dictionary: the path that a capture read from. */
export const SOURCE_KEY = "diskswarm source";
/** What the source is where it is no raw disk or file, for people. */
export const FORMAT_KEY = "diskswarm format";

/** What the info dictionary says before it is checked as a whole. */
interface RawInfo {
  name: string | null;
  pieceBytes: number | null;
  pieceHashes: Uint8Array | null;
  lengthBytes: number | null;
  files: FileList | null;
  image: ImageInfo | null;
  isPrivate: boolean;
  hasFileTree: boolean;
}

/** Reads a whole torrent file. Throws Failure (exit 1, `bad-torrent`) with one line where it cannot be used. */
export function parseMetainfo(bytes: Uint8Array): Metainfo {
  if (bytes.length > TORRENT_BYTES_MAX) {
    throw badTorrent(`${formatBytes(bytes.length)} long, at most ${formatBytes(TORRENT_BYTES_MAX)} are accepted`);
  }
  try {
    return readTorrent(new BencodeCursor(bytes));
  } catch (error) {
    if (error instanceof BencodeFault) throw badTorrent(error.message);
    throw error;
  }
}

/** SHA-1 of the raw info bytes (BEP 3): 20 bytes. */
export function infoHashOf(infoBytes: Uint8Array): Uint8Array {
  return new Uint8Array(new Bun.CryptoHasher("sha1").update(infoBytes).digest());
}

export function badTorrent(reason: string): Failure {
  return new Failure(ExitCode.failed, "bad-torrent", `not a torrent that can be deployed: ${reason}`);
}

function readTorrent(cursor: BencodeCursor): Metainfo {
  let info: RawInfo | null = null;
  let infoStart = 0;
  let infoEnd = 0;
  let announce = "";
  let tiers: string[][] = [];
  let sourcePath: string | null = null;
  let sha256: Uint8Array | null = null;
  let signature: TorrentSignature | null = null;
  let sourceFormat: string | null = null;

  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs("info")) {
      infoStart = cursor.at;
      info = readInfo(cursor);
      infoEnd = cursor.at;
    } else if (cursor.stringIs("announce")) announce = cursor.readText();
    else if (cursor.stringIs("announce-list")) tiers = readTiers(cursor);
    else if (cursor.stringIs(SOURCE_KEY)) sourcePath = cursor.readText();
    else if (cursor.stringIs(SHA256_KEY)) sha256 = cursor.readBytes();
    else if (cursor.stringIs(SIGNATURE_KEY)) signature = readSignature(cursor);
    else if (cursor.stringIs(FORMAT_KEY)) sourceFormat = cursor.readText();
    else cursor.skipValue();
  }
  cursor.finish();
  if (info === null) throw badTorrent("it has no info dictionary");
  if (tiers.length === 0 && announce !== "") tiers = [[announce]];
  const infoBytes = cursor.bytes.subarray(infoStart, infoEnd);
  const checked = checkInfo(info);
  if (sha256 !== null && sha256.length !== checked.pieceCount * SHA256_BYTES)
    throw badTorrent(`its ${SHA256_KEY} is of ${sha256.length / SHA256_BYTES} pieces, it has ${checked.pieceCount}`);
  const infoHash = infoHashOf(infoBytes);
  return { ...checked, infoHash, infoBytes, trackers: tiers, sourcePath, sourceFormat, sha256, signature };
}

function readSignature(cursor: BencodeCursor): TorrentSignature {
  let publicKey: Uint8Array | null = null;
  let bytes: Uint8Array | null = null;
  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs(SIGNATURE_PUBLIC_KEY)) publicKey = cursor.readBytes();
    else if (cursor.stringIs(SIGNATURE_VALUE)) bytes = cursor.readBytes();
    else cursor.skipValue();
  }
  if (publicKey?.length !== PUBLIC_KEY_BYTES || bytes?.length !== SIGNATURE_BYTES)
    throw badTorrent(`its ${SIGNATURE_KEY} is none of ed25519`);
  return { publicKey, bytes };
}

/** BEP 12: a list of tiers, each a list of URLs. Empty ones are left out. */
function readTiers(cursor: BencodeCursor): string[][] {
  const tiers: string[][] = [];
  let count = 0;
  cursor.enterList();
  while (cursor.nextItem()) {
    const tier: string[] = [];
    cursor.enterList();
    while (cursor.nextItem()) {
      if (++count > TRACKERS_MAX) throw badTorrent(`it names more than ${TRACKERS_MAX} trackers`);
      const url = cursor.readText();
      if (url !== "") tier.push(url);
    }
    if (tier.length > 0) tiers.push(tier);
  }
  return tiers;
}

function readInfo(cursor: BencodeCursor): RawInfo {
  const info: RawInfo = {
    name: null,
    pieceBytes: null,
    pieceHashes: null,
    lengthBytes: null,
    files: null,
    image: null,
    isPrivate: false,
    hasFileTree: false,
  };
  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs("name")) info.name = cursor.readText();
    else if (cursor.stringIs("piece length")) info.pieceBytes = cursor.readCount();
    else if (cursor.stringIs("pieces")) info.pieceHashes = cursor.readBytes();
    else if (cursor.stringIs("length")) info.lengthBytes = cursor.readCount();
    else if (cursor.stringIs("files")) info.files = readFileList(cursor, badTorrent);
    else if (cursor.stringIs("private")) info.isPrivate = cursor.readCount() !== 0;
    else if (cursor.stringIs("diskswarm")) info.image = readImageInfo(cursor, badTorrent);
    else {
      info.hasFileTree ||= cursor.stringIs("file tree");
      cursor.skipValue();
    }
  }
  return info;
}

type CheckedInfo = Omit<
  Metainfo,
  "infoHash" | "infoBytes" | "trackers" | "sourcePath" | "sourceFormat" | "sha256" | "signature"
>;

function checkInfo(info: RawInfo): CheckedInfo {
  const name = checkName(info.name);
  const pieceBytes = checkPieceBytes(info.pieceBytes);
  if (info.pieceHashes === null) {
    throw badTorrent(info.hasFileTree ? "it is BitTorrent v2 only; make a v1 torrent" : "it has no piece hashes");
  }
  if (info.lengthBytes !== null && info.files !== null) throw badTorrent("it has both a length and a list of files");
  const extents = info.files !== null ? extentsOfFiles(info.files) : extentOfSingle(info.lengthBytes);
  const pieceCount = checkPieces(info.pieceHashes, extents.totalBytes, pieceBytes);
  if (info.image !== null) checkImage(info.image, extents);
  return {
    name,
    pieceBytes,
    pieceCount,
    pieceHashes: info.pieceHashes,
    extents,
    layout: info.files !== null ? "extents" : "single",
    image: info.image,
    isPrivate: info.isPrivate,
  };
}

function checkName(name: string | null): string {
  if (name === null) throw badTorrent("it has no name");
  const problem = nameProblem(name);
  if (problem !== null) throw badTorrent(`its name ${problem}`);
  return name;
}

/** Says why a text cannot be a torrent's name, or returns null. */
export function nameProblem(name: string): string | null {
  if (name === "") return "is empty";
  if (new TextEncoder().encode(name).length > NAME_BYTES_MAX) return `is longer than ${NAME_BYTES_MAX} bytes`;
  if (name === "." || name === ".." || name.includes("/")) return `${quote(name)} is a path`;
  // A control character in a name could rewrite a terminal or end a log line.
  if (/\p{Cc}/u.test(name)) return `${quote(name)} has control characters`;
  return null;
}

function checkPieceBytes(pieceBytes: number | null): number {
  if (pieceBytes === null) throw badTorrent("it has no piece length");
  const problem = pieceBytesProblem(pieceBytes);
  if (problem !== null) throw badTorrent(problem);
  return pieceBytes;
}

/** Says why a piece size cannot be used, or returns null. Others' tools make sizes that are no power of two. */
export function pieceBytesProblem(pieceBytes: number): string | null {
  if (pieceBytes >= PIECE_BYTES_MIN && pieceBytes <= PIECE_BYTES_MAX && pieceBytes % PIECE_BYTES_MIN === 0) return null;
  const range = `${formatBytes(PIECE_BYTES_MIN)} up to ${formatBytes(PIECE_BYTES_MAX)}`;
  return `its pieces have ${pieceBytes} bytes; multiples of ${range} are accepted`;
}

function checkPieces(pieceHashes: Uint8Array, totalBytes: number, pieceBytes: number): number {
  const pieceCount = pieceCountOf(totalBytes, pieceBytes);
  if (pieceHashes.length !== pieceCount * SHA1_BYTES) {
    throw badTorrent(
      `${totalBytes} bytes make ${pieceCount} pieces, its hashes are of ${pieceHashes.length / SHA1_BYTES}`,
    );
  }
  return pieceCount;
}

function extentOfSingle(lengthBytes: number | null): ExtentTable {
  if (lengthBytes === null) throw badTorrent("it has neither a length nor files");
  if (lengthBytes === 0) throw badTorrent("it is empty");
  return makeExtentTable(Float64Array.of(0), Float64Array.of(lengthBytes));
}

function extentsOfFiles(files: FileList): ExtentTable {
  if (files.count === 0) throw badTorrent("it is empty");
  if (files.problem !== null) throw badTorrent(files.problem);
  return makeExtentTable(files.diskOffsetBytes, files.lengthBytes, files.count);
}

/** Our own dictionary must agree with the extents. */
function checkImage(image: ImageInfo, extents: ExtentTable): void {
  if (rangesEndBytes(extents) > image.diskBytes) {
    throw badTorrent(`its extents end at ${rangesEndBytes(extents)}, its disk at ${image.diskBytes}`);
  }
  if (rangesEndBytes(image.zeroRanges) > image.diskBytes) {
    throw badTorrent(`its zero ranges end at ${rangesEndBytes(image.zeroRanges)}, its disk at ${image.diskBytes}`);
  }
  const overlap = firstOverlap(image.zeroRanges, extents);
  if (overlap >= 0) {
    throw badTorrent(`its zero range at disk offset ${image.zeroRanges.diskOffsetBytes[overlap]} overlaps an extent`);
  }
}
