/** Fleets with everything at random: sizes, memory, latency, liars, machines that die. Each from its seed, in the test's name. */
import { describe, expect, test } from "bun:test";
import { Random } from "../../src/swarm/random.ts";
import { KiB } from "../../src/units.ts";
import { Fleet, type FleetOptions } from "./fleet.ts";

const SEEDS = 24;
const LIMIT_MS = 600_000;

interface Chaos {
  readonly options: Partial<FleetOptions>;
  readonly liars: ReadonlySet<number>;
  readonly deaths: { readonly node: number; readonly atMs: number; readonly silently: boolean }[];
}

function chaosOf(seed: number): Chaos {
  const random = new Random(seed * 7919);
  const from = (values: readonly number[]): number => values[random.below(values.length)];
  const nodes = 4 + random.below(20);
  const pieceBytes = from([64, 256, 1024]) * KiB;
  const slabBytes = Math.min(pieceBytes, from([32, 128, 1024]) * KiB);
  const liars = new Set(Array.from({ length: random.below(3) }, () => 1 + random.below(nodes)));
  const deaths = Array.from({ length: random.below(5) }, () => ({
    node: 1 + random.below(nodes),
    atMs: random.below(3000),
    silently: random.chance(0.5),
  })).filter((death) => !liars.has(death.node));
  const options: Partial<FleetOptions> = {
    seed,
    nodes,
    pieceBytes,
    slabBytes,
    pieceCount: 8 + random.below(30),
    lastPieceBytes: 1 + random.below(pieceBytes),
    slabsMax: 1 + random.below(12),
    writeBytesPerMs: 2_000 + random.below(100_000),
    linkBytesPerMs: 5_000 + random.below(50_000),
    latencyMs: from([0.1, 2, 30]),
    joinMs: random.below(2000),
    outboxBytes: 2 * KiB + random.below(4 * KiB),
    isSeeder: (index) => index === 0 || liars.has(index),
    spoils: (index) => (liars.has(index) ? 0.3 : 0),
    ordered: random.chance(0.3),
    tuning: {
      blockBytesMax: Math.min(slabBytes, from([16, 64]) * KiB),
      outstandingBytesPerSource: from([32, 128, 1024]) * KiB,
      snubTimeoutMs: 2_000,
      idleTimeoutMs: 20_000,
      piecesInFlightMax: 1 + random.below(8),
      dialMax: 2 + random.below(8),
      acceptMax: 3 + random.below(12),
      uploadSlots: 1 + random.below(5),
    },
  };
  return { options, liars, deaths };
}

describe("chaos", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    test(`seed ${seed}: whoever lives completes, with every piece proven once`, () => {
      const { options, liars, deaths } = chaosOf(seed);
      const fleet = Fleet.of(options);
      for (const death of deaths) fleet.clock.at(death.atMs, () => fleet.nodes[death.node]?.kill(death.silently));
      expect(fleet.runUntil(() => fleet.allComplete, LIMIT_MS)).toBe(true);
      for (const node of fleet.living) {
        expect(node.verifiedPieces).toBe(fleet.options.pieceCount);
        expect(node.disk.slabsHeld).toBe(0);
        expect(node.disk.slabsPeak).toBeLessThanOrEqual(fleet.options.slabsMax);
        const lying = new Set([...liars].map((liar) => fleet.nodes[liar].options.address.host));
        for (const event of node.faults) if (event.kind === "banned") expect(lying).toContain(event.address.host);
      }
    });
  }
});
