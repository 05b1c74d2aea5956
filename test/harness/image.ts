/**
 * Images for tests: every 512-byte sector carries its own address and the image's seed, at its head and at
 * its end, so that a sector written to a wrong place, or half written, tells where it came from.
 */
import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { seededRandom } from "./random.ts";

export const SECTOR_BYTES = 512;
const CHUNK_BYTES = 4 * 1024 * 1024;
const TAIL_WORD = SECTOR_BYTES / 4 - 3;

export interface Extent {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Creates (or empties) a file that is one hole of `lengthBytes`. */
export function sparseFile(path: string, lengthBytes: number): void {
  const fd = openSync(path, "w");
  ftruncateSync(fd, lengthBytes);
  closeSync(fd);
}

/** Fills [0, lengthBytes) of a file or device with bytes that no image of ours contains. */
export function fillRandom(path: string, lengthBytes: number, seed = 0xd1127): void {
  const chunk = randomBytes(CHUNK_BYTES, seed);
  const fd = openSync(path, "r+");
  for (let offset = 0; offset < lengthBytes; offset += CHUNK_BYTES) {
    writeFully(fd, chunk.subarray(0, Math.min(CHUNK_BYTES, lengthBytes - offset)), offset);
  }
  fsyncSync(fd);
  closeSync(fd);
}

export function randomBytes(lengthBytes: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  const words = new Uint32Array(Math.ceil(lengthBytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.uint32();
  return new Uint8Array(words.buffer, 0, lengthBytes);
}

/** Writes stamped sectors into the given extents of an existing file. Extents start on a sector; a length may be odd. */
export function writeStamped(path: string, extents: Iterable<Extent>, seed: number): void {
  const stamper = new Stamper(seed);
  const fd = openSync(path, "r+");
  for (const { offsetBytes, lengthBytes } of extents) {
    for (let done = 0; done < lengthBytes; ) {
      const length = Math.min(CHUNK_BYTES, lengthBytes - done);
      writeFully(fd, stamper.stamp(offsetBytes + done, length), offsetBytes + done);
      done += length;
    }
  }
  closeSync(fd);
}

/** A file of `lengthBytes` with stamped sectors in the extents (everywhere by default) and holes between them. */
export function stampedImage(path: string, lengthBytes: number, seed: number, extents?: Iterable<Extent>): string {
  sparseFile(path, lengthBytes);
  writeStamped(path, extents ?? [{ offsetBytes: 0, lengthBytes }], seed);
  return path;
}

/** A file of `lengthBytes` in which each byte holds half a byte's worth: any compressor makes half of it, none much less. */
export function halfEmptyImage(path: string, lengthBytes: number, seed: number): string {
  sparseFile(path, lengthBytes);
  fillHalfEmpty(path, [{ offsetBytes: 0, lengthBytes }], seed);
  return path;
}

/** Likewise for some extents of an existing file. */
export function fillHalfEmpty(path: string, extents: Iterable<Extent>, seed: number): void {
  const fd = openSync(path, "r+");
  let chunks = 0;
  for (const { offsetBytes, lengthBytes } of extents) {
    for (let done = 0; done < lengthBytes; done += CHUNK_BYTES) {
      const chunk = randomBytes(Math.min(CHUNK_BYTES, lengthBytes - done), seed + 7919 * chunks++);
      for (let i = 0; i < chunk.length; i++) chunk[i] = 0x60 | (chunk[i]! & 0x0f);
      writeFully(fd, chunk, offsetBytes + done);
    }
  }
  closeSync(fd);
}

/** What the head of a sector says about itself. */
export interface Stamp {
  readonly offsetBytes: number;
  readonly seed: number;
}

const MAGIC = 0x5ec70125;

/** Reads the stamp of a sector, or null where it has none. */
export function readStamp(sector: Uint8Array): Stamp | null {
  if (sector.length < 16) return null;
  const view = new DataView(sector.buffer, sector.byteOffset, sector.length);
  if (view.getUint32(0, true) !== MAGIC) return null;
  return { offsetBytes: view.getUint32(4, true) + view.getUint32(8, true) * 2 ** 32, seed: view.getUint32(12, true) };
}

class Stamper {
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;

  constructor(private readonly seed: number) {
    this.#bytes = randomBytes(CHUNK_BYTES, seed);
    this.#words = new Uint32Array(this.#bytes.buffer);
  }

  /** A view of the bytes that belong at `offsetBytes`; valid until the next call. */
  stamp(offsetBytes: number, lengthBytes: number): Uint8Array {
    const words = this.#words;
    for (let at = 0; at < lengthBytes; at += SECTOR_BYTES) {
      const word = at / 4;
      const low = (offsetBytes + at) % 2 ** 32;
      const high = Math.floor((offsetBytes + at) / 2 ** 32);
      words[word] = MAGIC;
      words[word + 1] = low;
      words[word + 2] = high;
      words[word + 3] = this.seed;
      words[word + TAIL_WORD] = low;
      words[word + TAIL_WORD + 1] = high;
      words[word + TAIL_WORD + 2] = this.seed;
    }
    return this.#bytes.subarray(0, lengthBytes);
  }
}

/** `count` disjoint extents, ascending, at multiples of `alignBytes`, of lengths that the alignment makes odd. */
export function scatteredExtents(
  count: number,
  diskBytes: number,
  alignBytes: readonly number[],
  seed: number,
): Extent[] {
  const random = seededRandom(seed);
  const slot = Math.floor(diskBytes / count / SECTOR_BYTES) * SECTOR_BYTES;
  const extents: Extent[] = [];
  for (let i = 0; i < count; i++) {
    const align = alignBytes[random.below(alignBytes.length)]!;
    const first = Math.ceil((i * slot) / align) + random.below(3);
    const room = Math.floor(((i + 1) * slot) / align) - first - 1;
    if (room < 1) throw new Error(`${count} extents do not fit ${diskBytes} bytes at ${align}`);
    extents.push({ offsetBytes: first * align, lengthBytes: (1 + random.below(room)) * align });
  }
  return extents;
}

export function writeFully(fd: number, bytes: Uint8Array, offsetBytes: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, offsetBytes + done);
  }
}
