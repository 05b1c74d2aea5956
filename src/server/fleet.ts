/**
 * The fleet as its server knows it: what each node last reported. Pure: time and reports come in, what is worth
 * telling comes out. Bounded: beyond `FLEET_NODES_MAX` nodes the one that was silent for longest is forgotten.
 */
import type { NodePhase, NodeReport } from "../boot/init/node-report.ts";
import { FLEET_NODES_MAX } from "../limits.ts";

export interface FleetNode extends NodeReport {
  readonly id: string;
  /** When this phase began and when the node was heard last, in ms since the epoch. */
  readonly sinceMs: number;
  readonly heardMs: number;
}

/** A report with its place in the order of all. */
export interface FleetEvent extends NodeReport {
  readonly id: string;
  readonly timeMs: number;
  readonly sequence: number;
}

/** A node that reports this seldom would look dead; one that reports more often tells nothing new. */
const INTERVAL_MIN_S = 5;
const INTERVAL_MAX_S = 60;
/** So many reports each second a server takes without noticing. */
const REPORTS_PER_SECOND = 100;

export class Fleet {
  /** In the order in which they were heard last. */
  readonly #nodes = new Map<string, FleetNode>();
  #sequence = 0;

  constructor(readonly nodesMax = FLEET_NODES_MAX) {}

  get size(): number {
    return this.#nodes.size;
  }

  /** How many events there were. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Takes a report in. Returns it as an event. */
  report(nowMs: number, id: string, report: NodeReport): FleetEvent {
    const before = this.#nodes.get(id);
    this.#nodes.delete(id);
    if (this.#nodes.size >= this.nodesMax) this.#nodes.delete(this.#nodes.keys().next().value!);
    const sinceMs = before?.phase === report.phase ? before.sinceMs : nowMs;
    this.#nodes.set(id, { ...kept(before, report), ...report, id, sinceMs, heardMs: nowMs });
    return { ...report, id, timeMs: nowMs, sequence: ++this.#sequence };
  }

  /** Seconds until a node that works may report again: the whole fleet together stays below what a server takes easily. */
  get reportIntervalSeconds(): number {
    return Math.min(INTERVAL_MAX_S, Math.max(INTERVAL_MIN_S, Math.ceil(this.#nodes.size / REPORTS_PER_SECOND)));
  }

  /** The nodes, the one heard last at the end. */
  nodes(): FleetNode[] {
    return [...this.#nodes.values()];
  }

  /** How many nodes are in which phase. */
  counts(): Partial<Record<NodePhase, number>> {
    const counts: Partial<Record<NodePhase, number>> = {};
    for (const { phase } of this.#nodes.values()) counts[phase] = (counts[phase] ?? 0) + 1;
    return counts;
  }
}

/** What stays known of a node: all of it until it boots again; of a failure that is over nothing. */
function kept(before: FleetNode | undefined, report: NodeReport): Partial<FleetNode> {
  if (before === undefined || report.phase === "booted") return {};
  const { message: _message, code: _code, ...rest } = before;
  return rest;
}
