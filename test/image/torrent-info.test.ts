/** partclone's torrent.info, whole, byte by byte and cut off; and extents cut as partclone lists them. */
import { describe, expect, test } from "bun:test";
import { cutLikePartclone, GivenExtents } from "../../src/image/exact-extents.ts";
import { RangeList } from "../../src/image/range-list.ts";
import { TorrentInfoFault, TorrentInfoParser } from "../../src/image/torrent-info.ts";
import { rangesOf } from "./capturing.ts";

const MIB = 1024 * 1024;
const hex = (value: number) => value.toString(16).padStart(32, "0");
const extent = (offset: number, length: number) => `offset: ${hex(offset)}\nlength: ${hex(length)}\n`;
const hash = (digit: string) => `sha1: ${digit.repeat(40)}\n`;
const HEAD = "block_size: 4096\nblocks_total: 16384\n";
/** 17 MiB and a block: two pieces, of which the first is complete before the last extent. */
const TEXT = `${HEAD}${extent(0, 9 * MIB)}${extent(20 * MIB, 8 * MIB)}${hash("a")}${extent(40 * MIB, 4096)}${hash("b")}`;

function parse(text: string, step = text.length): TorrentInfoParser {
  const parser = new TorrentInfoParser();
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += step) parser.push(bytes.subarray(at, at + step));
  parser.finish();
  return parser;
}

describe("torrent.info", () => {
  test("is read whole and byte by byte", () => {
    for (const step of [1, 7, TEXT.length]) {
      const parser = parse(TEXT, step);
      expect(rangesOf(parser.extents.table())).toEqual([
        { offsetBytes: 0, lengthBytes: 9 * MIB },
        { offsetBytes: 20 * MIB, lengthBytes: 8 * MIB },
        { offsetBytes: 40 * MIB, lengthBytes: 4096 },
      ]);
      expect(Buffer.from(parser.pieceHashes).toString("hex")).toBe("a".repeat(40) + "b".repeat(40));
    }
  });

  test("that is cut off is refused, wherever that is", () => {
    for (let length = 0; length < TEXT.length; length++)
      expect(() => parse(TEXT.slice(0, length))).toThrow(TorrentInfoFault);
  });

  test("that makes no sense is refused with its line or place", () => {
    const cases: [string, string][] = [
      [`${HEAD}${extent(MIB, MIB)}${extent(0, MIB)}`, "the extent at byte 0 after one that ends behind it"],
      [`${HEAD}${extent(0, 2 * MIB)}${extent(MIB, MIB)}`, "the extent at byte 1048576 after one"],
      [`${HEAD}${extent(63 * MIB, 2 * MIB)}`, "beyond its 16384 blocks of 4096 bytes"],
      [extent(0, MIB), "beyond its 0 blocks"],
      [`${HEAD}${extent(0, 0)}`, "has the line"],
      [`${HEAD}offset: ${hex(0)}\noffset: ${hex(0)}\n`, "has the line"],
      [`${HEAD}length: ${hex(1)}\n`, "has the line"],
      [`${HEAD}${hash("a")}`, "has the line"],
      [`${HEAD}${extent(0, MIB)}${hash("a")}${hash("b")}`, "has the line"],
      [`${HEAD}${extent(0, MIB)}sha1: abc\n`, "has the line"],
      ["block_size: 4k\n", 'has the line "block_size: 4k"'],
      [`block_size: ${"1".repeat(30)}\n`, "has the line"],
      [`${"x".repeat(65)}\n`, "too long"],
      ["offset: \x1b[2J\n", 'has the line "offset: ?[2J"'],
      [HEAD, "names no extents"],
    ];
    for (const [text, message] of cases) expect(() => parse(text)).toThrow(message);
  });
});

function listOf(...ranges: [number, number][]): RangeList {
  const list = new RangeList();
  for (const [offset, length] of ranges) list.push(offset, length);
  return list;
}

describe("extents of partclone", () => {
  const runs = listOf([0, 2.5 * MIB], [8 * MIB, 0.75 * MIB], [16 * MIB, 1 * MIB]).table();
  const sizes = (source: "device" | "image") =>
    rangesOf(cutLikePartclone(runs, source)).map(({ offsetBytes, lengthBytes }) => [
      offsetBytes / MIB,
      lengthBytes / MIB,
    ]);

  test("of a device are cut from each run's start", () => {
    expect(sizes("device")).toEqual([
      [0, 1],
      [1, 1],
      [2, 0.5],
      [8, 0.75],
      [16, 1],
    ]);
  });

  test("of an image where the buffer ends, whatever was in it", () => {
    expect(sizes("image")).toEqual([
      [0, 1],
      [1, 1],
      [2, 0.5],
      [8, 0.5],
      [8.5, 0.25],
      [16, 0.75],
      [16.75, 0.25],
    ]);
  });

  test("that are given are told as they are read, and what lies between is left out", () => {
    const told: number[][] = [];
    const sink = {
      data: (offset: number, length: number) => void told.push([offset, length]),
      zeros: () => told.push([]),
    };
    const given = new GivenExtents(listOf([512, 1024]), sink);
    given.zero(512);
    given.data(1000);
    given.data(24);
    given.zero(4096);
    given.finish();
    expect(told).toEqual([
      [512, 1000],
      [1512, 24],
    ]);
    expect(given.positionBytes).toBe(512 + 1024 + 4096);
  });
});
