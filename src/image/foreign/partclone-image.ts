/**
 * The head and the bitmap of an image that partclone wrote: how large its device was, and which blocks the filesystem
 * used. partclone.info prints the one and not the other, and the bitmap is the map that says what may be left alone on
 * a target. Restoring the blocks, and checking them, is left to partclone.restore.
 *
 * Formats 0001 and 0002 as in partclone's IMAGE_FORMATS.md, of the machines that it runs on: little-endian.
 */

export class PartcloneImageFault extends Error {
  override readonly name = "PartcloneImageFault";
}

export interface PartcloneHead {
  /** partclone's word, such as `EXTFS`. */
  readonly filesystem: string;
  readonly deviceBytes: number;
  readonly blockBytes: number;
  readonly blockCount: number;
  /** What stands before the bitmap. */
  readonly headBytes: number;
  readonly bitmap: "bits" | "bytes" | "none";
  /** With its checksum or magic. */
  readonly bitmapBytes: number;
}

/** Enough for a head of either format. */
export const PARTCLONE_HEAD_BYTES = 4160;
const HEAD_2_BYTES = 110;
const MAGIC = "partclone-image";
const BITMAP_MAGIC = "BiTmAgIc";
const LITTLE_ENDIAN = 0xc0de;
/** partclone's own limits: a sector, and MAX_BLOCK_SIZE. */
const BLOCK_BYTES_MIN = 512;
const BLOCK_BYTES_MAX = 64 * 1024 * 1024;
const MODES: Readonly<Record<number, PartcloneHead["bitmap"]>> = { 0: "none", 1: "bits", 8: "bytes" };

/** Do the bytes begin like an image of partclone? */
export function isPartcloneImage(bytes: Buffer): boolean {
  return bytes.toString("latin1", 0, MAGIC.length) === MAGIC;
}

/** Reads the head from an image's first bytes. Throws PartcloneImageFault; its message follows "the image". */
export function parsePartcloneHead(bytes: Buffer): PartcloneHead {
  if (!isPartcloneImage(bytes)) throw new PartcloneImageFault("is none of partclone");
  const version = bytes.toString("latin1", 30, 34);
  if (version === "0001") return parseHead1(bytes);
  if (version === "0002") return parseHead2(bytes);
  const shown = version.replace(/[^ -~]/g, "?");
  throw new PartcloneImageFault(
    `has format ${JSON.stringify(shown)}, which is not known: convert it with a newer partclone`,
  );
}

function parseHead1(bytes: Buffer): PartcloneHead {
  if (bytes.length < PARTCLONE_HEAD_BYTES) throw new PartcloneImageFault("is cut off in its head");
  const blockCount = count(bytes, 48);
  return checkedHead({
    filesystem: word(bytes, 15, 15),
    deviceBytes: count(bytes, 40),
    blockBytes: bytes.readUInt32LE(36),
    blockCount,
    headBytes: PARTCLONE_HEAD_BYTES,
    bitmap: "bytes",
    bitmapBytes: blockCount + BITMAP_MAGIC.length,
  });
}

function parseHead2(bytes: Buffer): PartcloneHead {
  if (bytes.length < HEAD_2_BYTES) throw new PartcloneImageFault("is cut off in its head");
  if (bytes.readUInt16LE(34) !== LITTLE_ENDIAN)
    throw new PartcloneImageFault("was written by a big-endian machine: restore it there");
  if (partcloneCrc(bytes.subarray(0, HEAD_2_BYTES - 4)) !== bytes.readUInt32LE(HEAD_2_BYTES - 4))
    throw new PartcloneImageFault("has a damaged head: its checksum is wrong");
  const bitmap = MODES[bytes[105]];
  if (bitmap === undefined) throw new PartcloneImageFault(`has a bitmap of kind ${bytes[105]}, which is not known`);
  const blockCount = count(bytes, 60);
  const bitmapBytes = { none: 0, bits: Math.ceil(blockCount / 8) + 4, bytes: blockCount + BITMAP_MAGIC.length }[bitmap];
  return checkedHead({
    filesystem: word(bytes, 36, 16),
    deviceBytes: count(bytes, 52),
    blockBytes: bytes.readUInt32LE(84),
    blockCount,
    headBytes: HEAD_2_BYTES,
    bitmap,
    bitmapBytes,
  });
}

