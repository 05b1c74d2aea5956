/** Fuzz targets of src/image/foreign and beside it: what files of partclone and Clonezilla say. */
import { deepStrictEqual, ok } from "node:assert";
import { BitmapParser, PartcloneImageFault, parsePartcloneHead } from "../../src/image/foreign/partclone-image.ts";
import { missingSuffix } from "../../src/image/foreign/split-files.ts";
import { TorrentInfoFault, TorrentInfoParser } from "../../src/image/torrent-info.ts";
import type { SeededRandom } from "../harness/random.ts";
import { partcloneBytes } from "../image/foreign/partclone-bytes.ts";
import { mutate, onlyThrows } from "./mutate.ts";

/** A bitmap reads the same in any pieces; what is accepted has ascending runs within its blocks. */
export function fuzzPartcloneImage(random: SeededRandom): void {
  const blockCount = 1 + random.below(300);
  const used = Array.from({ length: blockCount }, (_, i) => i).filter(() => random.below(3) > 0);
  const valid = partcloneBytes(random.below(2) === 0 ? 1 : 2, blockCount, 512 << random.below(4), used);
  deepStrictEqual(readBitmap(random, valid), readBitmap(null, valid));
  const runs = onlyThrows(PartcloneImageFault, () => readBitmap(random, Buffer.from(mutate(random, valid)))) ?? [];
  let end = 0;
  for (const [offset, length] of runs) {
    ok(offset >= end && length > 0 && Number.isSafeInteger(offset + length));
    end = offset + length;
  }
}

/** In random pieces, or whole without a generator. */
function readBitmap(random: SeededRandom | null, bytes: Buffer): number[][] {
  const head = parsePartcloneHead(bytes);
  const runs: number[][] = [];
  const parser = new BitmapParser(head, (offset, length) => void runs.push([offset, length]));
  for (let at = head.headBytes; at < bytes.length; ) {
    const length = random === null ? bytes.length : 1 + random.below(40);
    parser.push(bytes.subarray(at, at + length));
    at += length;
  }
  parser.finish();
  return runs;
}

/** Nothing but its fault is thrown; what is accepted has ascending extents and a hash for each piece. */
export function fuzzTorrentInfo(random: SeededRandom): void {
  const blockBytes = 512 << random.below(5);
  let text = `block_size: ${blockBytes}\nblocks_total: 100000\n`;
  let at = 0;
  for (let extents = 1 + random.below(20); extents > 0; extents--) {
    const offset = at + random.below(50) * blockBytes;
    const length = (1 + random.below(50)) * blockBytes;
    text += `offset: ${hex(offset)}\nlength: ${hex(length)}\n`;
    at = offset + length;
  }
  text += `sha1: ${"0a".repeat(20)}\n`;
  readInfo(Buffer.from(text));
  const parser = onlyThrows(TorrentInfoFault, () => readInfo(mutate(random, Buffer.from(text))));
  if (parser === null) return;
  let end = 0;
  for (let i = 0; i < parser.extents.count; i++) {
    ok(parser.extents.offsetAt(i) >= end);
    end = parser.extents.offsetAt(i) + parser.extents.lengthAt(i);
  }
  deepStrictEqual(parser.pieceHashes.length / 20, Math.ceil(parser.extents.totalBytes / (16 * 1024 * 1024)));
}

function readInfo(bytes: Uint8Array): TorrentInfoParser {
  const parser = new TorrentInfoParser();
  parser.push(bytes);
  parser.finish();
  return parser;
}

function hex(value: number): string {
  return value.toString(16).padStart(32, "0");
}

/** Whatever one suffix is taken away is the one that is missing, but for the last. */
export function fuzzSplitFiles(random: SeededRandom): void {
  const length = 2 + random.below(2);
  const all = Array.from({ length: 3 + random.below(60) }, (_, i) => suffixOf(i, length));
  deepStrictEqual(missingSuffix(all), null);
  const gone = random.below(all.length - 1);
  deepStrictEqual(missingSuffix(all.filter((_, i) => i !== gone)), all[gone]);
}

function suffixOf(index: number, length: number): string {
  const digits = index.toString(26).padStart(length, "0");
  return [...digits].map((digit) => String.fromCharCode(97 + Number.parseInt(digit, 26))).join("");
}
