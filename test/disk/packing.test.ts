/** Packing and inflating beside the hashes: what fits, what does not, what is corrupt, with workers and without. */
import { afterEach, describe, expect, test } from "bun:test";
import { zstdDecompressSync } from "node:zlib";
import { openHasher } from "../../src/disk/hash-pool.ts";
import type { HashHandler, Hasher, PackHandler } from "../../src/disk/hasher.ts";
import { Zstd } from "../../src/disk/zstd.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import { seededRandom } from "../harness/random.ts";

const BLOCK = 256 * 1024;
const PACKED_AT = BLOCK;
const PLAIN_AT = 2 * BLOCK;
const REGION_BYTES = 3 * BLOCK;

class Recorder implements HashHandler, PackHandler {
  readonly reports: [string, number, number | boolean][] = [];
  updated(): void {}
  finished(): void {}
  packed(tag: number, packedBytes: number): void {
    this.reports.push(["packed", tag, packedBytes]);
  }
  unpacked(tag: number, isSound: boolean): void {
    this.reports.push(["unpacked", tag, isSound]);
  }
}

/** Bytes in which a compressor finds a little more than nothing to win. */
function fillText(bytes: Uint8Array, seed: number): void {
  const random = seededRandom(seed);
  for (let at = 0; at < bytes.length; at++) bytes[at] = 97 + random.below(16);
}

function fillNoise(bytes: Uint8Array, seed: number): void {
  const random = seededRandom(seed);
  for (let at = 0; at < bytes.length; at++) bytes[at] = random.uint32();
}

for (const workers of [0, 1, 3]) {
  describe(`packing with ${workers} workers`, () => {
    let memory: Memory;
    let hasher: Hasher;
    const recorder = new Recorder();
    const setUp = () => {
      memory = mapMemory(REGION_BYTES);
      hasher = openHasher({ address: memory.address, lengthBytes: REGION_BYTES, contextsMax: 4, workers });
    };
    const next = async () => {
      while (recorder.reports.length === 0) if (hasher.drain(recorder, recorder) === 0) await Bun.sleep(0);
      return recorder.reports.shift()!;
    };
    const pack = async (roomBytes = BLOCK - 1) => {
      expect(hasher.pack(7, memory.address, BLOCK, memory.address + PACKED_AT, roomBytes)).toBe(true);
      return next();
    };
    const unpack = async (packedBytes: number, target = PLAIN_AT) => {
      const { address } = memory;
      expect(hasher.unpack(9, address + PACKED_AT, packedBytes, address + target, BLOCK)).toBe(true);
      return next();
    };
    afterEach(() => {
      hasher.close();
      memory.free();
    });

    test("a block is packed into one frame, block after block, and inflated", async () => {
      setUp();
      for (let seed = 1; seed <= 5; seed++) {
        fillText(memory.bytes.subarray(0, BLOCK), seed);
        const [what, tag, packedBytes] = await pack();
        expect([what, tag]).toEqual(["packed", 7]);
        expect(packedBytes).toBeWithin(BLOCK / 4, (BLOCK * 3) / 4);
        const frame = memory.bytes.slice(PACKED_AT, PACKED_AT + Number(packedBytes));
        expect(zstdDecompressSync(frame).equals(memory.bytes.subarray(0, BLOCK))).toBe(true);
        expect(await unpack(Number(packedBytes))).toEqual(["unpacked", 9, true]);
        expect(Buffer.compare(memory.bytes.subarray(PLAIN_AT), memory.bytes.subarray(0, BLOCK))).toBe(0);
      }
    });

    test("one that does not fit is given up, and the next one is packed as well as ever", async () => {
      setUp();
      fillText(memory.bytes.subarray(0, BLOCK), 1);
      const [, , before] = await pack();
      for (const roomBytes of [BLOCK - 1, BLOCK / 2, 1]) {
        fillNoise(memory.bytes.subarray(0, BLOCK), 2);
        expect(await pack(roomBytes)).toEqual(["packed", 7, 0]);
      }
      fillText(memory.bytes.subarray(0, BLOCK), 1);
      expect(await pack(Number(before))).toEqual(["packed", 7, 0]);
      expect(await pack(Number(before) + 1)).toEqual(["packed", 7, before]);
    });

    test("a block is inflated over its own packed bytes", async () => {
      setUp();
      fillText(memory.bytes.subarray(0, BLOCK), 3);
      const [, , packedBytes] = await pack();
      expect(await unpack(Number(packedBytes), PACKED_AT)).toEqual(["unpacked", 9, true]);
      expect(Buffer.compare(memory.bytes.subarray(PACKED_AT, PLAIN_AT), memory.bytes.subarray(0, BLOCK))).toBe(0);
    });

    test("what is cut, corrupt or of another length is told, and the next sound one inflated", async () => {
      setUp();
      fillText(memory.bytes.subarray(0, BLOCK), 4);
      const [, , length] = await pack();
      const packedBytes = Number(length);
      const frame = memory.bytes.slice(PACKED_AT, PACKED_AT + packedBytes);
      expect(await unpack(packedBytes - 1)).toEqual(["unpacked", 9, false]);
      expect(await unpack(packedBytes + 1)).toEqual(["unpacked", 9, false]);
      const random = seededRandom(5);
      let refused = 0;
      for (let round = 0; round < 40; round++) {
        memory.bytes.set(frame, PACKED_AT);
        memory.bytes[PACKED_AT + random.below(round % 2 === 0 ? 24 : packedBytes)]! ^= 1 << random.below(8);
        const [, , isSound] = await unpack(packedBytes);
        if (isSound === false) refused++;
      }
      // A bit flipped inside a literal gives another block of the same length: that is for the piece's hash to find.
      expect(refused).toBeGreaterThan(0);
      memory.bytes.set(frame, PACKED_AT);
      expect(await unpack(packedBytes)).toEqual(["unpacked", 9, true]);
      const half = Bun.zstdCompressSync(memory.bytes.subarray(0, BLOCK / 2), { level: 1 });
      memory.bytes.set(half, PACKED_AT);
      expect(await unpack(half.length)).toEqual(["unpacked", 9, false]);
    });

    test("packing does not get between the hashes of a piece", async () => {
      setUp();
      fillText(memory.bytes.subarray(0, BLOCK), 6);
      const digests: string[] = [];
      const handler = { updated() {}, finished: (_: number, digest: Uint8Array) => void digests.push(digest.toHex()) };
      hasher.begin(0);
      for (let at = 0; at < BLOCK; at += 16384) {
        expect(hasher.update(0, memory.address + at, 16384)).toBe(true);
        expect(hasher.pack(at, memory.address, BLOCK, memory.address + PACKED_AT, BLOCK - 1)).toBe(true);
      }
      expect(hasher.finish(0)).toBe(true);
      while (recorder.reports.length < 16 || digests.length < 1)
        if (hasher.drain(handler, recorder) === 0) await Bun.sleep(0);
      expect(digests).toEqual([new Bun.CryptoHasher("sha1").update(memory.bytes.subarray(0, BLOCK)).digest("hex")]);
      recorder.reports.length = 0;
    });
  });
}

test("a frame whose blocks inflate past its length is refused", () => {
  // A single segment that says 1 byte and repeats one byte 128 KiB times.
  const bomb = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 0x03, 0x00, 0x10, 7);
  const plain = new Uint8Array(1);
  expect(new Zstd().unpack(bomb, plain)).toBe(false);
});
