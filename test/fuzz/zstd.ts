/**
 * Fuzz target of the check of packed payload: whatever passes it inflates to the named length or not at all, and
 * the system's own inflater agrees about where it ends.
 */
import { ok } from "node:assert";
import { zstdDecompressSync } from "node:zlib";
import { zstdFrameProblem } from "../../src/wire/zstd-frame.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, randomBytes } from "./mutate.ts";

export function fuzzZstdFrame(random: SeededRandom): void {
  const plain = somePlain(random);
  const valid = Bun.zstdCompressSync(plain, { level: 1 + random.below(3) });
  ok(zstdFrameProblem(valid, plain.length) === null, "a frame as it is made is taken");
  ok(zstdFrameProblem(valid, plain.length + 1) !== null, "one of another length is not");
  for (let cut = 0; cut < valid.length; cut += 1 + random.below(20))
    ok(zstdFrameProblem(valid.subarray(0, cut), plain.length) !== null, "nor one that is cut off");
  ok(zstdFrameProblem(Buffer.concat([valid, valid]), plain.length) !== null, "nor two of them");

  const broken = mutate(random, valid);
  if (zstdFrameProblem(broken, plain.length) !== null) return;
  const inflated = inflate(broken, plain.length);
  ok(inflated === null || inflated === plain.length, "what was taken is of the named length");
}

function somePlain(random: SeededRandom): Uint8Array {
  const words = randomBytes(random, 1 + random.below(40));
  const bytes = new Uint8Array(1 + random.below(3000));
  for (let at = 0; at < bytes.length; at++) bytes[at] = words[(at * (1 + (at >> 9))) % words.length]!;
  return bytes;
}

/** Null where the frame is corrupt inside. */
function inflate(frame: Uint8Array, lengthMax: number): number | null {
  try {
    return zstdDecompressSync(frame, { maxOutputLength: lengthMax }).length;
  } catch (error) {
    ok(error instanceof Error, "an inflater throws errors");
    return null;
  }
}
