import { afterEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { openHasher } from "../../src/disk/hash-pool.ts";
import type { HashAlgorithm, HashHandler, Hasher } from "../../src/disk/hasher.ts";
import { EventFd } from "../../src/kernel/eventfd.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import { type SeededRandom, seededRandom } from "../harness/random.ts";

const REGION_BYTES = 1024 * 1024;

/** Records what a hasher reports. */
class Recorder implements HashHandler {
  readonly updates: [number, number][] = [];
  readonly digests = new Map<number, string>();
  updated(context: number, lengthBytes: number): void {
    this.updates.push([context, lengthBytes]);
  }
  finished(context: number, digest: Uint8Array): void {
    this.digests.set(context, Buffer.from(digest).toString("hex"));
  }
}

function fillWithAddress(memory: Memory): void {
  for (let at = 0; at < memory.lengthBytes; at += 4) memory.view.setUint32(at, at * 2654435761, true);
}

/** Drains until `digests` are known, sleeping on the eventfd as a reactor would. */
async function drainUntil(hasher: Hasher, recorder: Recorder, digests: number): Promise<void> {
  while (recorder.digests.size < digests) {
    if (hasher.drain(recorder) === 0) await Bun.sleep(0);
  }
}

/** A piece in each context, their parts mixed; some contexts are begun again before they are finished. */
async function hashPieces(hasher: Hasher, memory: Memory, random: SeededRandom): Promise<void> {
  const contexts = Array.from({ length: hasher.contextsMax }, (_, context) => context);
  const recorder = new Recorder();
  const expected = contexts.map(() => createHash("sha1"));
  const told: [number, number][] = [];
  for (const context of contexts) hasher.begin(context);
  for (let part = 0; part < 100; part++) {
    const context = random.below(contexts.length);
    const lengthBytes = 1 + random.below(random.below(3) === 0 ? 200_000 : 300);
    const offset = random.below(REGION_BYTES - lengthBytes);
    while (!hasher.update(context, memory.address + offset, lengthBytes)) hasher.drain(recorder);
    expected[context].update(memory.bytes.subarray(offset, offset + lengthBytes));
    told.push([context, lengthBytes]);
    if (random.below(8) === 0) hasher.drain(recorder);
  }
  for (const context of contexts) while (!hasher.finish(context)) hasher.drain(recorder);
  await drainUntil(hasher, recorder, contexts.length);
  for (const context of contexts) {
    expect(recorder.digests.get(context)).toBe(expected[context].digest("hex"));
    const ofContext = (updates: [number, number][]) => updates.filter(([of]) => of === context);
    expect(ofContext(recorder.updates)).toEqual(ofContext(told));
  }
}

for (const [workers, sideBySide] of [
  [0, true],
  [0, false],
  [1, true],
  [1, false],
  [3, true],
] as const) {
  describe(`hasher with ${workers} workers${sideBySide ? "" : ", by the library alone"}`, () => {
    let memory: Memory;
    let hasher: Hasher;
    const setUp = (contextsMax: number, algorithm: HashAlgorithm = "sha1") => {
      memory = mapMemory(REGION_BYTES);
      fillWithAddress(memory);
      const region = { address: memory.address, lengthBytes: REGION_BYTES };
      hasher = openHasher({ ...region, contextsMax, workers, algorithm, sideBySide });
    };
    afterEach(() => {
      hasher.close();
      memory.free();
    });

    test("streams of several contexts do not mix", async () => {
      setUp(5);
      const recorder = new Recorder();
      const expected = [0, 1, 2, 3, 4].map(() => createHash("sha1"));
      for (let context = 0; context < 5; context++) hasher.begin(context);
      for (let step = 0; step < 20; step++) {
        for (let context = 0; context < 5; context++) {
          const offset = (step * 5 + context) * 4099;
          const lengthBytes = 1 + ((step * 977 + context * 3571) % 8000);
          expect(hasher.update(context, memory.address + offset, lengthBytes)).toBe(true);
          expected[context].update(memory.bytes.subarray(offset, offset + lengthBytes));
        }
      }
      for (let context = 0; context < 5; context++) expect(hasher.finish(context)).toBe(true);
      await drainUntil(hasher, recorder, 5);
      for (let context = 0; context < 5; context++)
        expect(recorder.digests.get(context)).toBe(expected[context].digest("hex"));
      expect(recorder.updates.length).toBe(100);
    });

    test("a context begun again starts empty, also after an unfinished one", async () => {
      setUp(2);
      const recorder = new Recorder();
      hasher.begin(1);
      hasher.update(1, memory.address, 5000);
      while (recorder.updates.length === 0) if (hasher.drain(recorder) === 0) await Bun.sleep(0);
      hasher.begin(1);
      hasher.update(1, memory.address + 64, 777);
      hasher.finish(1);
      await drainUntil(hasher, recorder, 1);
      expect(recorder.digests.get(1)).toBe(
        createHash("sha1")
          .update(memory.bytes.subarray(64, 64 + 777))
          .digest("hex"),
      );
    });

    test("a context without bytes has the empty hash", async () => {
      setUp(1);
      const recorder = new Recorder();
      hasher.begin(0);
      hasher.finish(0);
      await drainUntil(hasher, recorder, 1);
      expect(recorder.digests.get(0)).toBe("da39a3ee5e6b4b0d3255bfef95601890afd80709");
    });

    test("sha256 on request", async () => {
      setUp(1, "sha256");
      const recorder = new Recorder();
      hasher.begin(0);
      hasher.update(0, memory.address, 100_000);
      hasher.finish(0);
      await drainUntil(hasher, recorder, 1);
      expect(recorder.digests.get(0)).toBe(
        createHash("sha256").update(memory.bytes.subarray(0, 100_000)).digest("hex"),
      );
    });

    test("both of the same bytes on request", async () => {
      setUp(2, "sha1+sha256");
      const recorder = new Recorder();
      const bytes = memory.bytes.subarray(0, 100_000);
      hasher.begin(1);
      hasher.update(1, memory.address, bytes.length);
      hasher.finish(1);
      await drainUntil(hasher, recorder, 1);
      const digests = ["sha1", "sha256"].map((name) => createHash(name).update(bytes).digest("hex"));
      expect(recorder.digests.get(1)).toBe(digests.join(""));
    });

    test("pieces of random lengths in random parts, more contexts than lanes, reports in the order of each", async () => {
      setUp(11);
      const random = seededRandom(3);
      for (let round = 0; round < 20; round++) await hashPieces(hasher, memory, random);
    });

    test("a full queue says so, and nothing is lost", async () => {
      setUp(1);
      const recorder = new Recorder();
      const expected = createHash("sha1");
      hasher.begin(0);
      let full = false;
      for (let i = 0; i < 5000; i++) {
        const offset = (i * 64) % 65536;
        while (!hasher.update(0, memory.address + offset, 64)) {
          full = true;
          hasher.drain(recorder);
        }
        expected.update(memory.bytes.subarray(offset, offset + 64));
      }
      while (!hasher.finish(0)) hasher.drain(recorder);
      await drainUntil(hasher, recorder, 1);
      expect(full).toBe(true);
      expect(recorder.updates.length).toBe(5000);
      expect(recorder.digests.get(0)).toBe(expected.digest("hex"));
    });

    test("a sleeping owner is woken, and the bell is silent after drain", async () => {
      setUp(1);
      const recorder = new Recorder();
      const bell = EventFd.of(hasher.wakeFd);
      for (let round = 0; round < 50; round++) {
        hasher.begin(0);
        hasher.update(0, memory.address, 1000);
        hasher.finish(0);
        const before = recorder.updates.length;
        hasher.sleeping(true);
        while (!bell.reset()) await Bun.sleep(0);
        hasher.sleeping(false);
        recorder.digests.clear();
        await drainUntil(hasher, recorder, 1);
        expect(recorder.updates.length).toBe(before + 1);
      }
      hasher.drain(recorder);
      expect(bell.reset()).toBe(false);
    });
  });
}

test("workers that give way are nicer than the rest of the program", async () => {
  const niceValues = () =>
    readdirSync("/proc/self/task").map((task) => {
      const stat = readFileSync(`/proc/self/task/${task}/stat`, "utf8");
      return Number(stat.replace(/^.*\) /, "").split(" ")[16]);
    });
  const memory = mapMemory(4096);
  const own = Math.min(...niceValues());
  const region = { address: memory.address, lengthBytes: 4096, contextsMax: 2 };
  const hasher = openHasher({ ...region, workers: 2, givesWay: true });
  const recorder = new Recorder();
  for (const context of [0, 1]) hasher.finish(context);
  await drainUntil(hasher, recorder, 2);
  expect(niceValues().filter((nice) => nice > own).length).toBeGreaterThanOrEqual(own < 19 ? 2 : 0);
  hasher.close();
  memory.free();
});

test("bytes outside the region are a bug", () => {
  const memory = mapMemory(4096);
  const hasher = openHasher({ address: memory.address, lengthBytes: 4096, contextsMax: 1, workers: 1 });
  expect(() => hasher.update(0, memory.address + 4000, 97)).toThrow("region");
  hasher.close();
  memory.free();
});
