/** Fuzz targets of src/torrent: bencode, torrents, packed ranges, magnet links. */
import { deepStrictEqual, ok } from "node:assert";
import { sha1 } from "@noble/hashes/legacy.js";
import { Failure } from "../../src/errors.ts";
import { BencodeFault, scanBencode } from "../../src/torrent/bencode-scan.ts";
import { encodeMetainfo, withoutSource, withTrackers } from "../../src/torrent/create.ts";
import { firstOverlap, makeExtentTable, makeRangeTable, rangesProblem } from "../../src/torrent/extents.ts";
import { formatMagnet, parseMagnet } from "../../src/torrent/magnet.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import { decodeRanges, encodeRanges } from "../../src/torrent/range-codec.ts";
import type { RangeTable } from "../../src/torrent/types.ts";
import { type Bencodable, encode } from "../harness/bencode.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows, randomBytes } from "./mutate.ts";

/** A valid value is accepted; what else is accepted encodes back to the same bytes: it was canonical. */
export function fuzzBencode(random: SeededRandom): void {
  const valid = encode(randomValue(random, 0));
  scanBencode(valid);
  const broken = random.below(4) === 0 ? randomBytes(random, random.below(40)) : mutate(random, valid);
  const accepted = onlyThrows(BencodeFault, () => {
    scanBencode(broken);
    return true;
  });
  if (accepted) deepStrictEqual(Buffer.from(reencode(broken)), Buffer.from(broken));
}

/** What was written is read back; what else is read has sound tables and the right info hash. */
export function fuzzMetainfo(random: SeededRandom): void {
  const valid = randomTorrent(random);
  const read = parseMetainfo(valid);
  deepStrictEqual(parseMetainfo(withoutSource(valid)).infoHash, read.infoHash);
  deepStrictEqual(parseMetainfo(withTrackers(valid, [["http://x/a"], ["udp://y"]])).infoHash, read.infoHash);

  const broken = onlyThrows(Failure, () => parseMetainfo(mutate(random, valid)));
  if (broken === null) return;
  const { extents, image } = broken;
  deepStrictEqual(rangesProblem(extents.diskOffsetBytes, extents.lengthBytes, extents.count), null);
  deepStrictEqual(broken.pieceCount, Math.ceil(extents.totalBytes / broken.pieceBytes));
  deepStrictEqual(broken.pieceHashes.length, 20 * broken.pieceCount);
  deepStrictEqual(Buffer.from(broken.infoHash), Buffer.from(sha1(broken.infoBytes)));
  if (image !== null) ok(firstOverlap(image.zeroRanges, extents) < 0);
}

/** Ranges survive packing; bytes that unpack pack to the same bytes. */
export function fuzzRanges(random: SeededRandom): void {
  const ranges = randomRanges(random, 2 ** 45, 20);
  const packed = encodeRanges(ranges);
  deepStrictEqual(decodeRanges(packed), ranges);
  const broken = mutate(random, packed);
  const unpacked = decodeRanges(broken);
  if (typeof unpacked !== "string") deepStrictEqual(Buffer.from(encodeRanges(unpacked)), Buffer.from(broken));
}

/** A link that was read is written and read again to the same. */
export function fuzzMagnet(random: SeededRandom): void {
  const valid = formatMagnet({
    infoHash: randomBytes(random, 20),
    name: random.below(2) === 0 ? null : `lab ${random.uint32()} é&=+%`,
    trackers: Array.from({ length: random.below(3) }, (_, i) => `http://t${i}/announce?key=a+b&c`),
    peers: Array.from({ length: random.below(3) }, () => `[2001:db8::${random.below(9)}]:${1 + random.below(65535)}`),
  });
  deepStrictEqual(formatMagnet(parseMagnet(valid)), valid);
  const broken = onlyThrows(Failure, () =>
    parseMagnet(Buffer.from(mutate(random, Buffer.from(valid))).toString("latin1")),
  );
  if (broken !== null) deepStrictEqual(parseMagnet(formatMagnet(broken)), broken);
}

