/** The ring of packed blocks: who makes room for whom, and what is found. */
import { describe, expect, test } from "bun:test";
import { NO_ENTRY, PackedCache, type PackedEntry } from "../../src/peer/packed-cache.ts";
import { KiB } from "../../src/units.ts";
import { seededRandom } from "../harness/random.ts";

const BLOCK = 16 * KiB;
const PIECE = 16 * BLOCK;

/** Takes a stretch and keeps the block in it as one that is packed. */
function keep(cache: PackedCache, piece: number, begin: number, lengthBytes: number): PackedEntry {
  const entry = cache.take(lengthBytes);
  cache.name(entry, piece, begin, BLOCK);
  cache.markReady(entry, lengthBytes);
  cache.unpin(entry);
  return entry;
}

describe("a cache of packed blocks", () => {
  test("finds a block by its exact range", () => {
    const cache = new PackedCache(4096, 1000, PIECE);
    const entry = keep(cache, 3, 2 * BLOCK, 100);
    expect(cache.find(3, 2 * BLOCK, BLOCK)).toBe(entry);
    expect([cache.address(entry), cache.length(entry), cache.isReady(entry)]).toEqual([4096, 100, true]);
    for (const [piece, begin, length] of [
      [3, 2 * BLOCK, 2 * BLOCK],
      [3, BLOCK, BLOCK],
      [2, 2 * BLOCK, BLOCK],
    ] as const)
      expect(cache.find(piece, begin, length)).toBe(NO_ENTRY);
  });

  test("is found while it is in the works, and forgotten when nothing came of it", () => {
    const cache = new PackedCache(0, 1000, PIECE);
    const entry = cache.take(100);
    cache.name(entry, 0, 0, BLOCK);
    expect(cache.find(0, 0, BLOCK)).toBe(entry);
    expect(cache.isReady(entry)).toBe(false);
    cache.unpin(entry);
    expect(cache.find(0, 0, BLOCK)).toBe(NO_ENTRY);
  });

  test("gives the stretches of the oldest away", () => {
    const cache = new PackedCache(0, 1000, PIECE);
    for (let n = 0; n < 10; n++) keep(cache, 0, n * BLOCK, 100);
    keep(cache, 1, 0, 250);
    const left = Array.from({ length: 10 }, (_, n) => cache.find(0, n * BLOCK, BLOCK) !== NO_ENTRY);
    expect(left).toEqual([false, false, false, true, true, true, true, true, true, true]);
  });

  test("steps over what is in use, and says no when all is", () => {
    const cache = new PackedCache(0, 1000, PIECE);
    const used = Array.from({ length: 10 }, () => cache.take(100));
    expect(cache.take(1)).toBe(NO_ENTRY);
    cache.unpin(used[4]!);
    expect(cache.take(101)).toBe(NO_ENTRY);
    const again = cache.take(100);
    expect(cache.address(again)).toBe(400);
    cache.unpin(used[7]!);
    cache.unpin(used[8]!);
    expect(cache.address(cache.take(200))).toBe(700);
  });

  test("forgets the blocks of a piece that was wrong; those being sent stay until they are sent", () => {
    const cache = new PackedCache(0, 1000, PIECE);
    const sent = keep(cache, 5, 0, 500);
    cache.pin(sent);
    keep(cache, 5, BLOCK, 200);
    const other = keep(cache, 6, 0, 200);
    cache.dropPiece(5);
    expect(cache.find(5, 0, BLOCK)).toBe(NO_ENTRY);
    expect(cache.find(5, BLOCK, BLOCK)).toBe(NO_ENTRY);
    expect(cache.find(6, 0, BLOCK)).toBe(other);
    expect(cache.address(cache.take(300))).toBe(500);
    expect(cache.take(500)).toBe(NO_ENTRY);
    cache.unpin(sent);
    expect(cache.address(cache.take(500))).toBe(0);
  });

  test("a block that shrank leaves the rest of its stretch", () => {
    const cache = new PackedCache(0, 1000, PIECE);
    const entry = cache.take(900);
    cache.markReady(entry, 300);
    cache.name(entry, 0, 0, BLOCK);
    expect(cache.take(600)).not.toBe(NO_ENTRY);
    expect(cache.find(0, 0, BLOCK)).toBe(entry);
  });

  test("no two stretches ever overlap, and none leaves the region", () => {
    const random = seededRandom(11);
    const cache = new PackedCache(0, 10_000, PIECE);
    const held = new Map<PackedEntry, [start: number, end: number]>();
    for (let step = 0; step < 20_000; step++) {
      if (held.size > 0 && random.below(3) === 0) {
        const [entry] = [...held.keys()].slice(random.below(held.size));
        held.delete(entry!);
        if (random.below(2) === 0) cache.markReady(entry!, cache.length(entry!));
        cache.unpin(entry!);
        continue;
      }
      const lengthBytes = 1 + random.below(1500);
      const entry = cache.take(lengthBytes);
      if (entry === NO_ENTRY) continue;
      cache.name(entry, random.below(50), random.below(16) * BLOCK, BLOCK);
      const start = cache.address(entry);
      expect(start >= 0 && start + lengthBytes <= 10_000).toBe(true);
      for (const [from, to] of held.values()) expect(start + lengthBytes <= from || start >= to).toBe(true);
      held.set(entry, [start, start + lengthBytes]);
      if (random.below(20) === 0) cache.dropPiece(random.below(50));
    }
  });
});
