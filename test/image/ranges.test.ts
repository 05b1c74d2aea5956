/** Data ranges of sparse files, runs of zeros in memory, and sums of ranges. */
import { describe, expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { dataRangesOf, wholeRange } from "../../src/image/data-ranges.ts";
import { complement, intersection, joined, RangeList } from "../../src/image/range-list.ts";
import { ZeroScanner } from "../../src/image/zero-blocks.ts";
import { type Extent, sparseFile, stampedImage } from "../harness/image.ts";
import { seededRandom } from "../harness/random.ts";
import { scopedTest } from "../harness/scope.ts";

const MiB = 1 << 20;

function listOf(...ranges: [number, number][]): RangeList {
  const list = new RangeList();
  for (const [offset, length] of ranges) list.push(offset, length);
  return list;
}

function pairs(list: RangeList): [number, number][] {
  return Array.from({ length: list.count }, (_, i) => [list.offsetAt(i), list.lengthAt(i)]);
}

function rangesOfFile(path: string, sizeBytes: number): [number, number][] {
  const fd = openSync(path, "r");
  try {
    return pairs(dataRangesOf(fd, path, sizeBytes));
  } finally {
    closeSync(fd);
  }
}

describe("data ranges", () => {
  scopedTest("of a sparse file in memory and on a disk", async (scope) => {
    const extents: Extent[] = [
      { offsetBytes: 64 * 1024, lengthBytes: 64 * 1024 },
      { offsetBytes: 5 * MiB, lengthBytes: 1 * MiB },
      { offsetBytes: 8 * MiB, lengthBytes: 100 },
    ];
    for (const folder of [scope.ramDir(), scope.tempDir()]) {
      const path = stampedImage(join(folder, "image.raw"), 8 * MiB + 100, 1, extents);
      expect(rangesOfFile(path, 8 * MiB + 100)).toEqual([
        [64 * 1024, 64 * 1024],
        [5 * MiB, 1 * MiB],
        [8 * MiB, 100],
      ]);
    }
  });

  scopedTest("of one hole, and of no hole", async (scope) => {
    const path = join(scope.ramDir(), "image.raw");
    sparseFile(path, 3 * MiB);
    expect(rangesOfFile(path, 3 * MiB)).toEqual([]);
    stampedImage(path, 3 * MiB, 1);
    expect(rangesOfFile(path, 3 * MiB)).toEqual([[0, 3 * MiB]]);
    expect(pairs(wholeRange(7))).toEqual([[0, 7]]);
  });
});

describe("range lists", () => {
  test("grow beyond their first size and sum up", () => {
    const list = new RangeList();
    for (let i = 0; i < 1000; i++) list.push(i * 10, 3);
    list.extendLast(2);
    expect(list.count).toBe(1000);
    expect(list.totalBytes).toBe(3002);
    expect([list.offsetAt(999), list.lengthAt(999)]).toEqual([9990, 5]);
    expect(list.table().diskOffsetBytes).toHaveLength(1000);
  });

  test("complement, joined and intersection", () => {
    expect(pairs(complement(listOf([10, 5], [15, 5], [30, 1]), 40))).toEqual([
      [0, 10],
      [20, 10],
      [31, 9],
    ]);
    expect(pairs(complement(listOf([0, 40]), 40))).toEqual([]);
    expect(pairs(joined(listOf([0, 10], [15, 5], [30, 1]), 6))).toEqual([
      [0, 20],
      [30, 1],
    ]);
    expect(pairs(intersection(listOf([0, 10], [20, 10]), listOf([5, 17], [25, 1], [29, 9])))).toEqual([
      [5, 5],
      [20, 2],
      [25, 1],
      [29, 1],
    ]);
  });
});

describe("zero blocks", () => {
  /** Runs as text: `d4096 z8192`. */
  function runsOf(memory: Uint8Array, start: number, lengthBytes: number): string {
    const runs: string[] = [];
    new ZeroScanner(memory).runs(start, lengthBytes, {
      data: (length) => void runs.push(`d${length}`),
      zero: (length) => void runs.push(`z${length}`),
    });
    return runs.join(" ");
  }

  test("one byte anywhere makes a block data", () => {
    for (const at of [0, 3, 4, 2047, 4095]) {
      const memory = new Uint8Array(3 * 4096);
      memory[4096 + at] = 1;
      expect(runsOf(memory, 0, memory.length)).toBe("z4096 d4096 z4096");
    }
  });

  test("a last block that is not whole", () => {
    const memory = new Uint8Array(2 * 4096);
    memory[4096 + 2] = 1;
    expect(runsOf(memory, 0, 4096 + 3)).toBe("z4096 d3");
    expect(runsOf(memory, 0, 4096 + 2)).toBe("z4098");
    // What lies behind the end must not matter.
    memory.fill(0xff, 4096 + 2);
    expect(runsOf(memory, 4096, 2)).toBe("z2");
  });

  test("random memory against a byte by byte reading", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = seededRandom(seed);
      const memory = new Uint8Array(40 * 4096);
      for (let i = random.below(20); i >= 0; i--) memory[random.below(memory.length)] = 1 + random.below(255);
      const start = random.below(8) * 4096;
      const length = 1 + random.below(memory.length - start);
      const expected: string[] = [];
      for (let offset = 0; offset < length; offset += 4096) {
        const block = memory.subarray(start + offset, start + Math.min(offset + 4096, length));
        const kind = block.some((byte) => byte !== 0) ? "d" : "z";
        const last = expected.at(-1);
        if (last?.[0] === kind) expected[expected.length - 1] = `${kind}${Number(last.slice(1)) + block.length}`;
        else expected.push(`${kind}${block.length}`);
      }
      expect(runsOf(memory, start, length)).toBe(expected.join(" "));
    }
  });

  test("long stretches are compared in parts", () => {
    const memory = new Uint8Array(3 * MiB);
    const scanner = new ZeroScanner(memory);
    expect(scanner.isZero(0, memory.length)).toBe(true);
    memory[2 * MiB + 5] = 1;
    expect(scanner.isZero(0, memory.length)).toBe(false);
    expect(scanner.isZero(0, 2 * MiB + 5)).toBe(true);
  });
});
