/**
 * How a node writes to a disk that seeks: `npm run bench -- disk [--bytes 1G] [--nodes 4] [--piece-size 4M]
 * [--megabits 200] [--scheduler none|mq-deadline] [--rounds 3] [--json]`.
 *
 * A server and its nodes on shaped links; each node's target is a loop device in memory. The kernel is told that it
 * rotates (queue/rotational) or that it does not, and its trace says in which order the device got what was written.
 * From that follows what a disk of 160 MB/s that needs 8 ms to seek would have taken for it. The simulator has the
 * same disk, with time: `bun test/sim/run.ts --scenario disks`.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { choice, size } from "../../src/cli/options.ts";
import { GiB, MiB } from "../../src/units.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, start } from "../harness/diskswarm.ts";
import { stampedImage } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { type Machine, Network } from "../harness/network.ts";
import { Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { patternOf, traceRequests, type WritePattern } from "./shared/block-trace.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { cannotMeasure, count, names, readSettings } from "./shared/settings.ts";
import { type Usage, usageCells, usageFigures, type UsageFigures, usageHead, usageOf } from "./shared/usage.ts";

/** What the kernel is told of the targets. */
const CONTESTANTS = { rotational: "1", solid: "0" };
type Contestant = keyof typeof CONTESTANTS;
const CONTESTANT_NAMES = Object.keys(CONTESTANTS) as Contestant[];

/** The disk that is reckoned with: a common one of 7,200 revolutions, half way in. */
const DISK_BYTES_PER_SECOND = 160e6;
const SEEK_SECONDS = 0.008;
const HTTP_PORT = 6969;

interface Task {
  readonly bytes: number;
  readonly image: string;
  readonly torrent: string;
  readonly server: Machine;
  readonly nodes: readonly Machine[];
  readonly memory: number;
  readonly scheduler: string;
}

interface Measured {
  readonly lastSeconds: number;
  /** Of each node's disk. */
  readonly patterns: readonly WritePattern[];
  /** Of the first node. */
  readonly node: Usage;
}

export async function main(words: string[]): Promise<void> {
  const settings = readSettings(
    {
      name: "disk",
      summary: "In which order nodes of a swarm write, where their disks rotate and where they do not.",
      options: {
        bytes: size("how much is sent", "1G"),
        nodes: count("how many nodes", 4),
        pieceSize: size("bytes of a piece", "4M"),
        megabits: count("what each link carries each way", 200),
        memory: size("--memory of every node", "64M"),
        scheduler: choice(["none", "mq-deadline"], "what sorts the device's requests in the kernel", "none"),
        only: names(CONTESTANT_NAMES, "who takes part"),
      },
    },
    words,
  );
  const { bytes, rounds, only, json, pieceSize, megabits, memory, scheduler } = settings;
  if (!isRoot) throw cannotMeasure("loop devices and network namespaces need root");
  const scope = new Scope();
  try {
    const folder = scope.ramDir();
    const image = stampedImage(join(folder, "image.raw"), bytes, 57);
    const torrent = await capture(scope, image, join(folder, "image.torrent"), "--piece-size", String(pieceSize));
    const network = new Network(scope);
    const [server, ...nodes] = Array.from({ length: settings.nodes + 1 }, () => network.machine());
    for (const machine of [server!, ...nodes]) machine.shape(megabits);
    const task: Task = { bytes, image, torrent, server: server!, nodes, memory, scheduler };
    const measured = await takeTurns(only, rounds, (name) => deployAll(task, name));
    const rows = [...measured].map(([name, all]) => summarize(name, bytes, all));
    const { nodes: nodeCount } = settings;
    print(json, { bytes, nodes: nodeCount, pieceSize, megabits, memory, scheduler, rounds, rows }, () => asTable(rows));
  } finally {
    await scope.close();
  }
}

async function deployAll(task: Task, contestant: Contestant): Promise<Measured> {
  const scope = new Scope();
  try {
    const { server, image, torrent, memory, bytes } = task;
    const port = String(HTTP_PORT);
    const at = ["--listen", server.address, "--port", "6881", "--http", port, "--udp", port];
    const serving = start(scope, ["serve", `${torrent}=${image}`, ...at], { machine: server });
    await serving.event("start");
    const targets = task.nodes.map(() => loopDevice(scope, bytes).path);
    for (const target of targets) {
      setQueue(target, "rotational", CONTESTANTS[contestant]);
      setQueue(target, "scheduler", task.scheduler);
    }
    const endTrace = traceRequests(scope, targets);
    const beginMs = performance.now();
    const url = `http://${server.address}:${HTTP_PORT}/torrents/image.torrent`;
    const how = ["--delta", "never", "--memory", String(memory), "--linger", "10m"];
    const nodes = task.nodes.map((machine, index) =>
      start(scope, ["deploy", url, targets[index]!, ...how], { machine, watchMemory: true }),
    );
    await Promise.all(nodes.map((node) => node.done()));
    const lastSeconds = (performance.now() - beginMs) / 1000;
    const patterns = endTrace().map(patternOf);
    for (const { child } of [...nodes, serving]) await child.stop();
    for (const target of targets) expectSameBytes(target, image, bytes);
    return { lastSeconds, patterns, node: usageOf(nodes[0]!.child) };
  } catch (error) {
    if (error instanceof Error) error.message += `\n${scope.explanation()}`;
    throw error;
  } finally {
    await scope.close();
  }
}

function setQueue(device: string, name: string, value: string): void {
  writeFileSync(`/sys/block/${device.slice("/dev/".length)}/queue/${name}`, value);
}

interface Row {
  readonly name: string;
  readonly lastSeconds: number;
  readonly longRunShare: number;
  readonly runsPerGiB: number;
  readonly readsPerGiB: number;
  /** What the disk that is reckoned with would write in a second. */
  readonly diskBytesPerSecond: number;
  readonly node: UsageFigures | null;
}

function summarize(name: string, bytes: number, measured: readonly Measured[]): Row {
  const disks = measured.flatMap(({ patterns }) => patterns);
  const middle = (of: (pattern: WritePattern) => number) => median(disks.map(of));
  const seconds = ({ writtenBytes, runs, reads }: WritePattern) =>
    writtenBytes / DISK_BYTES_PER_SECOND + (runs + reads) * SEEK_SECONDS;
  return {
    name,
    lastSeconds: median(measured.map(({ lastSeconds }) => lastSeconds)),
    longRunShare: middle(({ longRunShare }) => longRunShare),
    runsPerGiB: middle(({ runs, writtenBytes }) => runs / (writtenBytes / GiB)),
    readsPerGiB: middle(({ reads, writtenBytes }) => reads / (writtenBytes / GiB)),
    diskBytesPerSecond: middle((pattern) => pattern.writtenBytes / seconds(pattern)),
    node: usageFigures(
      measured.map(({ node }) => node),
      bytes,
    ),
  };
}

function asTable(rows: readonly Row[]): string {
  const head = ["", "last s", "in runs >= 4 MiB", "runs/GiB", "reads/GiB", "disk MiB/s", ...usageHead("node")];
  return table(
    head,
    rows.map((row) => [
      row.name,
      row.lastSeconds.toFixed(1),
      `${(row.longRunShare * 100).toFixed(1)} %`,
      row.runsPerGiB.toFixed(0),
      row.readsPerGiB.toFixed(0),
      (row.diskBytesPerSecond / MiB).toFixed(0),
      ...usageCells(row.node),
    ]),
  );
}
