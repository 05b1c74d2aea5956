/**
 * `bun test/fuzz/run.ts NAME|all [--seed N] [--seconds N]`: runs a fuzz target round by round and prints the seed
 * of a round that fails. `--seed` alone with `--seconds 0` runs that one round again.
 */
import { parseArgs } from "node:util";
import { seededRandom } from "../harness/random.ts";
import { TARGETS } from "./targets.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seed: { type: "string" }, seconds: { type: "string", default: "10" } },
});
const name = positionals[0] ?? "";
const names = name === "all" ? Object.keys(TARGETS) : [name];
const firstSeed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed);

if (!names.every((each) => each in TARGETS) || !Number.isInteger(firstSeed)) {
  console.error(`usage: bun test/fuzz/run.ts ${Object.keys(TARGETS).join("|")}|all [--seed N] [--seconds N]`);
  process.exit(2);
}
for (const each of names) runTarget(each, Number(values.seconds) * 1000);

function runTarget(target: string, durationMs: number): void {
  const end = performance.now() + durationMs;
  let seed = firstSeed;
  do {
    try {
      TARGETS[target]!(seededRandom(seed));
    } catch (error) {
      console.error(`${target} failed: bun test/fuzz/run.ts ${target} --seed ${seed} --seconds 0`);
      throw error;
    }
    seed++;
  } while (performance.now() < end);
  console.log(`${target}: ${seed - firstSeed} rounds from seed ${firstSeed}`);
}
