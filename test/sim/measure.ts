/** Runs one simulated deployment to its end and says what came of it. */
import type { SwarmTuning } from "../../src/swarm/policy.ts";
import { formatBytes } from "../../src/units.ts";
import { Fleet } from "./fleet.ts";
import type { SimNode } from "./node.ts";
import { fleetOf, Group, type Setup } from "./scenarios.ts";

/** Times are multiples of F/B: what one copy takes at the full rate. */
export interface Outcome {
  readonly seed: number;
  readonly nodes: number;
  readonly pieces: number;
  readonly complete: boolean;
  /** F/B. */
  readonly transferSeconds: number;
  /** Of the nodes that nothing is wrong with, from the start of the deployment. */
  readonly first: number;
  readonly median: number;
  readonly p95: number;
  readonly last: number;
  /** (1 + log2(N)/pieces), and `last` as a multiple of it. */
  readonly bound: number;
  readonly toBound: number;
  /** The last of the slow nodes, as a multiple of F over their own rate; and of the late ones, from their joining. */
  readonly slowLast: number | null;
  readonly lateLast: number | null;
  readonly died: number;
  /** Payload that left the seeder, in images. */
  readonly seederImages: number;
  /** Of what nodes received: payload that they had or got elsewhere, and all that is not payload. */
  readonly duplicateShare: number;
  readonly overheadShare: number;
  /** Per node: connections made, and most at a time. */
  readonly connections: number;
  readonly connectionsPeak: number;
  /** Of what disks wrote, in runs of at least 4 MiB. */
  readonly sequentialShare: number;
  readonly events: number;
  readonly hash: string;
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

/** No deployment of interest takes longer; one that stands still must end. */
const LIMIT_FACTOR = 40;
const LIMIT_SPARE_MS = 60_000;

/** `observe` may look at the fleet before it begins. */
export function deploy(
  setup: Setup,
  tuning: Partial<SwarmTuning>,
  observe: (fleet: Fleet) => void = () => {},
): Outcome {
  const startedMs = performance.now();
  const cpuBefore = process.cpuUsage();
  const { options, groups } = fleetOf(setup, tuning);
  const fleet = Fleet.of(options);
  observe(fleet);
  const slowest = setup.slow > 0 ? Math.min(1, setup.slowShare) : 1;
  const limitMs = (LIMIT_FACTOR * fleet.boundMs) / slowest + LIMIT_SPARE_MS;
  const complete = fleet.runUntil(() => fleet.allComplete, limitMs);
  const cpu = process.cpuUsage(cpuBefore);
  const living = fleet.living;
  const of = (group: Group): SimNode[] => living.filter((node) => groups[node.index] === group);
  const ends = of(Group.plain)
    .map((node) => timeOf(node) / fleet.boundMs)
    .sort((a, b) => a - b);
  const last = ends[ends.length - 1];
  const sum = (value: (node: SimNode) => number): number => living.reduce((total, node) => total + value(node), 0);
  const received = sum((node) => node.link.downBytes);
  const payload = sum((node) => node.payloadBytes);
  return {
    seed: setup.seed,
    nodes: setup.nodes,
    pieces: setup.pieces,
    complete,
    transferSeconds: fleet.boundMs / 1000,
    first: ends[0],
    median: ends[ends.length >> 1],
    p95: ends[Math.min(ends.length - 1, Math.floor(ends.length * 0.95))],
    last,
    bound: fleet.pieceBound,
    toBound: last / fleet.pieceBound,
    slowLast: largest(of(Group.slow).map((node) => (timeOf(node) / fleet.boundMs) * setup.slowShare)),
    lateLast: largest(of(Group.late).map((node) => (timeOf(node) - node.joinedMs) / fleet.boundMs)),
    died: setup.nodes - living.length,
    seederImages: fleet.seeder.swarm.uploadedBytes / fleet.totalBytes,
    duplicateShare: (payload - sum((node) => node.swarm.downloadedBytes)) / received,
    overheadShare: (received - payload) / received,
    connections: sum((node) => node.connections) / living.length,
    connectionsPeak: Math.max(...living.map((node) => node.connectionsPeak)),
    sequentialShare:
      sum((node) => node.disk.longRunBytes) /
      Math.max(
        1,
        sum((node) => node.disk.writtenBytes),
      ),
    events: fleet.clock.ran,
    hash: fleet.eventHash.toString(16),
    wallSeconds: (performance.now() - startedMs) / 1000,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    peakRssBytes: 1024 * process.resourceUsage().maxRSS,
  };
}

/** Infinity: it never was complete. */
function timeOf(node: SimNode): number {
  return node.completedMs < 0 ? Infinity : node.completedMs;
}

function largest(values: readonly number[]): number | null {
  return values.length === 0 ? null : Math.max(...values);
}

export const COLUMNS = [
  "run",
  "nodes",
  "first",
  "median",
  "p95",
  "last",
  "bound",
  "to bound",
  "slow",
  "late",
  "died",
  "seeder",
  "dupl",
  "extra",
  "conns",
  "CPU s",
  "RSS",
] as const;

export const LEGEND =
  "times are multiples of F/B; to bound: last / (1 + log2(N)/pieces); slow: their last, of F over their own rate;\n" +
  "late: their last, from joining; seeder: images sent; dupl, extra: received twice, and frames, of all received";

export function cells(name: string, outcome: Outcome): string[] {
  const percent = (share: number): string => `${(100 * share).toFixed(2)}%`;
  return [
    name,
    `${outcome.nodes}`,
    outcome.first.toFixed(3),
    outcome.median.toFixed(3),
    outcome.p95.toFixed(3),
    outcome.last.toFixed(3),
    outcome.bound.toFixed(3),
    outcome.complete ? outcome.toBound.toFixed(3) : "STUCK",
    outcome.slowLast?.toFixed(3) ?? "",
    outcome.lateLast?.toFixed(3) ?? "",
    outcome.died === 0 ? "" : `${outcome.died}`,
    outcome.seederImages.toFixed(2),
    percent(outcome.duplicateShare),
    percent(outcome.overheadShare),
    outcome.connections.toFixed(0),
    outcome.cpuSeconds.toFixed(1),
    formatBytes(outcome.peakRssBytes),
  ];
}
