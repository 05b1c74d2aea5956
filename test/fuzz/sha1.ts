/** Fuzz target of SHA-1 in lanes: streams of any lengths in any parts beside each other have the digests that node:crypto says. */
import { ok, strictEqual } from "node:assert";
import { createHash } from "node:crypto";
import { LANES_MAX } from "../../src/disk/sha1/listing.ts";
import { openSha1Lanes } from "../../src/disk/sha1/open.ts";
import { mapMemory } from "../../src/kernel/memory.ts";
import type { SeededRandom } from "../harness/random.ts";
import { randomBytes } from "./mutate.ts";

const REGION_BYTES = 16 * 1024;

export function fuzzSha1Lanes(random: SeededRandom): void {
  const memory = mapMemory(REGION_BYTES);
  const contexts = 1 + random.below(8);
  const lanes = openSha1Lanes(memory.address, contexts);
  // A processor without the instructions has nothing to be looked at here.
  if (lanes === null) return memory.free();
  memory.bytes.set(randomBytes(random, REGION_BYTES));
  const expected = Array.from({ length: contexts }, () => createHash("sha1"));
  for (let context = 0; context < contexts; context++) lanes.begin(context);
  for (let part = random.below(60); part > 0; part--) {
    const context = random.below(contexts);
    while (lanes.active === LANES_MAX || lanes.isBusy(context)) lanes.work(() => {});
    const length = random.below(1 + random.below(REGION_BYTES));
    const begin = random.below(REGION_BYTES - length);
    ok(lanes.start(part, context, begin, length) === lanes.isBusy(context), "what is at work is told");
    expected[context]!.update(memory.bytes.subarray(begin, begin + length));
  }
  while (lanes.active > 0) lanes.work(() => {});
  const digest = new Uint8Array(20);
  expected.forEach((hash, context) => {
    lanes.digest(context, digest);
    strictEqual(digest.toHex(), hash.digest("hex"));
  });
  lanes.free();
  memory.free();
}
