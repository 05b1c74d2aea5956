/** Hashes BYTES with SHA-1: from memory that stays in the processor's cache, or read from PATH. `hasher.ts BYTES [PATH]`. */
import { openSync, readSync } from "node:fs";
import { KiB } from "../../../src/units.ts";

/** Fits the cache of a core, so that what was read is hashed from there. */
const BUFFER_BYTES = 256 * KiB;

const [bytes, path] = process.argv.slice(2);
const hasher = new Bun.CryptoHasher("sha1");
const buffer = Buffer.alloc(BUFFER_BYTES, 1);
const fd = path === undefined ? null : openSync(path, "r");
for (let left = Number(bytes); left > 0; ) {
  const got = fd === null ? BUFFER_BYTES : readSync(fd, buffer, 0, BUFFER_BYTES, null);
  if (got === 0) throw new Error(`${path} ends ${left} bytes too early`);
  hasher.update(buffer.subarray(0, got));
  left -= got;
}
console.log(hasher.digest("hex"));
