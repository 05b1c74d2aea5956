/**
 * The image of the demonstration: every sector carries its own address, a part of it is zero, and the rest
 * is noise, so that a byte in a wrong place cannot go unnoticed.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { assert } from "../errors.ts";
import { randomBytes } from "../random-bytes.ts";
import { MiB } from "../units.ts";

const CHUNK_BYTES = 4 * MiB;
const SECTOR_BYTES = 512;
/** Of 8 chunks in a row, the last 2 are zero: a quarter of the image, as free space on a disk would be. */
const CHUNK_GROUP = 8;
const ZERO_CHUNKS = 2;

/** Writes the image and gives way between chunks. Stops early when the signal aborts. */
export async function makeDemoImage(path: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const chunk = randomBytes(CHUNK_BYTES);
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
  const fd = openSync(path, "wx");
  try {
    ftruncateSync(fd, sizeBytes);
    for (let offset = 0; offset < sizeBytes && !signal.aborted; offset += CHUNK_BYTES) {
      if ((offset / CHUNK_BYTES) % CHUNK_GROUP >= CHUNK_GROUP - ZERO_CHUNKS) continue;
      for (let at = 0; at < CHUNK_BYTES; at += SECTOR_BYTES) view.setBigUint64(at, BigInt(offset + at));
      const lengthBytes = Math.min(CHUNK_BYTES, sizeBytes - offset);
      const written = writeSync(fd, chunk, 0, lengthBytes, offset);
      assert(written === lengthBytes, `a write to a file came back short: ${written} of ${lengthBytes} bytes`);
      await Bun.sleep(0);
    }
  } finally {
    closeSync(fd);
  }
}

/** Offset of the first byte that differs from the image within its length, or null where all are equal. */
export async function firstDifference(image: string, copy: string, sizeBytes: number): Promise<number | null> {
  const [imageFd, copyFd] = [openSync(image, "r"), openSync(copy, "r")];
  const [wanted, found] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
  try {
    for (let offset = 0; offset < sizeBytes; offset += CHUNK_BYTES) {
      const lengthBytes = Math.min(CHUNK_BYTES, sizeBytes - offset);
      const wantedBytes = readSync(imageFd, wanted, 0, lengthBytes, offset);
      const foundBytes = readSync(copyFd, found, 0, lengthBytes, offset);
      assert(wantedBytes === lengthBytes, `${image} became shorter while it was compared`);
      if (wanted.compare(found, 0, foundBytes, 0, lengthBytes) !== 0)
        return offset + differenceAt(wanted, found, foundBytes);
      await Bun.sleep(0);
    }
    return null;
  } finally {
    closeSync(imageFd);
    closeSync(copyFd);
  }
}

function differenceAt(wanted: Buffer, found: Buffer, foundBytes: number): number {
  let at = 0;
  while (at < foundBytes && wanted[at] === found[at]) at++;
  return at;
}
