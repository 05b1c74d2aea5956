import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Sha1Code } from "../../../src/disk/sha1/code.ts";
import type { Compression, Sha1Lanes } from "../../../src/disk/sha1/lanes.ts";
import { LANES_MAX } from "../../../src/disk/sha1/listing.ts";
import { isProven, openSha1Lanes } from "../../../src/disk/sha1/open.ts";
import { hasSha1Instructions } from "../../../src/disk/sha1/processor.ts";
import { type Memory, mapMemory } from "../../../src/kernel/memory.ts";
import { seededRandom } from "../../harness/random.ts";

const REGION_BYTES = 256 * 1024;
const CONTEXTS = 7;
const hasInstructions = process.arch === "x64" && /^flags.*\bsha_ni\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));

test("the processor's own word is the kernel's", () => {
  expect(hasSha1Instructions()).toBe(hasInstructions);
});

test("what no processor can do is not opened", () => {
  const lanes = openSha1Lanes(4096, 1);
  expect(lanes !== null).toBe(hasInstructions);
  lanes?.free();
});

describe.skipIf(!hasInstructions)("SHA-1 in lanes", () => {
  let memory: Memory;
  let lanes: Sha1Lanes;
  beforeAll(() => {
    memory = mapMemory(REGION_BYTES);
    const random = seededRandom(7);
    for (let at = 0; at < REGION_BYTES; at += 4) memory.view.setUint32(at, random.uint32(), true);
    lanes = openSha1Lanes(memory.address, CONTEXTS)!;
  });
  afterAll(() => {
    lanes.free();
    memory.free();
  });

  const bytesAt = (begin: number, length: number) => memory.bytes.subarray(begin, begin + length);
  const sha1 = (bytes: Uint8Array) => createHash("sha1").update(bytes).digest("hex");
  const digestOf = (context: number) => {
    const digest = new Uint8Array(20);
    lanes.digest(context, digest);
    return digest.toHex();
  };
  const workAll = () => {
    const done: number[] = [];
    while (lanes.active > 0) lanes.work((tag) => done.push(tag));
    return done;
  };

  /** FIPS 180-4 (examples of NIST) and RFC 3174, section 7.3. */
  const VECTORS: readonly (readonly [string, number, string])[] = [
    ["abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d"],
    ["", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"],
    ["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"],
    ["a", 1_000_000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f"],
    [
      "0123456701234567012345670123456701234567012345670123456701234567",
      10,
      "dea356a2cddd90c7a7ecedc5ebb563934f460452",
    ],
  ];
  for (const [text, times, digest] of VECTORS) {
    test(`${text.slice(0, 20)} ${times} times`, () => {
      const message = mapMemory(Math.max(text.length * times, 1));
      message.bytes.set(Buffer.from(text.repeat(times)));
      const alone = openSha1Lanes(message.address, 1)!;
      alone.begin(0);
      alone.start(0, 0, 0, text.length * times);
      while (alone.active > 0) alone.work(() => {});
      const target = new Uint8Array(20);
      alone.digest(0, target);
      alone.free();
      message.free();
      expect(target.toHex()).toBe(digest);
    });
  }

  test("every length to three blocks, from every alignment", () => {
    for (let length = 0; length <= 200; length++) {
      const begin = length * 67 + (length % 17);
      lanes.begin(0);
      lanes.start(0, 0, begin, length);
      workAll();
      expect(digestOf(0)).toBe(sha1(bytesAt(begin, length)));
    }
  });

  test("messages of random lengths, cut at random places, beside each other", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = seededRandom(seed);
      const expected = Array.from({ length: CONTEXTS }, () => createHash("sha1"));
      for (let context = 0; context < CONTEXTS; context++) lanes.begin(context);
      for (let step = 0; step < 40; step++) {
        const context = random.below(CONTEXTS);
        if (lanes.active === LANES_MAX || lanes.isBusy(context)) {
          lanes.work(() => {});
          continue;
        }
        const length = random.below(random.below(4) === 0 ? 5000 : 150);
        const begin = random.below(REGION_BYTES - length);
        lanes.start(step, context, begin, length);
        expected[context]!.update(bytesAt(begin, length));
      }
      workAll();
      const digests = expected.map((_, context) => digestOf(context));
      expect(digests).toEqual(expected.map((hash) => hash.digest("hex")));
    }
  });

  test("each update is told as done once, with its tag", () => {
    for (let context = 0; context < LANES_MAX; context++) {
      lanes.begin(context);
      expect(lanes.start(100 + context, context, context * 64, (context + 1) * 640)).toBe(true);
      expect(lanes.isBusy(context)).toBe(true);
    }
    expect(workAll()).toEqual([100, 101, 102, 103]);
    for (let context = 0; context < LANES_MAX; context++) {
      expect(digestOf(context)).toBe(sha1(bytesAt(context * 64, (context + 1) * 640)));
    }
    lanes.begin(0);
    expect(lanes.start(1, 0, 0, 63)).toBe(false);
    expect(lanes.active).toBe(0);
  });

  test("a length that needs more than 32 bits", () => {
    const expected = createHash("sha1");
    const chunkBytes = REGION_BYTES - 1;
    lanes.begin(0);
    for (let left = 2 ** 29 + 1; left > 0; left -= chunkBytes) {
      expected.update(bytesAt(1, chunkBytes));
      lanes.start(0, 0, 1, chunkBytes);
      workAll();
    }
    expect(digestOf(0)).toBe(expected.digest("hex"));
  });

  test("misuse is a bug", () => {
    for (let context = 0; context < LANES_MAX; context++) {
      lanes.begin(context);
      lanes.start(context, context, 0, 640);
    }
    lanes.begin(LANES_MAX);
    expect(() => lanes.start(0, LANES_MAX, 0, 640)).toThrow("lane of its own");
    workAll();
    for (let context = 0; context < LANES_MAX; context++) digestOf(context);
    expect(() => digestOf(1)).toThrow("begun");
    expect(() => lanes.start(0, 1, 0, 64)).toThrow("begun");
    lanes.begin(1);
    lanes.start(0, 1, 0, 64);
    expect(() => lanes.begin(1)).toThrow("at work");
    expect(() => digestOf(1)).toThrow("rests");
    workAll();
    digestOf(1);
  });

  test("code that is wrong in any number of lanes is not used", () => {
    const code = Sha1Code.load()!;
    expect(isProven(code)).toBe(true);
    for (let wrong = 1; wrong <= LANES_MAX; wrong++) {
      const broken: Compression = {
        // Of that many lanes one block too few is hashed.
        compress: (count, table, blocks) => {
          if (count !== wrong) code.compress(count, table, blocks);
          else if (blocks > 1) code.compress(count, table, blocks - 1);
        },
        free: () => {},
      };
      expect(isProven(broken)).toBe(false);
    }
    code.free();
  });
});