function checkedHead(head: PartcloneHead): PartcloneHead {
  const { blockBytes, blockCount, deviceBytes } = head;
  const isBlockSize = blockBytes >= BLOCK_BYTES_MIN && blockBytes <= BLOCK_BYTES_MAX;
  if (!isBlockSize || blockCount === 0 || !Number.isSafeInteger(blockBytes * blockCount))
    throw new PartcloneImageFault(`makes no sense: ${blockCount} blocks of ${blockBytes} bytes`);
  // Some filesystems are said to be smaller than their blocks are together: by less than one.
  if (deviceBytes + blockBytes <= blockBytes * (blockCount - 1))
    throw new PartcloneImageFault(`makes no sense: its blocks end beyond its device of ${deviceBytes} bytes`);
  return head;
}

/** A 64-bit number; what no disk has is no number here either. */
function count(bytes: Buffer, offset: number): number {
  const value = bytes.readBigUInt64LE(offset);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new PartcloneImageFault(`makes no sense: it counts ${value}`);
  return Number(value);
}

function word(bytes: Buffer, offset: number, lengthBytes: number): string {
  return /^[\w +.-]*/.exec(bytes.toString("latin1", offset, offset + lengthBytes))![0];
}

/** CRC-32 as partclone computes it: without the inversion at the end. */
function partcloneCrc(bytes: Uint8Array): number {
  return ~Bun.hash.crc32(bytes) >>> 0;
}

/** Reads a bitmap piece by piece in constant memory, and tells the used runs in bytes, ascending. */
export class BitmapParser {
  #crc = 0;
  #position = 0;
  #block = 0;
  #runBlock = -1;
  #usedBytes = 0;
  readonly #tail: number[] = [];

  /** `used` hears the runs. */
  constructor(
    readonly head: PartcloneHead,
    readonly used: (offsetBytes: number, lengthBytes: number) => void,
  ) {}

  /** Bytes of all used blocks. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  push(bytes: Uint8Array): void {
    const { bitmap, bitmapBytes } = this.head;
    const mapBytes = Math.max(0, bitmapBytes - (bitmap === "bits" ? 4 : BITMAP_MAGIC.length));
    const map = bytes.subarray(0, Math.max(0, mapBytes - this.#position));
    if (bitmap === "bits") this.#pushBits(map);
    else if (bitmap === "bytes") for (const byte of map) this.#push(byte === 1);
    const left = bitmapBytes - this.#position;
    for (const byte of bytes.subarray(map.length, Math.max(0, left))) this.#tail.push(byte);
    this.#position += bytes.length;
  }

  /** To be called once, after the last byte. Throws PartcloneImageFault. */
  finish(): void {
    const { bitmap, bitmapBytes, blockCount } = this.head;
    if (this.#position < bitmapBytes) throw new PartcloneImageFault("is cut off in its bitmap");
    const tail = Buffer.from(this.#tail);
    if (bitmap === "bits" && tail.readUInt32LE() !== ~this.#crc >>> 0)
      throw new PartcloneImageFault("has a damaged bitmap: its checksum is wrong");
    if (bitmap === "bytes" && tail.toString("latin1") !== BITMAP_MAGIC)
      throw new PartcloneImageFault("has a damaged bitmap: its end is not where it belongs");
    if (bitmap === "none") this.#runBlock = 0;
    this.#block = blockCount;
    this.#endRun();
  }

  #pushBits(map: Uint8Array): void {
    this.#crc = Bun.hash.crc32(map, this.#crc);
    const { blockCount } = this.head;
    for (const byte of map) {
      // Most of a bitmap is runs: eight blocks at once where they are alike and go on with the run.
      const isAll = byte === 0xff && this.#runBlock >= 0;
      const isNone = byte === 0 && this.#runBlock < 0;
      if (isAll || isNone) this.#block += 8;
      else for (let bit = 0; bit < 8 && this.#block < blockCount; bit++) this.#push((byte & (1 << bit)) !== 0);
    }
  }

  #push(isUsed: boolean): void {
    if (isUsed && this.#runBlock < 0) this.#runBlock = this.#block;
    else if (!isUsed) this.#endRun();
    this.#block++;
  }

  #endRun(): void {
    if (this.#runBlock < 0) return;
    const { blockBytes } = this.head;
    const lengthBytes = (this.#block - this.#runBlock) * blockBytes;
    this.#usedBytes += lengthBytes;
    this.used(this.#runBlock * blockBytes, lengthBytes);
    this.#runBlock = -1;
  }
}
