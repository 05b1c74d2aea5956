/** The fuzz targets for a moment and from fixed seeds: a target that rots is noticed, and so is a coarse mistake. */
import { describe, test } from "bun:test";
import { seededRandom } from "../harness/random.ts";
import { TARGETS } from "./targets.ts";

const ROUNDS = 1500;

describe("fuzz", () => {
  for (const [name, target] of Object.entries(TARGETS)) {
    test(`${name}, ${ROUNDS} rounds`, () => {
      for (let seed = 1; seed <= ROUNDS; seed++) {
        try {
          target(seededRandom(seed));
        } catch (error) {
          throw new Error(`bun test/fuzz/run.ts ${name} --seed ${seed} --seconds 0`, { cause: error });
        }
      }
    });
  }
});
