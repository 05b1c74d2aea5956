import { describe, expect, test } from "bun:test";
import { SlabPool } from "../../src/peer/slabs.ts";

const SLAB_BYTES = 65536;

function pool(count: number): SlabPool {
  return new SlabPool(0x10000000, SLAB_BYTES, count, 4, 1024);
}

/** Binds, fills and releases a part: it is cached afterwards. */
function cache(slabs: SlabPool, piece: number, part: number): number {
  const slab = slabs.bind(piece, part);
  slabs.markValid(slab);
  slabs.unpin(slab);
  return slab;
}

describe("slab pool", () => {
  test("a bound slab is found by its part until it is evicted", () => {
    const slabs = pool(2);
    const slab = cache(slabs, 3, 1);
    expect(slabs.find(3, 1)).toBe(slab);
    expect(slabs.isValid(slab)).toBe(true);
    expect(slabs.find(3, 2)).toBe(-1);
    cache(slabs, 4, 0);
    cache(slabs, 5, 0);
    expect(slabs.find(3, 1)).toBe(-1);
  });

  test("the least recently used slab is evicted first", () => {
    const slabs = pool(3);
    for (const piece of [0, 1, 2]) cache(slabs, piece, 0);
    const used = slabs.find(0, 0);
    slabs.pin(used);
    slabs.unpin(used);
    cache(slabs, 3, 0);
    expect([0, 1, 2, 3].map((piece) => slabs.find(piece, 0) >= 0)).toEqual([true, false, true, true]);
  });

  test("the cache stays small until something comes back that it gave up", () => {
    const slabs = pool(2048);
    const cached = () => {
      let count = 0;
      for (let piece = 0; piece < 1024; piece++) if (slabs.find(piece, 0) >= 0) count++;
      return count;
    };
    for (let piece = 0; piece < 1000; piece++) cache(slabs, piece, 0);
    const start = cached();
    expect(start).toBe((32 * 1024 * 1024) / SLAB_BYTES);
    for (let piece = 0; piece < 10; piece++) cache(slabs, piece, 0);
    expect(cached()).toBe(start + 10);
    // A part that was never here is no reason to keep more.
    cache(slabs, 1001, 0);
    expect(cached()).toBe(start + 10);
  });

  test("a pinned slab is never taken", () => {
    const slabs = pool(2);
    const first = slabs.bind(0, 0);
    const second = slabs.bind(0, 1);
    expect(slabs.bind(0, 2)).toBe(-1);
    expect(slabs.available).toBe(0);
    slabs.unpin(second);
    expect(slabs.available).toBe(1);
    expect(slabs.bind(0, 2)).toBe(second);
    expect(slabs.find(0, 0)).toBe(first);
  });

  test("an unpinned slab without valid bytes is free at once", () => {
    const slabs = pool(1);
    const slab = slabs.bind(7, 0);
    slabs.unpin(slab);
    expect(slabs.find(7, 0)).toBe(-1);
    expect(slabs.bind(8, 0)).toBe(slab);
  });

  test("invalidated bytes are gone, but not under a reader", () => {
    const slabs = pool(2);
    const slab = cache(slabs, 1, 0);
    slabs.pin(slab);
    slabs.invalidate(slab);
    expect(slabs.isValid(slab)).toBe(false);
    expect(slabs.find(1, 0)).toBe(slab);
    slabs.unpin(slab);
    expect(slabs.find(1, 0)).toBe(-1);
  });

  test("misuse is a broken invariant", () => {
    const slabs = pool(2);
    const slab = slabs.bind(0, 0);
    expect(() => slabs.bind(0, 0)).toThrow("bound to one slab");
    slabs.unpin(slab);
    expect(() => slabs.unpin(slab)).toThrow("taken off once");
    expect(() => slabs.pin(slab)).toThrow("only a bound slab");
  });

  test("any sequence keeps the counts right", () => {
    const slabs = pool(8);
    const pinned = new Map<number, number>();
    let state = 12345;
    const random = (bound: number) => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return state % bound;
    };
    for (let step = 0; step < 20_000; step++) {
      const piece = random(5);
      const part = random(4);
      const found = slabs.find(piece, part);
      if (found === -1) {
        const slab = slabs.bind(piece, part);
        if (slab >= 0) pinned.set(slab, 1);
        else expect(slabs.available).toBe(0);
      } else if (random(2) === 0) {
        slabs.pin(found);
        pinned.set(found, (pinned.get(found) ?? 0) + 1);
      } else if (random(8) === 0) slabs.invalidate(found);
      const held = [...pinned.keys()];
      if (held.length > 0 && random(2) === 0) {
        const slab = held[random(held.length)]!;
        if (random(2) === 0) slabs.markValid(slab);
        const pins = pinned.get(slab)! - 1;
        slabs.unpin(slab);
        if (pins === 0) pinned.delete(slab);
        else pinned.set(slab, pins);
      }
      expect(slabs.available).toBe(8 - pinned.size);
    }
  });
});
