/** Reading torrents: the layouts that deploy, each reason to refuse, and large or hostile files. */
import { describe, expect, test } from "bun:test";
import { sha1 } from "@noble/hashes/legacy.js";
import { Failure } from "../../src/errors.ts";
import { EXTENTS_MAX, TORRENT_BYTES_MAX } from "../../src/limits.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import { KiB, MiB } from "../../src/units.ts";
import { type Bencodable, encode } from "../harness/bencode.ts";
import { extentPath } from "../harness/torrents.ts";

type Fields = Record<string, Bencodable>;

/** Sorted by key, because the tests' encoder writes what it is given. */
function sorted(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function torrent(info: Fields, outside: Fields = {}): Uint8Array {
  return encode(sorted({ ...outside, info: sorted(info) }));
}

function without(fields: Fields, key: string): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name !== key));
}

const hashes = (count: number): Uint8Array => Uint8Array.from({ length: 20 * count }, (_, i) => i);
const file = (offset: number, length: number): Fields => ({ length, path: [extentPath(offset)] });
const SINGLE: Fields = { name: "disk.raw", "piece length": 32 * KiB, pieces: hashes(4), length: 100_000 };
const EXTENTS: Fields = {
  name: "sda1",
  "piece length": 16 * MiB,
  pieces: hashes(1),
  files: [file(0, 4096), file(65536, 8192), file(2 ** 41, 512)],
};
const IMAGE: Fields = { "disk bytes": 2 ** 42, kind: "disk", "sector bytes": 512, version: 1 };

function reason(bytes: Uint8Array): string {
  try {
    parseMetainfo(bytes);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect([error.exitCode, error.code]).toEqual([1, "bad-torrent"]);
    expect(error.message).not.toContain("\n");
    return error.message.replace("not a torrent that can be deployed: ", "");
  }
  return "accepted";
}

describe("parseMetainfo reads", () => {
  test("an ordinary torrent of one file as one extent from offset 0", () => {
    const read = parseMetainfo(torrent(SINGLE, { announce: "http://t/announce" }));
    expect(read.layout).toBe("single");
    expect(read.name).toBe("disk.raw");
    expect([read.pieceBytes, read.pieceCount]).toEqual([32 * KiB, 4]);
    expect(read.pieceHashes).toEqual(hashes(4));
    expect(read.extents).toEqual({
      count: 1,
      diskOffsetBytes: Float64Array.of(0),
      lengthBytes: Float64Array.of(100_000),
      torrentOffsetBytes: Float64Array.of(0),
      totalBytes: 100_000,
    });
    expect(read.trackers).toEqual([["http://t/announce"]]);
    expect([read.image, read.isPrivate, read.sourcePath]).toEqual([null, false, null]);
  });

  test("partclone's and EZIO's layout as extents at their disk offsets", () => {
    const read = parseMetainfo(torrent(EXTENTS));
    expect(read.layout).toBe("extents");
    expect(read.extents).toEqual({
      count: 3,
      diskOffsetBytes: Float64Array.of(0, 65536, 2 ** 41),
      lengthBytes: Float64Array.of(4096, 8192, 512),
      torrentOffsetBytes: Float64Array.of(0, 4096, 12288),
      totalBytes: 12800,
    });
    expect(read.trackers).toEqual([]);
  });

  test("the info hash of the raw bytes, as another implementation computes it", () => {
    const info = sorted({ ...EXTENTS, source: "unknown keys count too" });
    const read = parseMetainfo(torrent(info));
    expect(read.infoBytes).toEqual(new Uint8Array(encode(info)));
    expect(read.infoHash).toEqual(sha1(encode(info)));
  });

  test("short and upper-case offsets; files without bytes are left out", () => {
    const files = [
      { length: 1, path: ["0"] },
      { length: 0, path: ["1"] },
      { length: 2, path: ["A"] },
      { length: 3, path: ["00fF"] },
    ];
    const read = parseMetainfo(torrent({ ...EXTENTS, files }));
    expect([...read.extents.diskOffsetBytes]).toEqual([0, 10, 255]);
    expect([...read.extents.lengthBytes]).toEqual([1, 2, 3]);
  });

  test("more extents than the first arrays hold", () => {
    const files = Array.from({ length: 5000 }, (_, i) => file(i * 1024, 512));
    const read = parseMetainfo(torrent({ ...EXTENTS, files }));
    expect(read.extents.count).toBe(5000);
    expect(read.extents.diskOffsetBytes).toHaveLength(5000);
    expect(read.extents.torrentOffsetBytes[4999]).toBe(4999 * 512);
  });

  test("tracker tiers before the single tracker, privacy, the source's path", () => {
    const outside = {
      announce: "http://a",
      "announce-list": [["http://b", ""], [], ["udp://c"]],
      "diskswarm source": "/dev/sda",
    };
    const read = parseMetainfo(torrent({ ...SINGLE, private: 1 }, outside));
    expect(read.trackers).toEqual([["http://b"], ["udp://c"]]);
    expect(read.isPrivate).toBe(true);
    expect(read.sourcePath).toBe("/dev/sda");
    expect(parseMetainfo(torrent(SINGLE, { announce: "http://a", "announce-list": [[]] })).trackers).toEqual([
      ["http://a"],
    ]);
  });

  test("our own dictionary with its zero ranges", () => {
    const image = {
      ...IMAGE,
      "zero ranges": Uint8Array.of(0x80, 0x20, 0x80, 0x40),
      partitions: "{}",
      filesystems: ["ext4"],
      later: 1,
    };
    const read = parseMetainfo(torrent({ ...EXTENTS, diskswarm: sorted(image) }));
    expect(read.image).toEqual({
      version: 1,
      diskBytes: 2 ** 42,
      sectorBytes: 512,
      kind: "disk",
      zeroRanges: { count: 1, diskOffsetBytes: Float64Array.of(4096), lengthBytes: Float64Array.of(8192) },
      partitions: "{}",
      filesystems: ["ext4"],
    });
  });

  test("a hybrid torrent of one file by its v1 part", () => {
    const read = parseMetainfo(torrent({ ...SINGLE, "meta version": 2, "file tree": {} }));
    expect(read.layout).toBe("single");
  });

  test("pieces that are no power of two", () => {
    const read = parseMetainfo(torrent({ ...SINGLE, "piece length": 48 * KiB, pieces: hashes(3) }));
    expect(read.pieceCount).toBe(3);
  });
});