function randomTorrent(random: SeededRandom): Uint8Array {
  const pieceBytes = 2 ** (14 + random.below(4));
  const zerosAndExtents = randomRanges(random, 2 ** 20, 12);
  // Every third range is zeros, so that both tables are disjoint and interleaved.
  const pick = (wantZero: boolean): [Float64Array, Float64Array] => {
    const chosen = Array.from({ length: zerosAndExtents.count }, (_, i) => i).filter((i) => (i % 3 === 1) === wantZero);
    return [
      Float64Array.from(chosen, (i) => zerosAndExtents.diskOffsetBytes[i]!),
      Float64Array.from(chosen, (i) => zerosAndExtents.lengthBytes[i]!),
    ];
  };
  const extents = makeExtentTable(...pick(false));
  const image = {
    version: 1 as const,
    diskBytes: 2 ** 26,
    sectorBytes: 512,
    kind: "disk" as const,
    zeroRanges: makeRangeTable(...pick(true)),
    ...(random.below(2) === 0
      ? {}
      : { partitions: '{"partitiontable":{}}', filesystems: ["ext4", ""], blockBytes: [1024, 0] }),
  };
  return encodeMetainfo({
    name: "lab",
    pieceBytes,
    pieceHashes: randomBytes(random, 20 * Math.ceil(extents.totalBytes / pieceBytes)),
    extents,
    image: random.below(3) === 0 ? null : image,
    trackers: random.below(2) === 0 ? [] : [["http://10.0.0.1:6969/announce"], ["udp://10.0.0.1:6969"]],
    sourcePath: random.below(2) === 0 ? null : "/dev/sda",
    createdBy: "test",
    creationDateSeconds: random.below(2) === 0 ? null : 1_700_000_000,
    isPrivate: random.below(2) === 0,
  });
}

/** At least one range; gaps and lengths below `bound / 16`. */
function randomRanges(random: SeededRandom, bound: number, countMax: number): RangeTable {
  const count = 1 + random.below(countMax);
  const starts = new Float64Array(count);
  const lengths = new Float64Array(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const scale = Math.max(2, bound / 16 / 2 ** random.below(20));
    at += Math.floor((random.uint32() / 2 ** 32) * scale);
    starts[i] = at;
    lengths[i] = 1 + Math.floor((random.uint32() / 2 ** 32) * scale);
    at += lengths[i]!;
  }
  return makeRangeTable(starts, lengths);
}

function randomValue(random: SeededRandom, depth: number): Bencodable {
  const kind = random.below(depth < 4 ? 4 : 2);
  if (kind === 0) return (random.below(2) === 0 ? 1 : -1) * random.below(2 ** random.below(32)) || 0;
  if (kind === 1) return randomBytes(random, random.below(12));
  if (kind === 2) return Array.from({ length: random.below(4) }, () => randomValue(random, depth + 1));
  const keys = [...new Set(Array.from({ length: random.below(5) }, () => `k${random.below(30)}`))].sort();
  return Object.fromEntries(keys.map((key) => [key, randomValue(random, depth + 1)]));
}

/** Reads and writes again, the simplest way; text is one character per byte, integers are of any size. */
function reencode(bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(bytes).toString("latin1");
  let at = 0;
  const read = (): string => {
    const first = text[at]!;
    if (first === "i") {
      const digits = text.slice(at + 1, text.indexOf("e", at));
      at += digits.length + 2;
      return `i${BigInt(digits)}e`;
    }
    if (first === "l" || first === "d") {
      at++;
      const items: string[] = [];
      while (text[at] !== "e") items.push(first === "l" ? read() : read() + read());
      at++;
      return `${first}${(first === "l" ? items : sortedUnique(items)).join("")}e`;
    }
    const colon = text.indexOf(":", at);
    const length = Number(text.slice(at, colon));
    const value = text.slice(colon + 1, colon + 1 + length);
    at = colon + 1 + length;
    return `${length}:${value}`;
  };
  return Buffer.from(read(), "latin1");
}

/** Entries of a dictionary by key, each key once. */
function sortedUnique(entries: string[]): string[] {
  const keyOf = (entry: string): string => {
    const colon = entry.indexOf(":");
    return entry.slice(colon + 1, colon + 1 + Number(entry.slice(0, colon)));
  };
  const byKey = new Map(entries.map((entry) => [keyOf(entry), entry]));
  return [...byKey.keys()].sort().map((key) => byKey.get(key)!);
}
