/** When blocks are packed, and which are worth a try. */
import { describe, expect, test } from "bun:test";
import { PackSampler } from "../../src/peer/pack-sampler.ts";
import { PackSwitch } from "../../src/peer/pack-switch.ts";
import { KiB, MiB } from "../../src/units.ts";

const BLOCK = 256 * KiB;
const PIECE = 4 * MiB;
const BLOCKS = PIECE / BLOCK;

/** Asks for every block of an image once; `isLoose` says which become smaller. Returns those that were tried. */
function sample(pieces: number, isLoose: (piece: number) => boolean): [piece: number, begin: number][] {
  const sampler = new PackSampler(PIECE, pieces);
  const tried: [number, number][] = [];
  for (let piece = 0; piece < pieces; piece++) {
    for (let begin = 0; begin < PIECE; begin += BLOCK) {
      if (!sampler.wants(piece, begin)) continue;
      tried.push([piece, begin]);
      sampler.tried(piece, begin, BLOCK, isLoose(piece));
    }
  }
  return tried;
}

describe("which blocks are tried", () => {
  test("all, where all become smaller", () => {
    expect(sample(10, () => true).length).toBe(10 * BLOCKS);
  });
  test("one of 8 and a few to find that out, where none does", () => {
    expect(sample(1000, () => false).length).toBeWithin(1000 * BLOCKS * (1 / 9), 1000 * BLOCKS * (1 / 7));
  });
  test("nearly all of a part that becomes smaller, behind a long one that does not", () => {
    const tried = sample(400, (piece) => piece >= 200);
    const loose = tried.filter(([piece]) => piece >= 200).length;
    expect(loose).toBeGreaterThan(200 * BLOCKS - 8 - BLOCKS);
  });
  test("most of what becomes smaller where every other piece does", () => {
    const tried = sample(400, (piece) => piece % 2 === 0);
    const loose = tried.filter(([piece]) => piece % 2 === 0).length;
    expect(loose).toBeGreaterThan(0.8 * 200 * BLOCKS);
    expect(tried.length - loose).toBeLessThan(0.5 * 200 * BLOCKS);
  });
  test("all of what becomes smaller where single dense blocks lie between", () => {
    const sampler = new PackSampler(BLOCK, 1000);
    let tried = 0;
    for (let piece = 0; piece < 1000; piece++) {
      if (!sampler.wants(piece, 0)) continue;
      tried++;
      sampler.tried(piece, 0, BLOCK, piece % 20 > 3);
    }
    expect(tried).toBe(1000);
  });
  test("a block that did not become smaller is not tried again, nor what was passed over", () => {
    const sampler = new PackSampler(PIECE, 100);
    for (let round = 0; round < 3; round++) {
      let tried = 0;
      for (let piece = 0; piece < 100; piece++) {
        for (let begin = 0; begin < PIECE; begin += BLOCK) {
          if (!sampler.wants(piece, begin)) continue;
          tried++;
          sampler.tried(piece, begin, BLOCK, false);
        }
      }
      if (round > 0) expect(tried).toBe(0);
    }
  });
  test("what is being tried counts: a queue of dense blocks is not tried as a whole", () => {
    const sampler = new PackSampler(PIECE, 100);
    for (let begin = 0; begin < PIECE; begin += BLOCK)
      if (sampler.wants(0, begin)) sampler.tried(0, begin, BLOCK, false);
    let wanted = 0;
    for (let piece = 1; piece < 33; piece++)
      for (let begin = 0; begin < PIECE; begin += BLOCK) if (sampler.wants(piece, begin)) wanted++;
    expect(wanted).toBeLessThan((32 * BLOCKS) / 4);
  });
});

/** A line for the switch: so many looks a second, on a socket that holds bytes or not. */
class Line {
  nowMs = 0;
  workMs = 0;
  readonly packing: PackSwitch;

  constructor(threads = 1) {
    this.packing = new PackSwitch(threads);
  }

  run(ms: number, rate: number, how: { busy?: boolean; empty?: boolean; work?: number } = {}): boolean {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += 10;
      this.workMs += 10 * (how.work ?? 0);
      this.packing.look(this.nowMs, how.busy === false ? 0 : 1, this.workMs);
      if (how.empty) this.packing.ranEmpty();
      this.packing.sent(rate / 100);
    }
    return this.packing.isOn;
  }
}

describe("whether blocks are packed", () => {
  test("not before anything is known", () => {
    expect(new PackSwitch(1).isOn).toBe(false);
  });
  test("on a busy slow line, within a quarter of a second", () => {
    expect(new Line().run(250, 12 * MiB)).toBe(true);
    expect(new Line().run(250, 112 * MiB)).toBe(true);
  });
  test("not on a line that packing could not fill", () => {
    expect(new Line().run(5000, 1000 * MiB)).toBe(false);
    expect(new Line(0).run(5000, 100 * MiB)).toBe(false);
    expect(new Line(0).run(5000, 12 * MiB)).toBe(true);
  });
  test("not on a line that is idle half of the time", () => {
    expect(new Line().run(5000, 12 * MiB, { busy: false })).toBe(false);
  });
  test("goes on while the threads have time, whatever the line does", () => {
    const line = new Line();
    line.run(500, 12 * MiB);
    expect(line.run(5000, 1 * MiB, { busy: false, empty: true, work: 0.3 })).toBe(true);
  });
  test("ends when the threads cannot keep up, and each time stays off for longer", () => {
    const line = new Line();
    const offMs: number[] = [];
    for (let round = 0; round < 4; round++) {
      while (!line.run(10, 50 * MiB));
      const onMs = line.nowMs;
      while (line.run(10, 50 * MiB, { busy: false, empty: true, work: 1 }));
      expect(line.nowMs - onMs).toBeLessThanOrEqual(300);
      const endMs = line.nowMs;
      while (!line.run(10, 50 * MiB));
      offMs.push(line.nowMs - endMs);
    }
    for (let i = 1; i < offMs.length; i++) expect(offMs[i]!).toBeGreaterThan(offMs[i - 1]! * 1.5);
  });
});
