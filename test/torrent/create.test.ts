/** Writing torrents, read back by our parser and by the `bencode` package, and rewriting what is outside info. */
import { describe, expect, test } from "bun:test";
import bencode from "bencode";
import { sha1 } from "@noble/hashes/legacy.js";
import { AssertionError } from "../../src/errors.ts";
import { scanBencode } from "../../src/torrent/bencode-scan.ts";
import {
  encodeInfo,
  encodeMetainfo,
  infoHashOfTorrent,
  type NewTorrent,
  withoutSource,
  withTrackers,
  wrapInfo,
} from "../../src/torrent/create.ts";
import { makeExtentTable, makeRangeTable } from "../../src/torrent/extents.ts";
import { infoHashOf, parseMetainfo } from "../../src/torrent/metainfo.ts";
import { rawValue } from "../harness/bencode.ts";

const TRACKERS = [["http://a/announce", "http://b/announce"], ["udp://c:6969"]];
const NEW: NewTorrent = {
  name: "büro",
  pieceBytes: 262144,
  pieceHashes: Uint8Array.from({ length: 40 }, (_, i) => i + 100),
  extents: makeExtentTable(Float64Array.of(0, 2 ** 50), Float64Array.of(262144, 7)),
  image: {
    version: 1,
    diskBytes: 2 ** 51,
    sectorBytes: 4096,
    kind: "partition",
    zeroRanges: makeRangeTable(Float64Array.of(262144, 2 ** 49), Float64Array.of(4096, 2 ** 40)),
    partitions: '{"partitiontable":{}}',
    filesystems: ["ext4", ""],
    blockBytes: [4096, 0],
  },
  trackers: TRACKERS,
  sourcePath: "/dev/disk/by-id/büro",
  createdBy: "diskswarm 0.1.0",
  creationDateSeconds: 1_700_000_000,
};

describe("encodeMetainfo", () => {
  test("is canonical and is read back whole", () => {
    const bytes = encodeMetainfo(NEW);
    scanBencode(bytes);
    const read = parseMetainfo(bytes);
    const { name, pieceBytes, pieceHashes, extents, image, sourcePath } = NEW;
    expect(read).toMatchObject({
      name,
      pieceBytes,
      pieceCount: 2,
      layout: "extents",
      extents,
      image: image!,
      sourcePath,
    });
    expect(read.pieceHashes.toHex()).toBe(pieceHashes.toHex());
    expect(read.trackers).toEqual(TRACKERS);
    expect(read.isPrivate).toBe(false);
  });

  test("is what another reader finds in it", () => {
    const decoded = bencode.decode(encodeMetainfo(NEW)) as Record<string, unknown> & { info: Record<string, unknown> };
    const text = (value: unknown): string => Buffer.from(value as Uint8Array).toString();
    expect(Object.keys(decoded)).toEqual([
      "announce",
      "announce-list",
      "created by",
      "creation date",
      "diskswarm source",
      "info",
    ]);
    expect(Object.keys(decoded.info)).toEqual(["diskswarm", "files", "name", "piece length", "pieces"]);
    expect(text(decoded["created by"])).toBe("diskswarm 0.1.0");
    const files = decoded.info.files as { length: number; path: Uint8Array[] }[];
    expect(files.map(({ length, path }) => [length, ...path.map(text)])).toEqual([
      [262144, "00000000000000000000000000000000"],
      [7, "00000000000000000004000000000000"],
    ]);
  });

  test("hashes the info dictionary alone", () => {
    const bytes = encodeMetainfo(NEW);
    const info = encodeInfo(NEW);
    expect(new Uint8Array(rawValue(bytes, "info")!).toHex()).toBe(info.toHex());
    expect(infoHashOf(info)).toEqual(sha1(info));
    expect(infoHashOfTorrent(bytes)).toEqual(sha1(info));
    expect(parseMetainfo(bytes).infoHash).toEqual(sha1(info));
  });

  test("leaves out what is not given; equal input gives equal bytes", () => {
    const bare = { ...NEW, image: null, trackers: [], sourcePath: null, creationDateSeconds: null, isPrivate: true };
    const bytes = encodeMetainfo(bare);
    expect(encodeMetainfo(bare)).toEqual(bytes);
    const decoded = bencode.decode(bytes) as { info: object };
    expect(Object.keys(decoded)).toEqual(["created by", "info"]);
    expect(Object.keys(decoded.info)).toEqual(["files", "name", "piece length", "pieces", "private"]);
    expect(parseMetainfo(bytes).isPrivate).toBe(true);
  });

  test("60,000 extents are all there", () => {
    const count = 60_000;
    const extents = makeExtentTable(
      Float64Array.from({ length: count }, (_, i) => i * 1_000_003),
      Float64Array.from({ length: count }, (_, i) => i + 1),
    );
    const pieceHashes = new Uint8Array(20 * Math.ceil(extents.totalBytes / NEW.pieceBytes));
    expect(parseMetainfo(encodeMetainfo({ ...NEW, extents, pieceHashes, image: null })).extents).toEqual(extents);
  });

  test("refuses nothing to send and bad names; the rest would be a bug of the caller", () => {
    const empty = makeExtentTable(new Float64Array(0), new Float64Array(0));
    expect(() => encodeMetainfo({ ...NEW, extents: empty })).toThrow("nothing of the source is in use");
    expect(() => encodeMetainfo({ ...NEW, name: "a/b" })).toThrow('its name "a/b" is a path');
    expect(() => encodeMetainfo({ ...NEW, pieceHashes: new Uint8Array(20) })).toThrow(AssertionError);
    expect(() => encodeMetainfo({ ...NEW, pieceBytes: 262145 })).toThrow(AssertionError);
    const overlapping = { ...NEW.image!, zeroRanges: makeRangeTable(Float64Array.of(262143), Float64Array.of(4096)) };
    expect(() => encodeMetainfo({ ...NEW, image: overlapping })).toThrow(AssertionError);
    expect(() => encodeMetainfo({ ...NEW, image: { ...NEW.image!, diskBytes: 2 ** 50 } })).toThrow(AssertionError);
  });
});

