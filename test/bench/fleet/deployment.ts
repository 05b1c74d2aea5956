/** One imaging of the room by one contestant: the nodes join, and everything is timed, counted and compared. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../../harness/compare.ts";
import { Scope } from "../../harness/scope.ts";
import { coresBusy } from "../shared/machine.ts";
import { type Usage, usageOf, usageOfAll } from "../shared/usage.ts";
import { CONTESTANTS, type ContestantName, type Joined, nodeFolder, type Stage } from "./contestants.ts";

export interface Plan {
  readonly contestant: ContestantName;
  readonly nodes: number;
  /** From the first node's start to the last one's; 0: all at once. */
  readonly staggerMs: number;
  /** When a deployment that does not end is given up. */
  readonly timeoutMs: number;
}

export interface NodeResult {
  /** Start of its process after the first node's, in seconds. */
  readonly joinedSeconds: number;
  /** From the start of its process to its word that everything is there; null: it failed, or time was up. */
  readonly seconds: number | null;
  readonly usage: Usage;
  /** Seconds since its start, bytes and peers, once a second; ours alone. */
  readonly progress: readonly (readonly [seconds: number, bytesDone: number, peers: number])[];
  readonly sources: readonly { peer: string; bytes: number }[];
}

export interface FleetResult {
  readonly nodes: readonly NodeResult[];
  readonly server: Usage;
  /** By the server's cable, heads included, from the first node's start to the last one's end. */
  readonly serverSentBytes: number;
  /** Share of all cores of this machine that was busy meanwhile. */
  readonly coresBusy: number;
}

/** Images the room; every target is compared with the image afterwards. */
export async function imageRoom(
  plan: Plan,
  staging: Omit<Stage, "scope" | "nodes" | "folderOf">,
): Promise<FleetResult> {
  const scope = new Scope();
  try {
    const parent = join(staging.image.folder, "..", "nodes");
    mkdirSync(parent);
    scope.defer(() => rmSync(parent, { recursive: true, force: true }));
    const folders = Array.from({ length: plan.nodes }, (_, index) => nodeFolder(parent, index));
    const stage = { ...staging, scope, nodes: plan.nodes, folderOf: (index: number) => folders[index]! };
    const serving = await CONTESTANTS[plan.contestant](stage);
    const endBusy = coresBusy();
    const sentBefore = staging.room.server.sentBytes;
    const nodes = await joinAll(plan, (index) => serving.join(index));
    const serverSentBytes = staging.room.server.sentBytes - sentBefore;
    const busy = endBusy();
    await Promise.all([...nodes.map(({ joined }) => joined.child), ...serving.children].map((child) => child.stop()));
    for (const { joined, endMs } of nodes) {
      if (endMs !== null) expectSameBytes(joined.target, staging.image.path, staging.image.bytes);
    }
    const firstMs = nodes[0]!.startMs;
    return {
      nodes: nodes.map((node) => resultOf(node, firstMs)),
      server: usageOfAll(serving.children),
      serverSentBytes,
      coresBusy: busy,
    };
  } catch (error) {
    if (error instanceof Error) error.message += `\n${scope.explanation()}`;
    throw error;
  } finally {
    await scope.close();
  }
}

interface Timed {
  readonly joined: Joined;
  /** Milliseconds since the epoch. */
  readonly startMs: number;
  readonly endMs: number | null;
}

/** Starts the nodes at their times; resolves when the last one is through, or time is up. */
async function joinAll(plan: Plan, joinOne: (index: number) => Joined): Promise<Timed[]> {
  const giveUp = Promise.withResolvers<null>();
  let over = false;
  const timer = setTimeout(() => giveUp.resolve(null), plan.staggerMs + plan.timeoutMs);
  const gapMs = plan.nodes > 1 ? plan.staggerMs / (plan.nodes - 1) : 0;
  const beginMs = Date.now();
  const running: Promise<Timed>[] = [];
  for (let index = 0; index < plan.nodes; index++) {
    const waitMs = beginMs + index * gapMs - Date.now();
    if (waitMs > 0) await Bun.sleep(waitMs);
    const startMs = Date.now();
    const joined = joinOne(index);
    const completeMs = joined.completeMs.catch((error: Error) => {
      if (!over) console.error(`node ${index}: ${error.message}\n${joined.child.describe()}`);
      return null;
    });
    running.push(Promise.race([completeMs, giveUp.promise]).then((endMs) => ({ joined, startMs, endMs })));
  }
  const all = await Promise.all(running);
  clearTimeout(timer);
  // Those that were given up end without their word now, which is no news.
  over = true;
  return all;
}

function resultOf({ joined, startMs, endMs }: Timed, firstMs: number): NodeResult {
  return {
    joinedSeconds: (startMs - firstMs) / 1000,
    seconds: endMs === null ? null : (endMs - startMs) / 1000,
    usage: usageOf(joined.child),
    progress: joined
      .samples()
      .map(({ atMs, bytesDone, peers }) => [(atMs - startMs) / 1000, bytesDone, peers] as const),
    sources: joined.sources(),
  };
}
