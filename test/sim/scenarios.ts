/**
 * The deployments that the simulator knows by name, in one table, and what makes a fleet of one of them.
 *
 * A scenario is a set of values for the options of `run.ts`; each of these may be given beside it. Nodes are
 * chosen by the seed: the slow and the late ones are different machines, the dying ones may be any.
 */
import type { SwarmTuning } from "../../src/swarm/policy.ts";
import { Random } from "../../src/swarm/random.ts";
import { KiB, MiB } from "../../src/units.ts";
import { type FleetOptions, randomDeaths } from "./fleet.ts";

export interface Setup {
  readonly seed: number;
  readonly nodes: number;
  readonly pieces: number;
  readonly pieceBytes: number;
  /** Goodput of a link, each way. */
  readonly rateBytesPerSecond: number;
  /** One way between a machine and its switch; two of these lie between neighbours. */
  readonly latencyMs: number;
  /** Nodes per rack; 0: all on one switch. */
  readonly rackNodes: number;
  /** What a rack's uplink carries, as a part of what its cables do. */
  readonly uplinkShare: number;
  /** Nodes that die at random times before F/B: a part of all (below 1) or a number. */
  readonly deaths: number;
  /** Nodes that join at a random time before F/B, likewise. */
  readonly late: number;
  /** Nodes with a slower link, likewise, and what of the rate they have. */
  readonly slow: number;
  readonly slowShare: number;
  /** The others join within this time. */
  readonly joinMs: number;
  /** 0: writing takes no time. */
  readonly diskBytesPerSecond: number;
  readonly seekMs: number;
  /** 1: writes are put into order for a disk with a head. */
  readonly ordered: number;
  /** Memory for receiving. */
  readonly memoryBytes: number;
  readonly turnBytes: number;
  readonly windowBytes: number;
  readonly unsentBytes: number;
  readonly queueBytes: number;
  /** Mean time until a node looks at what arrived. */
  readonly wakeMs: number;
}

export const SETUP_DEFAULT: Setup = {
  seed: 1,
  nodes: 100,
  pieces: 512,
  pieceBytes: 1 * MiB,
  rateBytesPerSecond: 125_000_000,
  latencyMs: 0.1,
  rackNodes: 0,
  uplinkShare: 0.25,
  deaths: 0,
  late: 0,
  slow: 0,
  slowShare: 0.25,
  joinMs: 50,
  diskBytesPerSecond: 0,
  seekMs: 0,
  ordered: 0,
  memoryBytes: 48 * MiB,
  turnBytes: 64 * KiB,
  windowBytes: 256 * KiB,
  unsentBytes: 256 * KiB,
  queueBytes: 256 * KiB,
  wakeMs: 0,
};

export interface Scenario {
  readonly text: string;
  readonly setup: Partial<Setup>;
  readonly tuning?: Partial<SwarmTuning>;
}

export const SCENARIOS: Record<string, Scenario> = {
  equal: { text: "all nodes equal, on one switch, joining within 50 ms", setup: {} },
  racks: { text: "racks of 40 whose uplinks carry a quarter of their cables", setup: { rackNodes: 40 } },
  deaths: { text: "5 % of the nodes die at random times, half of them without a word", setup: { deaths: 0.05 } },
  slow: { text: "5 % of the nodes have a quarter of the rate", setup: { slow: 0.05 } },
  tenth: { text: "one node has a tenth of the rate", setup: { slow: 1, slowShare: 0.1 } },
  late: { text: "20 % of the nodes join at random times while the others are at it", setup: { late: 0.2 } },
  bench: {
    text: "the shaped links and the busy machine of `npm run bench -- fleet`",
    setup: {
      nodes: 8,
      pieces: 1024,
      pieceBytes: 256 * KiB,
      rateBytesPerSecond: 11_960_000,
      latencyMs: 0.02,
      joinMs: 200,
      turnBytes: 16 * KiB,
      windowBytes: 128 * KiB,
      // What tbf holds for 50 ms; `ss` sees round trips of 30 to 50 ms there, with 60 KiB of a connection on their way.
      queueBytes: 600 * KiB,
      wakeMs: 10,
    },
  },
  disks: {
    text: "rotational disks: 160 MB/s in sequence, 8 ms to seek, writes in order",
    setup: { diskBytesPerSecond: 160_000_000, seekMs: 8, ordered: 1 },
  },
};

export const enum Group {
  /** Must not notice what is wrong with others. */
  plain,
  slow,
  late,
}

/** The options of a fleet, and which node (by index; 0 is the seeder) belongs to which group. */
export function fleetOf(
  setup: Setup,
  tuning: Partial<SwarmTuning>,
): { options: Partial<FleetOptions>; groups: Group[] } {
  const random = new Random(setup.seed ^ 0x6f0d);
  const order = Int32Array.from({ length: setup.nodes }, (_, i) => i + 1);
  random.shuffle(order);
  const groups = new Array<Group>(setup.nodes + 1).fill(Group.plain);
  const slow = countOf(setup.slow, setup.nodes);
  const late = countOf(setup.late, setup.nodes);
  for (const node of order.subarray(0, slow)) groups[node] = Group.slow;
  for (const node of order.subarray(slow, slow + late)) groups[node] = Group.late;
  const linkBytesPerMs = setup.rateBytesPerSecond / 1000;
  const transferMs = (setup.pieces * setup.pieceBytes) / linkBytesPerMs;
  const slabBytes = Math.min(1 * MiB, setup.pieceBytes);
  // The seeder's own number of slots is a constant of the policy.
  const { uploadSlots, ...forAll } = tuning;
  const options: Partial<FleetOptions> = {
    seed: setup.seed,
    nodes: setup.nodes,
    pieceCount: setup.pieces,
    pieceBytes: setup.pieceBytes,
    lastPieceBytes: 0,
    slabBytes,
    slabsMax: Math.floor(setup.memoryBytes / slabBytes),
    linkBytesPerMs,
    latencyMs: setup.latencyMs,
    rateOf: (index) =>
      groups[index] === Group.slow ? { up: setup.slowShare, down: setup.slowShare } : { up: 1, down: 1 },
    racks:
      setup.rackNodes === 0
        ? null
        : { nodesPerRack: setup.rackNodes, uplinkShare: setup.uplinkShare, latencyMs: setup.latencyMs / 2 },
    joinsAtMs: (index, joins) => joins.below(groups[index] === Group.late ? transferMs : setup.joinMs + 1),
    deaths: randomDeaths(setup.seed, setup.nodes, countOf(setup.deaths, setup.nodes) / setup.nodes, transferMs),
    writeBytesPerMs: setup.diskBytesPerSecond === 0 ? Infinity : setup.diskBytesPerSecond / 1000,
    seekMs: setup.seekMs,
    ordered: setup.ordered === 1,
    wakeMs: setup.wakeMs,
    network: {
      turnBytes: setup.turnBytes,
      windowBytes: setup.windowBytes,
      unsentBytes: setup.unsentBytes,
      queueBytes: setup.queueBytes,
    },
    tuning: { blockBytesMax: slabBytes, ...forAll },
    tuningOf: (index) => (index === 0 || uploadSlots === undefined ? {} : { uploadSlots }),
  };
  return { options, groups };
}

function countOf(value: number, nodes: number): number {
  return value < 1 ? Math.round(value * nodes) : Math.min(nodes, value);
}
