/**
 * Torrents written by the test's own hand, independent of the program's writer: right ones in the layout of
 * partclone and EZIO, and broken ones.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { encode, rawValue } from "./bencode.ts";
import type { Extent } from "./image.ts";

export interface TorrentFields {
  readonly name: string;
  readonly pieceBytes: number;
  readonly pieces: Uint8Array;
  /** Multi-file torrents: paths and lengths in order. */
  readonly files?: { path: string[]; length: number }[];
  /** Single-file torrents. */
  readonly length?: number;
  readonly announce?: string;
}

/** The path of an extent: its disk offset as 32 lower-case hex digits. */
export function extentPath(offsetBytes: number): string {
  return offsetBytes.toString(16).padStart(32, "0");
}

/** A torrent of the given extents of a source. */
export function extentTorrent(
  source: string,
  extents: readonly Extent[],
  pieceBytes: number,
  announce?: string,
): TorrentFields {
  return {
    name: "image",
    pieceBytes,
    pieces: hashPieces(source, extents, pieceBytes),
    files: extents.map(({ offsetBytes, lengthBytes }) => ({ path: [extentPath(offsetBytes)], length: lengthBytes })),
    ...(announce === undefined ? {} : { announce }),
  };
}

/** An ordinary torrent of one file. */
export function singleTorrent(
  source: string,
  lengthBytes: number,
  pieceBytes: number,
  announce?: string,
): TorrentFields {
  return {
    name: "image.raw",
    pieceBytes,
    pieces: hashPieces(source, [{ offsetBytes: 0, lengthBytes }], pieceBytes),
    length: lengthBytes,
    ...(announce === undefined ? {} : { announce }),
  };
}

export interface Written {
  readonly path: string;
  /** 20 bytes. */
  readonly infoHash: Uint8Array;
}

export function writeTorrent(path: string, fields: TorrentFields): Written {
  const infoBytes = encode({
    ...(fields.files
      ? { files: fields.files.map(({ path, length }) => ({ length, path })) }
      : { length: fields.length! }),
    name: fields.name,
    "piece length": fields.pieceBytes,
    pieces: fields.pieces,
  });
  const head = fields.announce === undefined ? "" : `8:announce${fields.announce.length}:${fields.announce}`;
  writeFileSync(path, Buffer.concat([Buffer.from(`d${head}4:info`), infoBytes, Buffer.from("e")]));
  return { path, infoHash: sha1(infoBytes) };
}

/** The info hash of a torrent, over the raw bytes of its info dictionary. */
export function infoHashOf(torrentPath: string): Uint8Array {
  const infoBytes = rawValue(readFileSync(torrentPath), "info");
  if (!infoBytes) throw new Error(`${torrentPath} has no info dictionary`);
  return sha1(infoBytes);
}

function sha1(bytes: Uint8Array): Uint8Array {
  return createHash("sha1").update(bytes).digest();
}

function hashPieces(source: string, extents: readonly Extent[], pieceBytes: number): Uint8Array {
  const digests: Buffer[] = [];
  const fd = openSync(source, "r");
  let hash = createHash("sha1");
  let inPiece = 0;
  const buffer = Buffer.allocUnsafe(pieceBytes);
  for (const { offsetBytes, lengthBytes } of extents) {
    for (let done = 0; done < lengthBytes; ) {
      const count = readSync(fd, buffer, 0, Math.min(pieceBytes - inPiece, lengthBytes - done), offsetBytes + done);
      if (count === 0) throw new Error(`${source} ends at byte ${offsetBytes + done}`);
      hash.update(buffer.subarray(0, count));
      done += count;
      inPiece += count;
      if (inPiece < pieceBytes) continue;
      digests.push(hash.digest());
      hash = createHash("sha1");
      inPiece = 0;
    }
  }
  if (inPiece > 0) digests.push(hash.digest());
  closeSync(fd);
  return Buffer.concat(digests);
}
