/**
 * SHA-1 in lanes where it is sure to be right: before the code hashes a byte of an image, it hashes short messages in every
 * number of lanes, and the runtime's library says what must come out.
 */
import { mapMemory } from "../../kernel/memory.ts";
import type { Address } from "../../kernel/reactor.ts";
import { Sha1Code } from "./code.ts";
import { type Compression, Sha1Lanes } from "./lanes.ts";
import { LANES_MAX } from "./listing.ts";

/** Around each edge of a block and of padding, the longest first: of these every number of lanes takes several blocks at once. */
const PROOF_LENGTHS = [1000, 500, 250, 183, 64, 56, 55, 0] as const;
const PROOF_BYTES = 8192;
/** Where a message begins: nowhere aligned. */
const MESSAGE_STEP = 1001;
/** Of SHA-1. */
const DIGEST_BYTES = 20;

/** Null where the machine cannot do it, or does it wrong. */
export function openSha1Lanes(regionAddress: Address, contextsMax: number): Sha1Lanes | null {
  const code = Sha1Code.load();
  if (code === null) return null;
  if (isProven(code)) return new Sha1Lanes(code, regionAddress, contextsMax);
  code.free();
  return null;
}

/** Hashes the messages in each number of lanes and compares with the library. `code` is not freed. */
export function isProven(code: Compression): boolean {
  const memory = mapMemory(PROOF_BYTES);
  const { bytes } = memory;
  for (let at = 0; at < PROOF_BYTES; at++) bytes[at] = at * 131 + (at >> 5);
  const expected = PROOF_LENGTHS.map((length, message) => {
    const begin = message * MESSAGE_STEP;
    return new Bun.CryptoHasher("sha1").update(bytes.subarray(begin, begin + length)).digest();
  });
  const borrowed: Compression = { compress: (...call) => code.compress(...call), free: () => {} };
  const lanes = new Sha1Lanes(borrowed, memory.address, PROOF_LENGTHS.length);
  try {
    for (let count = 1; count <= LANES_MAX; count++) {
      for (let first = 0; first < expected.length; first += count) {
        hashMessages(lanes, first, Math.min(first + count, expected.length));
      }
      if (!expected.every((digest, message) => hasDigest(lanes, message, digest))) return false;
    }
    return true;
  } finally {
    lanes.free();
    memory.free();
  }
}

/** The messages from `first` to before `end` at the same time. */
function hashMessages(lanes: Sha1Lanes, first: number, end: number): void {
  for (let message = first; message < end; message++) {
    lanes.begin(message);
    lanes.start(message, message, message * MESSAGE_STEP, PROOF_LENGTHS[message]);
  }
  while (lanes.active > 0) lanes.work(() => {});
}

function hasDigest(lanes: Sha1Lanes, message: number, expected: Uint8Array): boolean {
  const digest = new Uint8Array(DIGEST_BYTES);
  lanes.digest(message, digest);
  return Buffer.compare(digest, expected) === 0;
}
