/** Fuzz target of the image's port: what a host sends, as a stream. */
import { deepStrictEqual, ok } from "node:assert";
import { type Pdu, PduReader } from "../../src/server/nvme/pdu.ts";
import { capsule, connectCommand, greeting, pdu, readCommand } from "../harness/nvme-host.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate } from "./mutate.ts";

const STREAM = Buffer.concat([
  greeting(),
  capsule(1, connectCommand(0, "nqn.test:image", 0xffff, "nqn.test:host")),
  capsule(2, readCommand(0, 8)),
  pdu(0x02, 24, 30),
]);
const DATA_BYTES_MAX = 4096 + 128;

/** PDUs up to the first that is wrong, and what is wrong with it. */
function pdusOf(parts: readonly Uint8Array[]): (Pdu | string)[] {
  const reader = new PduReader();
  const found: (Pdu | string)[] = [];
  for (const part of parts) {
    reader.feed(part);
    for (let next = reader.next(); next !== null; next = reader.next()) {
      found.push(next);
      if (typeof next === "string") return found;
    }
  }
  return found;
}

/** However a stream is cut, it is the same PDUs; each within its bounds, or one line that says what is wrong. */
export function fuzzNvmePdu(random: SeededRandom): void {
  const bytes = mutate(random, STREAM);
  const whole = pdusOf([bytes]);
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.below(random.below(4) === 0 ? 200 : 9);
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  deepStrictEqual(pdusOf(parts), whole);
  for (const each of whole) {
    if (typeof each === "string") ok(each.length > 0 && each.length < 200 && !each.includes("\n"));
    else if (each.type === "command") ok(each.command.length === 64 && each.data.length <= DATA_BYTES_MAX);
  }
}
