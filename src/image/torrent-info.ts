/**
 * Reads a torrent.info, the text that partclone writes with `--btfiles_torrent` and from which EZIO's tool makes a torrent: the
 * extents of a partition and the SHA-1 of every 16 MiB of them. A parser of bytes, incremental, that keeps only what
 * it was told of extents and hashes.
 *
 * Lines, as partclone's torrent_helper.c prints them: `block_size: N`, `blocks_total: N`, then `offset: ` and `length: `
 * with 32 hexadecimal digits for each extent, and `sha1: ` with 40 as soon as a piece is complete.
 */
import { EXTENTS_MAX, PIECE_BYTES_MAX } from "../limits.ts";
import { RangeList } from "./range-list.ts";

export class TorrentInfoFault extends Error {
  override readonly name = "TorrentInfoFault";
}

/** Of partclone, and of EZIO's tool. */
export const TORRENT_INFO_PIECE_BYTES = PIECE_BYTES_MAX;
const SHA1_BYTES = 20;
const LINE_BYTES_MAX = 64;
const LINE_FEED = 0x0a;
const LINE = /^(block_size|blocks_total|offset|length|sha1): ([0-9a-f]{1,40})$/;

export class TorrentInfoParser {
  readonly extents = new RangeList();
  readonly #line = Buffer.alloc(LINE_BYTES_MAX);
  #lineBytes = 0;
  #hashes = Buffer.alloc(1024 * SHA1_BYTES);
  #hashCount = 0;
  #blockBytes = 0;
  #blockCount = 0;
  #offsetBytes: number | null = null;

  /** SHA-1 digests, one for each piece. */
  get pieceHashes(): Uint8Array {
    return this.#hashes.subarray(0, this.#hashCount * SHA1_BYTES);
  }

  push(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte === LINE_FEED) {
        this.#endLine();
        this.#lineBytes = 0;
      } else if (this.#lineBytes === LINE_BYTES_MAX) throw new TorrentInfoFault("has a line that is too long");
      else this.#line[this.#lineBytes++] = byte;
    }
  }

  /** To be called once, after the last byte. Throws TorrentInfoFault; its message follows the file's name. */
  finish(): void {
    if (this.#lineBytes > 0 || this.#offsetBytes !== null) throw new TorrentInfoFault("is cut off");
    if (this.extents.count === 0) throw new TorrentInfoFault("names no extents");
    const pieces = Math.ceil(this.extents.totalBytes / TORRENT_INFO_PIECE_BYTES);
    if (pieces !== this.#hashCount)
      throw new TorrentInfoFault(`is cut off: it has ${this.#hashCount} hashes, its extents make ${pieces} pieces`);
  }

  #endLine(): void {
    const text = this.#line.toString("latin1", 0, this.#lineBytes);
    const [, key, value] = LINE.exec(text) ?? [];
    if (key === undefined) throw this.#badLine(text);
    if (key === "block_size") this.#blockBytes = this.#number(text, value, 10);
    else if (key === "blocks_total") this.#blockCount = this.#number(text, value, 10);
    else if (key === "offset") this.#startExtent(text, value);
    else if (key === "length") this.#endExtent(text, value);
    else this.#addHash(text, value);
  }

  #startExtent(text: string, value: string): void {
    if (this.#offsetBytes !== null) throw this.#badLine(text);
    this.#offsetBytes = this.#number(text, value, 16);
  }

  #endExtent(text: string, value: string): void {
    const offsetBytes = this.#offsetBytes;
    const lengthBytes = this.#number(text, value, 16);
    if (offsetBytes === null || lengthBytes === 0) throw this.#badLine(text);
    const { extents } = this;
    const last = extents.count - 1;
    if (last >= 0 && offsetBytes < extents.offsetAt(last) + extents.lengthAt(last))
      throw new TorrentInfoFault(`names the extent at byte ${offsetBytes} after one that ends behind it`);
    if (offsetBytes + lengthBytes > this.#blockBytes * this.#blockCount)
      throw new TorrentInfoFault(`names an extent beyond its ${this.#blockCount} blocks of ${this.#blockBytes} bytes`);
    if (extents.count === EXTENTS_MAX) throw new TorrentInfoFault(`names more than ${EXTENTS_MAX} extents`);
    extents.push(offsetBytes, lengthBytes);
    this.#offsetBytes = null;
  }

  #addHash(text: string, value: string): void {
    if (value.length !== SHA1_BYTES * 2) throw this.#badLine(text);
    // There are never more hashes than extents make pieces: partclone prints one when its piece is complete.
    if (this.#hashCount * TORRENT_INFO_PIECE_BYTES >= this.extents.totalBytes) throw this.#badLine(text);
    if (this.#hashes.length === this.#hashCount * SHA1_BYTES)
      this.#hashes = Buffer.concat([this.#hashes, Buffer.alloc(this.#hashes.length)]);
    this.#hashes.write(value, this.#hashCount++ * SHA1_BYTES, "hex");
  }

  #number(text: string, digits: string, base: 10 | 16): number {
    const number = base === 10 && !/^\d+$/.test(digits) ? Number.NaN : Number.parseInt(digits, base);
    if (!Number.isSafeInteger(number)) throw this.#badLine(text);
    return number;
  }

  #badLine(text: string): TorrentInfoFault {
    return new TorrentInfoFault(`has the line ${JSON.stringify(text.replace(/[^ -~]/g, "?").slice(0, 60))}`);
  }
}