describe("parseMetainfo refuses", () => {
  const files = (...list: Fields[]): Uint8Array => torrent({ ...EXTENTS, files: list });
  const named = (...path: string[]): Uint8Array => files({ length: 1, path });
  const imaged = (changes: Fields): Uint8Array => torrent({ ...EXTENTS, diskswarm: sorted({ ...IMAGE, ...changes }) });
  const refused: [string, Uint8Array, string][] = [
    ["no bencode", Buffer.from("<html>"), "expected a dictionary at byte 0"],
    ["an empty file", new Uint8Array(0), "ends too early at byte 0"],
    ["bytes after the end", Buffer.concat([torrent(SINGLE), Buffer.from("\n")]), "1 bytes after the end"],
    ["no info", encode({ announce: "x" }), "it has no info dictionary"],
    ["info of another type", encode({ info: "x" }), "expected a dictionary at byte 7"],
    ["no name", torrent(without(SINGLE, "name")), "it has no name"],
    ["a name that is a path", torrent({ ...SINGLE, name: "../x" }), 'its name "../x" is a path'],
    [
      "a name that drives a terminal",
      torrent({ ...SINGLE, name: "a\x1b[2J" }),
      'its name "a\\u001b[2J" has control characters',
    ],
    ["a name with NUL", torrent({ ...SINGLE, name: "a\0" }), 'its name "a\\u0000" has control characters'],
    ["no piece length", torrent(without(SINGLE, "piece length")), "it has no piece length"],
    ["pieces of 0 bytes", torrent({ ...SINGLE, "piece length": 0 }), "its pieces have 0 bytes"],
    ["pieces of 17000 bytes", torrent({ ...SINGLE, "piece length": 17000 }), "its pieces have 17000 bytes"],
    ["pieces of 32 MiB", torrent({ ...SINGLE, "piece length": 32 * MiB }), "its pieces have 33554432 bytes"],
    ["too few hashes", torrent({ ...SINGLE, pieces: hashes(3) }), "100000 bytes make 4 pieces, its hashes are of 3"],
    ["too many hashes", torrent({ ...SINGLE, pieces: hashes(5) }), "make 4 pieces, its hashes are of 5"],
    ["a hash cut short", torrent({ ...SINGLE, pieces: hashes(4).slice(1) }), "its hashes are of 3.95"],
    [
      "v2 only",
      torrent({ ...without(SINGLE, "pieces"), "meta version": 2, "file tree": {} }),
      "it is BitTorrent v2 only",
    ],
    ["no hashes", torrent(without(SINGLE, "pieces")), "it has no piece hashes"],
    ["neither length nor files", torrent(without(SINGLE, "length")), "it has neither a length nor files"],
    ["both length and files", torrent({ ...SINGLE, files: [file(0, 1)] }), "it has both a length and a list of files"],
    ["a negative length", torrent({ ...SINGLE, length: -1 }), "negative number"],
    ["no bytes", torrent({ ...SINGLE, length: 0, pieces: "" }), "it is empty"],
    ["no files", files(), "it is empty"],
    [
      "a length beyond 2^53",
      Buffer.from(torrent(SINGLE).toString().replace("i100000e", "i9007199254740992e"), "latin1"),
      "53 bits",
    ],
    ["ordinary names", named("vmlinuz"), 'file 0 is named "vmlinuz", no disk offset in hex'],
    ["several components", named("0", "1"), "the path of file 0 has several components"],
    ["a path that leaves", named(".."), 'file 0 is named "..", a path that leaves its directory'],
    ["a path inside a component", named("0/1"), 'file 0 is named "0/1", which no file can be'],
    ["NUL in a name", named("0\0"), 'file 0 is named "0\\u0000", which no file can be'],
    ["an empty path", named(), "file 0 has an empty path"],
    ["an empty name", named(""), 'file 0 is named "", no disk offset in hex'],
    ["33 digits", named("0".repeat(33)), "no disk offset in hex"],
    [
      "an offset beyond 2^53",
      named(`2${"0".repeat(13)}`),
      "file 0 is named for disk offset 0x20000000000000, beyond 2^53",
    ],
    ["an end beyond 2^53", files(file(2 ** 53 - 1, 1)), "ends beyond 2^53"],
    ["no path", files({ length: 1 }), "file 0 has no path"],
    ["no length", files({ path: ["0"] }), "file 0 has no length"],
    ["extents that overlap", files(file(0, 10), file(9, 1)), "range 1 at disk offset 9 overlaps or precedes"],
    ["extents out of order", files(file(100, 1), file(0, 1)), "range 1 at disk offset 0 overlaps or precedes"],
    ["padding", files({ attr: "p", length: 1, path: ["0"] }), "file 0 is padding (BEP 47)"],
    ["a symbolic link", files({ attr: "xl", length: 1, path: ["0"] }), "file 0 is a symbolic link"],
    ["a later version", imaged({ version: 2 }), "its diskswarm version is 2, this program reads 1"],
    ["no disk size", imaged({ "disk bytes": 0 }), "names no disk size"],
    ["another kind", imaged({ kind: "tape" }), 'its kind of source is "tape"'],
    ["a sector size of 500", imaged({ "sector bytes": 500 }), "its sector size is 500 bytes"],
    [
      "a disk smaller than its extents",
      imaged({ "disk bytes": 2 ** 41 }),
      "its extents end at 2199023256064, its disk at 2199023255552",
    ],
    [
      "zeros beyond the disk",
      imaged({ "disk bytes": 2 ** 41 + 512, "zero ranges": Buffer.from("8080808080408104", "hex") }),
      "its zero ranges end at",
    ],
    [
      "zeros over an extent",
      imaged({ "zero ranges": Uint8Array.of(0x80, 0x1f, 0x81, 0x01) }),
      "its zero range at disk offset 3968 overlaps an extent",
    ],
    ["an empty zero range", imaged({ "zero ranges": Uint8Array.of(5, 0) }), "its zero ranges are malformed: range 0"],
    ["a zero range without a length", imaged({ "zero ranges": Uint8Array.of(5) }), "a gap without a length"],
    ["a zero range cut short", imaged({ "zero ranges": Uint8Array.of(5, 1, 0x80) }), "number cut short"],
    ["a padded number", imaged({ "zero ranges": Uint8Array.of(0x80, 0, 1) }), "malformed number in range 0"],
    [
      "a number beyond 53 bits",
      imaged({ "zero ranges": Buffer.from("ffffffffffffff1001", "hex") }),
      "malformed number in range 0",
    ],
    [
      "too many trackers",
      torrent(SINGLE, { "announce-list": [Array<string>(300).fill("a")] }),
      "more than 256 trackers",
    ],
    ["a tier that is no list", torrent(SINGLE, { "announce-list": ["http://a"] }), "expected a list"],
  ];
  for (const [what, bytes, message] of refused) test(what, () => expect(reason(bytes)).toContain(message));

  test("unsorted keys, because other programs would hash something else", () => {
    expect(reason(encode({ info: SINGLE }))).toContain('key "length" out of order');
  });
  test("every truncation", () => {
    const valid = torrent({ ...EXTENTS, diskswarm: sorted(IMAGE) }, { announce: "http://t/a" });
    for (let length = 0; length < valid.length; length++)
      expect(reason(valid.subarray(0, length))).not.toBe("accepted");
    expect(reason(valid)).toBe("accepted");
  });
  test("a file larger than any torrent", () => {
    expect(reason(new Uint8Array(TORRENT_BYTES_MAX + 1))).toContain("at most 192.0 MiB are accepted");
  });
  test("more files than the tables are made for", () => {
    const entry = Buffer.from("d6:lengthi0e4:pathl1:0eee".slice(0, -1));
    const bytes = Buffer.concat([
      Buffer.from("d4:infod5:filesl"),
      Buffer.alloc(entry.length * (EXTENTS_MAX + 1), entry),
    ]);
    expect(reason(bytes)).toBe(`it has more than ${EXTENTS_MAX} files`);
  });
});
