/** Whole deployments in virtual time, each from a printed seed. A failure is repeated by running the test again. */
import { describe, expect, test } from "bun:test";
import { KiB } from "../../src/units.ts";
import { Fleet, type FleetOptions } from "./fleet.ts";
import type { SimNode } from "./node.ts";

/** Small enough that all of this file stays below twenty seconds of CPU: 50 nodes, 12 MiB in pieces of 256 KiB. */
const SMALL: Partial<FleetOptions> = {
  nodes: 50,
  pieceCount: 48,
  pieceBytes: 256 * KiB,
  slabBytes: 256 * KiB,
  lastPieceBytes: 100 * KiB + 7,
  tuning: { blockBytesMax: 64 * KiB, outstandingBytesPerSource: 256 * KiB },
};
const HOUR_MS = 3_600_000;

function deploy(options: Partial<FleetOptions>, prepare: (fleet: Fleet) => void = () => {}): Fleet {
  const fleet = Fleet.of({ ...SMALL, ...options });
  prepare(fleet);
  const complete = fleet.runUntil(() => fleet.allComplete, HOUR_MS);
  if (!complete) {
    const stuck = fleet.living
      .filter((node) => !node.complete)
      .map((node) => `${node.index}: ${node.swarm.haveCount} pieces, ${node.swarm.peerCount} peers`);
    throw new Error(`seed ${fleet.options.seed}: not complete: ${stuck.join("; ")}`);
  }
  return fleet;
}

/** Every living node proved every piece exactly once and holds no memory. */
function expectProven(fleet: Fleet): void {
  for (const node of fleet.living) {
    expect(node.verifiedPieces).toBe(fleet.options.pieceCount);
    expect(node.swarm.bytesLeft).toBe(0);
    expect(node.swarm.picker.inFlight.length).toBe(0);
    expect(node.disk.slabsHeld).toBe(0);
  }
}

function banned(fleet: Fleet): string[] {
  const hosts = new Set<string>();
  for (const node of fleet.nodes)
    for (const event of node.faults) if (event.kind === "banned") hosts.add(event.address.host);
  return [...hosts].sort();
}

describe("a fleet", () => {
  test("of 50 nodes and a seeder completes, with little more than one copy from the seeder", () => {
    const fleet = deploy({ seed: 11 });
    expectProven(fleet);
    for (const node of fleet.living) expect(node.swarm.downloadedBytes).toBe(fleet.totalBytes);
    expect(fleet.seeder.link.upBytes / fleet.totalBytes).toBeLessThan(4);
    expect(banned(fleet)).toEqual([]);
    for (const node of fleet.nodes) {
      const faults = node.faults.filter((event) => event.kind === "peer-dropped" && event.reason?.kind === "fault");
      expect(faults).toEqual([]);
    }
  });

  test("the same seed repeats the same events, another does not", () => {
    const hashes = [21, 21, 22].map((seed) => deploy({ seed, nodes: 12, pieceCount: 16 }).eventHash);
    expect(hashes[0]).toBe(hashes[1]);
    expect(hashes[0]).not.toBe(hashes[2]);
  });

  for (const silently of [false, true]) {
    test(`completes while nodes ${silently ? "lose their cable" : "are switched off"}`, () => {
      const fleet = deploy(
        {
          seed: 31,
          nodes: 40,
          linkBytesPerMs: 10_000,
          tuning: { ...SMALL.tuning, snubTimeoutMs: 2_000, idleTimeoutMs: 20_000 },
        },
        (all) => {
          for (let i = 0; i < 8; i++) all.clock.at(300 + 150 * i, () => all.nodes[5 + 3 * i].kill(silently));
        },
      );
      expect(fleet.living.length).toBe(32);
      expectProven(fleet);
    });
  }

  test("completes without the seeder once one copy is out", () => {
    const verified = new Set<number>();
    let killed = false;
    const fleet = deploy({ seed: 41, nodes: 30 }, (all) => {
      const note = all.note.bind(all);
      all.note = (node, kind, value) => {
        note(node, kind, value);
        if (kind === "verified") verified.add(value);
        if (killed || verified.size < all.options.pieceCount) return;
        killed = true;
        all.clock.after(0, () => all.seeder.kill(false));
      };
    });
    expect(killed).toBe(true);
    expectProven(fleet);
  });

  test("bans a peer that sends wrong data, and everybody else completes", () => {
    const liar = 7;
    const fleet = deploy({
      seed: 51,
      nodes: 30,
      isSeeder: (index) => index === 0 || index === liar,
      spoils: (index) => (index === liar ? 0.5 : 0),
    });
    expectProven(fleet);
    expect(fleet.nodes.some((node) => node.failedPieces > 0)).toBe(true);
    expect(banned(fleet)).toEqual([fleet.nodes[liar].options.address.host]);
  });

  test("completes in little memory, and never takes more than it was given", () => {
    const fleet = deploy({ seed: 61, nodes: 30, slabsMax: 2, writeBytesPerMs: 30_000 });
    expectProven(fleet);
    expect(fleet.living.some((node) => node.disk.refusals > 0)).toBe(true);
    for (const node of fleet.living) expect(node.disk.slabsPeak).toBeLessThanOrEqual(2);
  });

  test("of blocks larger than a slab of some: every request stays inside a slab", () => {
    const fleet = deploy({
      seed: 71,
      nodes: 10,
      pieceBytes: 1024 * KiB,
      pieceCount: 12,
      slabBytes: 128 * KiB,
      slabsMax: 6,
      tuning: { blockBytesMax: 128 * KiB },
    });
    expectProven(fleet);
  });

  test("of foreign clients' block size completes", () => {
    expectProven(deploy({ seed: 81, nodes: 12, pieceCount: 16, tuning: { blockBytesMax: 16 * KiB } }));
  });

  test("of three racks talks mostly inside them, and still to the others", () => {
    const racks = { nodesPerRack: 20, uplinkShare: 0.25, latencyMs: 0.05 };
    let near = 0;
    let far = 0;
    const fleet = deploy({ seed: 101, nodes: 60, racks }, (all) => {
      all.clock.at(150, () => {
        for (const node of all.living)
          for (const session of node.swarm.sessions) {
            if (session.isNear) near++;
            else far++;
          }
      });
    });
    expectProven(fleet);
    // Called at random, a third would be near.
    expect(near).toBeGreaterThan(far);
    expect(far).toBeGreaterThan(fleet.living.length);
  });

  test("writes in long runs where the disk has a head, whatever arrives when", () => {
    const writtenInRuns = (ordered: boolean): number => {
      const disk = { writeBytesPerMs: 160_000, seekMs: 8, slabBytes: 1024 * KiB, slabsMax: 33, ordered };
      const fleet = deploy({ seed: 91, nodes: 8, pieceBytes: 4096 * KiB, pieceCount: 24, ...disk });
      expectProven(fleet);
      const sum = (value: (node: SimNode) => number): number =>
        fleet.living.reduce((total, node) => total + value(node), 0);
      return sum((node) => node.disk.longRunBytes) / sum((node) => node.disk.writtenBytes);
    };
    expect(writtenInRuns(true)).toBeGreaterThan(0.9);
    expect(writtenInRuns(false)).toBeLessThan(0.9);
  });
});
