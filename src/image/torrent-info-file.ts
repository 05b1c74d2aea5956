/** partclone's torrent.info as extents that a capture is to send and the hashes that they have to have. */
import { closeSync, openSync, readSync } from "node:fs";
import { ExitCode, Failure } from "../errors.ts";
import { MiB } from "../units.ts";
import type { ExactExtents } from "./exact-extents.ts";
import { TorrentInfoFault, TorrentInfoParser } from "./torrent-info.ts";

const CHUNK_BYTES = 1 * MiB;

/** Throws Failure (exit 1) for what partclone did not write to its end. */
export function readTorrentInfo(path: string): ExactExtents {
  const parser = new TorrentInfoParser();
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const fd = openSync(path, "r");
  try {
    for (;;) {
      const length = readSync(fd, chunk, 0, chunk.length, null);
      if (length === 0) break;
      parser.push(chunk.subarray(0, length));
    }
    parser.finish();
  } catch (error) {
    if (error instanceof TorrentInfoFault)
      throw new Failure(ExitCode.failed, "torrent-info", `${path} ${error.message}: make it again with partclone`);
    throw error;
  } finally {
    closeSync(fd);
  }
  return { extents: parser.extents.table(), expected: { path, pieceHashes: parser.pieceHashes } };
}
