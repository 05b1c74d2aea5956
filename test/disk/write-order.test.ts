import { describe, expect, test } from "bun:test";
import { RUN_BYTES, WriteOrder } from "../../src/disk/write-order.ts";
import { seeded } from "./support.ts";

const MIB = 1024 * 1024;
/** Eight pieces of two runs each, in parts of 1 MiB; the last piece is short. */
const PIECE_BYTES = 2 * RUN_BYTES;
const TOTAL_BYTES = 8 * PIECE_BYTES - 3 * MIB - 5;
const HOLD_MS = 10_000;

function orderOf(heldBytesMax = TOTAL_BYTES): WriteOrder {
  return new WriteOrder({ pieceCount: 8, pieceBytes: PIECE_BYTES, totalBytes: TOTAL_BYTES, heldBytesMax });
}

/** Adds parts by their number; a part's tag is its number. */
function add(order: WriteOrder, parts: readonly number[], nowMs = 0): void {
  for (const part of parts) order.add(part, part * MIB, Math.min(MIB, TOTAL_BYTES - part * MIB), nowMs);
}

/** Everything that may be written now, in order. */
function takeAll(order: WriteOrder, nowMs = 0): number[] {
  const tags: number[] = [];
  for (let tag = order.next(nowMs); tag !== -1; tag = order.next(nowMs)) tags.push(tag);
  return tags;
}

describe("what is held back", () => {
  test("less than a run, until its rest is there", () => {
    const order = orderOf();
    add(order, [9, 8, 10]);
    expect(takeAll(order)).toEqual([]);
    add(order, [11]);
    expect(takeAll(order)).toEqual([8, 9, 10, 11]);
  });

  test("no longer than its time, so that a lost source holds no memory", () => {
    const order = orderOf();
    add(order, [8], 100);
    add(order, [9], 600);
    expect(takeAll(order, 100 + HOLD_MS - 1)).toEqual([]);
    expect(takeAll(order, 100 + HOLD_MS)).toEqual([8, 9]);
  });

  test("nothing of a whole piece, whatever came first", () => {
    const order = orderOf();
    add(order, [15, 8, 9, 10, 11, 12]);
    expect(takeAll(order)).toEqual([8, 9, 10, 11]);
    add(order, [14, 13]);
    expect(takeAll(order)).toEqual([12, 13, 14, 15]);
  });

  test("nothing of a last piece that is short", () => {
    const order = orderOf();
    add(order, [56, 57, 58, 59]);
    expect(takeAll(order)).toEqual([56, 57, 58, 59]);
    add(order, [60]);
    expect(takeAll(order)).toEqual([60]);
  });

  test("a piece that comes again, because its hash did not match, like any other", () => {
    const order = orderOf();
    for (let time = 0; time < 2; time++) {
      add(order, [0, 1, 2, 3, 4, 5, 6]);
      expect(takeAll(order)).toEqual([0, 1, 2, 3]);
      add(order, [7]);
      expect(takeAll(order)).toEqual([4, 5, 6, 7]);
    }
  });

  test("nothing of a piece that was given up half way, and it may come again", () => {
    const order = orderOf();
    add(order, [8, 9]);
    expect(takeAll(order)).toEqual([]);
    order.giveUp(1);
    expect(takeAll(order)).toEqual([8, 9]);
    add(order, [8, 9, 10, 11, 12, 13]);
    expect(takeAll(order)).toEqual([10, 11]);
    add(order, [15, 14]);
    expect(takeAll(order)).toEqual([12, 13, 14, 15, 8, 9]);
  });

  test("the longest run is not, where more waits than may", () => {
    const order = orderOf(4 * MIB);
    add(order, [0, 8, 9, 16]);
    expect(takeAll(order)).toEqual([]);
    add(order, [24]);
    expect(takeAll(order)).toEqual([8, 9]);
    expect(order.count).toBe(3);
  });

  test("nothing at the end", () => {
    const order = orderOf();
    add(order, [3, 20, 1]);
    order.endHolding();
    expect(takeAll(order)).toEqual([1, 3, 20]);
    expect(order.count).toBe(0);
  });
});

describe("the order", () => {
  test("goes up from where the disk's head is, and from the start again", () => {
    const order = orderOf();
    add(order, [32, 33, 34, 35]);
    expect(takeAll(order)).toEqual([32, 33, 34, 35]);
    add(order, [0, 1, 2, 3, 48, 49, 50, 51, 40, 41, 42, 43]);
    expect(takeAll(order)).toEqual([40, 41, 42, 43, 48, 49, 50, 51, 0, 1, 2, 3]);
  });

  test("goes on with a run that was begun before its rest was there", () => {
    const order = orderOf();
    add(order, [8, 40, 41, 42, 43]);
    expect(order.next(0)).toBe(40);
    add(order, [16, 17, 18, 19]);
    expect(takeAll(order)).toEqual([41, 42, 43, 16, 17, 18, 19]);
  });

  test("does not go on into the next run of the piece before that is worth a seek", () => {
    const order = orderOf();
    add(order, [8, 9, 10, 11, 12]);
    expect(takeAll(order)).toEqual([8, 9, 10, 11]);
    expect(takeAll(order, HOLD_MS)).toEqual([12]);
  });
});

test("whatever comes in whatever order leaves once, and within the time", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = seeded(seed);
    const parts = Array.from({ length: Math.ceil(TOTAL_BYTES / MIB) }, (_, part) => part);
    for (let i = parts.length - 1; i > 0; i--) {
      const other = random(i + 1);
      [parts[i], parts[other]] = [parts[other]!, parts[i]!];
    }
    const order = orderOf((4 + random(20)) * MIB);
    const left: number[] = [];
    let nowMs = 0;
    while (parts.length > 0) {
      nowMs += random(300);
      add(order, parts.splice(0, 1 + random(6)), nowMs);
      for (let take = random(8); take > 0; take--) {
        const tag = order.next(nowMs);
        if (tag !== -1) left.push(tag);
      }
    }
    left.push(...takeAll(order, nowMs + HOLD_MS));
    expect(order.count).toBe(0);
    expect(left.sort((a, b) => a - b)).toEqual(left.map((_, part) => part));
  }
});
