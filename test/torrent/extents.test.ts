/** Tables of extents: the arithmetic between payload and disk, checked against a map of single bytes. */
import { describe, expect, test } from "bun:test";
import { AssertionError } from "../../src/errors.ts";
import {
  diskOffsetOf,
  findExtent,
  firstOverlap,
  forEachSegment,
  makeExtentTable,
  makeRangeTable,
  NO_RANGES,
  pieceCountOf,
  pieceLengthBytes,
  pieceOffset,
  rangesBelow,
  rangesEndBytes,
  rangesProblem,
  rangesTotalBytes,
} from "../../src/torrent/extents.ts";
import { decodeRanges, encodeRanges } from "../../src/torrent/range-codec.ts";
import { pieceIndex, torrentOffset } from "../../src/units.ts";

const TABLE = makeExtentTable(Float64Array.of(10, 20, 25, 100), Float64Array.of(3, 5, 1, 7));
/** Disk offset of each payload byte, the slow way. */
const DISK = [10, 11, 12, 20, 21, 22, 23, 24, 25, 100, 101, 102, 103, 104, 105, 106];

describe("extents", () => {
  test("payload offsets are the sums of the lengths before", () => {
    expect([...TABLE.torrentOffsetBytes]).toEqual([0, 3, 8, 9]);
    expect(TABLE.totalBytes).toBe(DISK.length);
  });
  test("each payload byte is found where it lies", () => {
    for (let at = 0; at < DISK.length; at++) {
      expect(diskOffsetOf(TABLE, torrentOffset(at))).toBe(DISK[at]! as never);
      const i = findExtent(TABLE, at);
      expect(TABLE.torrentOffsetBytes[i]!).toBeLessThanOrEqual(at);
      expect(TABLE.torrentOffsetBytes[i]! + TABLE.lengthBytes[i]!).toBeGreaterThan(at);
    }
    expect(() => findExtent(TABLE, -1)).toThrow(AssertionError);
    expect(() => findExtent(TABLE, DISK.length)).toThrow(AssertionError);
  });
  test("every range of the payload is cut into its runs on disk", () => {
    for (let from = 0; from <= DISK.length; from++) {
      for (let to = from; to <= DISK.length; to++) {
        const seen: number[] = [];
        let at = from;
        forEachSegment(TABLE, torrentOffset(from), to - from, (disk, torrent, lengthBytes) => {
          expect(torrent as number).toBe(at);
          expect(lengthBytes).toBeGreaterThan(0);
          for (let i = 0; i < lengthBytes; i++) seen.push(disk + i);
          at += lengthBytes;
        });
        expect(seen).toEqual(DISK.slice(from, to));
      }
    }
    expect(() => forEachSegment(TABLE, torrentOffset(10), 7, () => {})).toThrow(AssertionError);
  });
  test("pieces: the last one is what is left", () => {
    expect(pieceCountOf(16, 5)).toBe(4);
    expect([0, 1, 2, 3].map((i) => pieceLengthBytes(16, 5, pieceIndex(i)))).toEqual([5, 5, 5, 1]);
    expect(pieceLengthBytes(15, 5, pieceIndex(2))).toBe(5);
    expect(pieceOffset(5, pieceIndex(3)) as number).toBe(15);
  });
  test("arrays that are too long are cut to the count", () => {
    const table = makeExtentTable(Float64Array.of(1, 9, 0), Float64Array.of(2, 3, 0), 2);
    expect(table).toEqual(makeExtentTable(Float64Array.of(1, 9), Float64Array.of(2, 3)));
  });
});

describe("ranges", () => {
  const of = (...pairs: [number, number][]) =>
    makeRangeTable(
      Float64Array.from(pairs, (pair) => pair[0]),
      Float64Array.from(pairs, (pair) => pair[1]),
    );
  const problem = (...pairs: [number, number][]) =>
    rangesProblem(
      Float64Array.from(pairs, (pair) => pair[0]),
      Float64Array.from(pairs, (pair) => pair[1]),
      pairs.length,
    );

  test("what cannot be is named", () => {
    expect(problem([0, 1], [1, 1], [5, 2])).toBeNull();
    expect(problem([0, 2], [1, 1])).toContain("range 1 at disk offset 1 overlaps or precedes");
    expect(problem([5, 1], [0, 1])).toContain("overlaps or precedes");
    expect(problem([0, 0])).toContain("has a length of 0");
    expect(problem([-1, 1])).toContain("starts at -1");
    expect(problem([0.5, 1])).toContain("starts at 0.5");
    expect(problem([0, Number.NaN])).toContain("has a length of NaN");
    expect(problem([Number.MAX_SAFE_INTEGER, 1])).toContain("ends beyond 2^53");
    expect(() => of([0, 0])).toThrow(AssertionError);
  });
  test("sums and ends", () => {
    expect([rangesTotalBytes(of([0, 2], [5, 3])), rangesEndBytes(of([0, 2], [5, 3]))]).toEqual([5, 8]);
    const ranges = of([0, 2], [2, 5], [9, 1]);
    expect(rangesBelow(ranges, 4)).toEqual(of([0, 2], [2, 2]));
    expect(rangesBelow(ranges, 8)).toEqual(of([0, 2], [2, 5]));
    expect(rangesBelow(ranges, 10)).toEqual(ranges);
    expect(rangesBelow(of([5, 1]), 5)).toEqual(NO_RANGES);
    expect([rangesTotalBytes(NO_RANGES), rangesEndBytes(NO_RANGES)]).toEqual([0, 0]);
  });
  test("overlaps between two tables, against every pair", () => {
    const some = [of([0, 2], [4, 2], [9, 9]), of([2, 2], [6, 3]), of([5, 1]), of([0, 30]), of([3, 2]), NO_RANGES];
    for (const a of some) {
      for (const b of some) {
        let expected = -1;
        for (let i = a.count - 1; i >= 0; i--) {
          const [start, end] = [a.diskOffsetBytes[i]!, a.diskOffsetBytes[i]! + a.lengthBytes[i]!];
          for (let j = 0; j < b.count; j++) {
            if (b.diskOffsetBytes[j]! < end && b.diskOffsetBytes[j]! + b.lengthBytes[j]! > start) expected = i;
          }
        }
        expect(firstOverlap(a, b)).toBe(expected);
      }
    }
  });
  test("pack into gaps and lengths, and back", () => {
    const ranges = of([0, 127], [255, 128], [2 ** 52, 2 ** 52 - 1]);
    expect(encodeRanges(ranges).toHex()).toBe("007f80018001" + "81fdffffffffff07" + "ffffffffffffff07");
    expect(decodeRanges(encodeRanges(ranges))).toEqual(ranges);
    expect(decodeRanges(new Uint8Array(0))).toEqual(NO_RANGES);
  });
  test("a packing that ends beyond 2^53 is refused", () => {
    expect(decodeRanges(Buffer.from("01ffffffffffffff0f", "hex"))).toContain("ends beyond 2^53");
  });
});
