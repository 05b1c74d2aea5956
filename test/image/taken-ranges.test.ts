/** What is read of a surveyed disk: blocks filled, ranges joined, the price known, memory bounded. */
import { describe, expect, test } from "bun:test";
import { TakenRanges } from "../../src/image/taken-ranges.ts";
import { seededRandom } from "../harness/random.ts";

const KiB = 1024;

function pairs({ list }: TakenRanges): number[][] {
  return Array.from({ length: list.count }, (_, i) => [list.offsetAt(i), list.lengthAt(i)]);
}

describe("taken ranges", () => {
  test("are filled to blocks of 4 KiB, and end with the disk", () => {
    const taken = new TakenRanges(1000 * KiB + 512, 0);
    taken.take(5 * KiB, 1 * KiB);
    taken.take(100 * KiB, 4 * KiB);
    taken.take(1000 * KiB, 512);
    expect(pairs(taken)).toEqual([
      [4 * KiB, 4 * KiB],
      [100 * KiB, 4 * KiB],
      [1000 * KiB, 512],
    ]);
    expect(taken.toldBytes).toBe(5 * KiB + 512);
  });

  test("closer than the gap are joined, those as far as it are not", () => {
    const taken = new TakenRanges(1000 * KiB, 64 * KiB);
    taken.take(0, 4 * KiB);
    taken.take(64 * KiB, 4 * KiB);
    taken.take(132 * KiB, 4 * KiB);
    expect(pairs(taken)).toEqual([
      [0, 68 * KiB],
      [132 * KiB, 4 * KiB],
    ]);
    expect(taken.toldBytes).toBe(12 * KiB);
  });

  test("that overlap count once", () => {
    const taken = new TakenRanges(1000 * KiB, 0);
    taken.take(0, 64 * KiB);
    taken.take(0, 16 * KiB);
    taken.take(32 * KiB, 40 * KiB);
    expect(pairs(taken)).toEqual([[0, 72 * KiB]]);
    expect(taken.toldBytes).toBe(72 * KiB);
  });

  test("are merged with a wider gap when they are too many, and cover all that was told", () => {
    const random = seededRandom(5);
    const taken = new TakenRanges(2 ** 40, 0, 100);
    const told: number[][] = [];
    let offset = 0;
    for (let i = 0; i < 5000; i++) {
      offset += (1 + random.below(64)) * 4 * KiB;
      told.push([offset, 4 * KiB]);
      taken.take(offset, 4 * KiB);
      offset += 4 * KiB;
    }
    expect(taken.list.count).toBeLessThanOrEqual(100);
    expect(taken.mergeGapBytes).toBeGreaterThan(4 * KiB);
    const ranges = pairs(taken);
    for (const [start, length] of told)
      expect(ranges.some(([from, size]) => from <= start && start + length <= from + size)).toBe(true);
    expect(taken.toldBytes).toBe(5000 * 4 * KiB);
  });
});
