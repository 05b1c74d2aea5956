/** The classifier: pure, so every rule is tested with numbers alone. */
import { describe, expect, test } from "bun:test";
import { Classifier, type ClassifierOptions, gapForHoles } from "../../src/image/classify.ts";
import { complement, RangeList } from "../../src/image/range-list.ts";
import { seededRandom } from "../harness/random.ts";

const KiB = 1024;

type Run = ["data" | "zero", number];

/** Runs the classifier over runs; what it sends is told as `offset+length` and `0*length`. */
function classify(runs: readonly Run[], options: Partial<ClassifierOptions> = {}) {
  const diskBytes = runs.reduce((sum, [, length]) => sum + length, 0);
  const sent: string[] = [];
  const sink = {
    data: (offset: number, length: number) => void sent.push(`${offset}+${length}`),
    zeros: (length: number) => void sent.push(`0*${length}`),
  };
  const classifier = new Classifier(
    { diskBytes, mergeGapBytes: 64 * KiB, extentsMax: 1000, all: false, ...options },
    sink,
  );
  for (const [kind, length] of runs) classifier[kind](length);
  classifier.finish();
  return {
    classifier,
    sent,
    extents: listed(classifier.extents),
    zeros: listed(complement(classifier.extents, diskBytes)),
  };
}

function listed(list: RangeList): [number, number][] {
  return Array.from({ length: list.count }, (_, i) => [list.offsetAt(i), list.lengthAt(i)]);
}

describe("classifier", () => {
  test("zeros shorter than the gap become data, others part extents", () => {
    const { extents, zeros, sent, classifier } = classify([
      ["data", 4 * KiB],
      ["zero", 64 * KiB - 1],
      ["data", 4 * KiB],
      ["zero", 64 * KiB],
      ["data", 10],
    ]);
    expect(extents).toEqual([
      [0, 72 * KiB - 1],
      [136 * KiB - 1, 10],
    ]);
    expect(zeros).toEqual([[72 * KiB - 1, 64 * KiB]]);
    expect(sent).toEqual(["0+4096", `0*${64 * KiB - 1}`, `${68 * KiB - 1}+4096`, `${136 * KiB - 1}+10`]);
    expect(classifier.mergedZeroBytes).toBe(64 * KiB - 1);
  });

  test("without a merge gap data that goes on is one extent all the same", () => {
    const { extents } = classify(
      [
        ["data", 4 * KiB],
        ["data", 4 * KiB],
        ["zero", 4 * KiB],
        ["data", 4 * KiB],
      ],
      { mergeGapBytes: 0 },
    );
    expect(extents).toEqual([
      [0, 8 * KiB],
      [12 * KiB, 4 * KiB],
    ]);
  });

  test("zeros at both ends of the disk are never sent", () => {
    const { extents, sent } = classify([
      ["zero", 4 * KiB],
      ["data", 4 * KiB],
      ["zero", 4 * KiB],
    ]);
    expect(extents).toEqual([[4 * KiB, 4 * KiB]]);
    expect(sent).toEqual(["4096+4096"]);
  });

  test("a run of zeros told in parts is one run", () => {
    const { extents } = classify([
      ["data", 4 * KiB],
      ["zero", 40 * KiB],
      ["zero", 40 * KiB],
      ["data", 4 * KiB],
    ]);
    expect(extents).toHaveLength(2);
  });

  test("of a disk of zeros the first block is sent", () => {
    expect(classify([["zero", 1024 * KiB]]).extents).toEqual([[0, 4096]]);
    const tiny = classify([["zero", 700]]);
    expect(tiny.extents).toEqual([[0, 700]]);
    expect(tiny.sent).toEqual(["0*700"]);
  });

  test("all: one extent of everything, zeros included", () => {
    const runs: Run[] = [
      ["zero", 100 * KiB],
      ["data", 4 * KiB],
      ["zero", 200 * KiB],
    ];
    const { extents, sent, classifier } = classify(runs, { all: true });
    expect(extents).toEqual([[0, 304 * KiB]]);
    expect(sent).toEqual([`0*${100 * KiB}`, `${100 * KiB}+4096`, `0*${200 * KiB}`]);
    expect(classifier.mergedZeroBytes).toBe(0);
  });

  test("runs that do not cover the disk are a bug", () => {
    expect(() => classify([["data", 4096]], { diskBytes: 8192 })).toThrow("cover the disk");
  });
});

describe("too many extents", () => {
  /** `count` blocks of 4 KiB with holes of 4 KiB << (i mod 8) between them. */
  function alternating(count: number): RangeList {
    const list = new RangeList();
    let position = 0;
    for (let i = 0; i < count; i++) {
      list.push(position, 4096);
      position += 4096 + (4096 << (i % 8));
    }
    return list;
  }

  test("the gap grows to the smallest doubling that fits", () => {
    const data = alternating(200_000);
    const last = data.count - 1;
    const diskBytes = data.offsetAt(last) + data.lengthAt(last);
    const options = { diskBytes, extentsMax: 60_000, all: false, mergeGapBytes: 4096 };
    // Holes of 128 KiB and more are 3 of 8: 75,000 extents; of 256 KiB and more 2 of 8: 50,000.
    expect(gapForHoles(data, options)).toBe(256 * KiB);
    expect(gapForHoles(data, { ...options, extentsMax: 75_001 })).toBe(128 * KiB);
    expect(gapForHoles(data, { ...options, mergeGapBytes: 512 * KiB })).toBe(512 * KiB);
  });

  test("an overflow is seen at once and answered with a wider gap", () => {
    const classifier = new Classifier(
      { diskBytes: 1 << 30, mergeGapBytes: 4096, extentsMax: 10, all: false },
      { data: () => {}, zeros: () => {} },
    );
    for (let i = 0; i < 10; i++) {
      classifier.data(4096);
      classifier.zero(4096);
    }
    expect(classifier.overflowed).toBe(false);
    classifier.data(4096);
    expect(classifier.overflowed).toBe(true);
    expect(classifier.widerGapBytes()).toBeGreaterThanOrEqual(8192);
  });
});

test("random layouts: extents and zero ranges part the disk, and the payload is the extents", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed);
    const runs: Run[] = Array.from({ length: 1 + random.below(60) }, () => [
      random.below(2) === 0 ? "data" : "zero",
      (1 + random.below(40)) * 4096,
    ]);
    const { extents, zeros, sent, classifier } = classify(runs, { mergeGapBytes: random.below(20) * 4096 });
    const parts = [...extents, ...zeros].sort(([a], [b]) => a - b);
    let position = 0;
    for (const [offset, length] of parts) {
      expect(offset).toBe(position);
      expect(length).toBeGreaterThan(0);
      position += length;
    }
    expect(position).toBe(classifier.options.diskBytes);
    const sentBytes = sent.reduce((sum, text) => sum + Number(text.split(/[+*]/)[1]), 0);
    expect(sentBytes).toBe(classifier.extents.totalBytes);
  }
});
