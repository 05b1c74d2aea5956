/** What fuzz targets share: broken variants of valid bytes, and the demand that only the promised error is thrown. */
import type { SeededRandom } from "../harness/random.ts";

/** Bytes that mean something to bencode, frames or addresses: broken variants made of these get further in. */
const TELLING = [...Buffer.from("deil:0123456789-.[]%&=/"), 0, 0xff, 0x13, 0x80, 0x7f];

export function randomBytes(random: SeededRandom, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.uint32());
}

/** One to four small changes of `valid`; a new array. */
export function mutate(random: SeededRandom, valid: Uint8Array): Uint8Array {
  let bytes: Uint8Array = valid.slice();
  for (let changes = 1 + random.below(4); changes > 0; changes--) bytes = change(random, bytes);
  return bytes;
}

/** Throws unless `run` returns or throws an error of that class; returns null for a throw. */
export function onlyThrows<T>(expected: abstract new (...args: never[]) => Error, run: () => T): T | null {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof expected)) throw error;
    if (error.message.includes("\n")) throw new Error(`message of several lines: ${error.message}`);
    return null;
  }
}

function change(random: SeededRandom, bytes: Uint8Array): Uint8Array {
  const at = random.below(bytes.length + 1);
  const length = random.below(Math.min(16, bytes.length - at) + 1);
  const before = bytes.subarray(0, at);
  const after = bytes.subarray(at + length);
  switch (random.below(6)) {
    case 0:
      return Buffer.concat([before, after]);
    case 1:
      return Buffer.concat([before, randomBytes(random, length), after]);
    case 2:
      return Buffer.concat([before, Uint8Array.of(TELLING[random.below(TELLING.length)]!), bytes.subarray(at)]);
    case 3:
      return Buffer.concat([before, Uint8Array.of(TELLING[random.below(TELLING.length)]!), bytes.subarray(at + 1)]);
    case 4:
      return Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
    default:
      return before.slice();
  }
}
