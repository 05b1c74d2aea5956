/** Hashes BYTES with our own SHA-1 in all lanes, from memory that stays in the processor's cache: `lanes.ts BYTES`. */
import { BLOCK_BYTES, LANES_MAX } from "../../../src/disk/sha1/listing.ts";
import { openSha1Lanes } from "../../../src/disk/sha1/open.ts";
import { mapMemory } from "../../../src/kernel/memory.ts";
import { KiB } from "../../../src/units.ts";

/** Of each lane; all of them fit the cache of a core. */
const BUFFER_BYTES = 64 * KiB;

const bytes = Number(process.argv[2]);
const memory = mapMemory(LANES_MAX * BUFFER_BYTES);
memory.bytes.fill(1);
const lanes = openSha1Lanes(memory.address, LANES_MAX);
if (lanes === null) throw new Error("this processor has no instructions for SHA-1");
for (let lane = 0; lane < LANES_MAX; lane++) lanes.begin(lane);
for (let left = Math.floor(bytes / (LANES_MAX * BLOCK_BYTES)) * BLOCK_BYTES; left > 0; left -= BUFFER_BYTES) {
  const length = Math.min(left, BUFFER_BYTES);
  for (let lane = 0; lane < LANES_MAX; lane++) lanes.start(lane, lane, lane * BUFFER_BYTES, length);
  while (lanes.active > 0) lanes.work(() => {});
}
const digest = new Uint8Array(20);
lanes.digest(0, digest);
console.log(digest.toHex());