describe("rewriting outside the info dictionary", () => {
  const original = encodeMetainfo(NEW);
  const info = new Uint8Array(rawValue(original, "info")!);

  test("withoutSource takes the path out and nothing else", () => {
    const stripped = withoutSource(original);
    expect(Buffer.from(stripped).includes("/dev/disk")).toBe(false);
    expect(parseMetainfo(stripped)).toEqual({ ...parseMetainfo(original), sourcePath: null });
    expect(withoutSource(stripped)).toEqual(stripped);
  });
  test("withTrackers replaces them and keeps the raw info bytes", () => {
    const rewritten = withTrackers(original, [["http://new/announce"]]);
    scanBencode(rewritten);
    expect(new Uint8Array(rawValue(rewritten, "info")!)).toEqual(info);
    expect(rawValue(rewritten, "announce-list")).toBeNull();
    expect(parseMetainfo(rewritten).trackers).toEqual([["http://new/announce"]]);
    expect(parseMetainfo(withTrackers(rewritten, NEW.trackers)).trackers).toEqual(TRACKERS);
    expect(parseMetainfo(withTrackers(original, [])).trackers).toEqual([]);
  });
  test("keys of others are kept, in order", () => {
    const foreign = Buffer.from("d1:!1:x8:announce3:old4:info2:hi8:url-listl1:uee");
    expect(Buffer.from(withTrackers(foreign, [["new"]])).toString()).toBe(
      "d1:!1:x8:announce3:new4:info2:hi8:url-listl1:uee",
    );
  });
  test("keys that are no text keep their bytes", () => {
    const key = Uint8Array.from({ length: 128 }, (_, i) => 128 + i);
    const foreign = Buffer.concat([Buffer.from("d4:infode128:"), key, Buffer.from("1:xe")]);
    expect(Buffer.from(withTrackers(foreign, []))).toEqual(foreign);
  });
  test("wrapInfo makes a torrent of fetched metadata", () => {
    const wrapped = parseMetainfo(wrapInfo(info, [["http://t/announce"]]));
    expect(wrapped.infoHash).toEqual(sha1(info));
    expect(wrapped.trackers).toEqual([["http://t/announce"]]);
  });
  test("what is no torrent is refused with a reason", () => {
    expect(() => withoutSource(Buffer.from("d1:a"))).toThrow("ends too early at byte 4");
    expect(() => infoHashOfTorrent(Buffer.from("de"))).toThrow("it has no info dictionary");
  });
});
