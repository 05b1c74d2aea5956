/**
 * Where the lines' time goes: how busy the lines are over the time of a deployment, and what the idle ones wait for.
 *
 * A fleet is looked at in regular intervals; nothing of it changes by that. Shares are of all nodes that joined,
 * live and are not complete.
 */
import type { Session } from "../../src/swarm/session.ts";
import type { Fleet } from "./fleet.ts";
import type { SimNode } from "./node.ts";

export interface Moment {
  /** As a multiple of F/B. */
  readonly at: number;
  /** Nodes that are still at it. */
  readonly nodes: number;
  /** Of what their lines could receive since the moment before, and the seeder's could send. */
  readonly received: number;
  readonly seederSent: number;
  /** Pieces whole on average, and those that any node has. */
  readonly pieces: number;
  readonly out: number;
  /** Nodes that at this moment have asked nobody for anything (idle), or only such as serve others first (queued). */
  readonly idle: number;
  readonly queued: number;
  /** Of those idle: nobody near has what they lack; they were not granted any; they have begun as much as they may. */
  readonly nothing: number;
  readonly ungranted: number;
  readonly full: number;
  /** Nodes that send nothing: all that they serve are held up where it arrives; nobody has asked yet; nobody wants what they have. */
  readonly heldUp: number;
  readonly unasked: number;
  readonly unwanted: number;
}

export class Timeline {
  readonly moments: Moment[] = [];
  private readonly downBefore: number[] = [];
  private upBefore = 0;
  private lastMs = 0;

  constructor(
    private readonly fleet: Fleet,
    /** Between two looks. */
    private readonly intervalMs: number,
  ) {
    fleet.clock.after(intervalMs, () => this.look());
  }

  private look(): void {
    const { fleet } = this;
    const elapsedMs = fleet.clock.nowMs - this.lastMs;
    this.lastMs = fleet.clock.nowMs;
    let nodes = 0;
    let received = 0;
    let pieces = 0;
    const reasons = { none: 0, queued: 0, nothing: 0, ungranted: 0, full: 0 };
    const sending = { none: 0, heldUp: 0, unasked: 0, unwanted: 0 };
    for (const node of fleet.living) {
      const bytes = node.link.downBytes - (this.downBefore[node.index] ?? 0);
      this.downBefore[node.index] = node.link.downBytes;
      if (node.complete) continue;
      nodes++;
      received += bytes / (node.link.options.downBytesPerMs * elapsedMs);
      pieces += node.swarm.haveCount;
      reasons[reasonOf(node)]++;
      sending[silenceOf(node)]++;
    }
    const sent = fleet.seeder.link.upBytes - this.upBefore;
    this.upBefore = fleet.seeder.link.upBytes;
    const share = (count: number): number => count / Math.max(1, nodes);
    this.moments.push({
      at: fleet.clock.nowMs / fleet.boundMs,
      nodes,
      received: share(received),
      seederSent: sent / (fleet.seeder.link.options.upBytesPerMs * elapsedMs),
      pieces: share(pieces),
      out: fleet.out.count,
      idle: share(reasons.nothing + reasons.ungranted + reasons.full),
      queued: share(reasons.queued),
      nothing: share(reasons.nothing),
      ungranted: share(reasons.ungranted),
      full: share(reasons.full),
      heldUp: share(sending.heldUp),
      unasked: share(sending.unasked),
      unwanted: share(sending.unwanted),
    });
    if (!fleet.allComplete) fleet.clock.after(this.intervalMs, () => this.look());
  }
}

/** What a node waits for whose line has nothing to receive; `none` where it has. */
function reasonOf(node: SimNode): "none" | "queued" | "nothing" | "ungranted" | "full" {
  let asked = false;
  let wants = false;
  let interested = false;
  for (const session of node.swarm.sessions) {
    if (!session.isOpen) continue;
    if (session.payloadLength > 0) return "none";
    if (session.outstanding.count > 0) {
      asked = true;
      if (isServed(node, session)) return "none";
    }
    if (session.source.missingCount > 0) wants = true;
    if (session.amInterested) interested = true;
  }
  if (asked) return "queued";
  if (!wants) return "nothing";
  return interested ? "ungranted" : "full";
}

/** Why a node sends nothing; `none` where it does. */
function silenceOf(node: SimNode): "none" | "heldUp" | "unasked" | "unwanted" {
  if (node.link.isSending) return "none";
  let isWanted = false;
  for (const session of node.swarm.sessions) {
    if (session.slot.sendingBytes > 0) return "heldUp";
    if (session.isOpen && session.peerInterested) isWanted = true;
  }
  return isWanted ? "unasked" : "unwanted";
}

/** The other end is sending it a block. */
function isServed(node: SimNode, session: Session): boolean {
  return (node.remoteOf(session)?.slot.sendingBytes ?? 0) > 0;
}

export const COLUMNS = [
  "at",
  "nodes",
  "pieces",
  "out",
  "received",
  "seeder",
  "idle",
  "queued",
  "nothing",
  "ungranted",
  "full",
  "held up",
  "unasked",
  "unwanted",
] as const;

export function cells(moment: Moment): string[] {
  const percent = (share: number): string => `${(100 * share).toFixed(1)}%`;
  const { at, nodes, pieces, out, received, seederSent, idle, queued, nothing, ungranted, full } = moment;
  const { heldUp, unasked, unwanted } = moment;
  return [
    at.toFixed(3),
    `${nodes}`,
    pieces.toFixed(1),
    `${out}`,
    ...[received, seederSent, idle, queued, nothing, ungranted, full, heldUp, unasked, unwanted].map(percent),
  ];
}
