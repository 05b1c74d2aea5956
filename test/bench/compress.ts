/**
 * What compression between our own peers is worth on a slow network: one server and N nodes in namespaces of their own
 * on one bridge, every link shaped: `npm run bench -- compress [--bytes 256M] [--megabits 100] [--image os|noise]`.
 *
 * The image is made of this machine's files (`shared/os-image.ts`) or of noise. T is the time from the start of the
 * nodes' processes to the last one's word that all is proven and flushed; it is told over F/goodput, where goodput is
 * what iperf3 carries in the same namespaces. The server's bytes are those that its network interface has sent.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { choice, size, value } from "../../src/cli/options.ts";
import { MiB } from "../../src/units.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, start, type Run } from "../harness/diskswarm.ts";
import { type Machine, Network } from "../harness/network.ts";
import { Scope } from "../harness/scope.ts";
import { iperfGoodput } from "./shared/limits.ts";
import { type MadeImage, noiseImage, osImage } from "./shared/os-image.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { names, readSettings } from "./shared/settings.ts";
import {
  type UsageFigures,
  type Usage,
  usageCells,
  usageFigures,
  usageHead,
  usageOf,
  usageOfAll,
} from "./shared/usage.ts";

const NODES_MAX = 8;
const CONTESTANTS: Record<string, { nodes: number; compress: string }> = {
  "1-auto": { nodes: 1, compress: "auto" },
  "1-off": { nodes: 1, compress: "off" },
  "8-auto": { nodes: NODES_MAX, compress: "auto" },
  "8-off": { nodes: NODES_MAX, compress: "off" },
};
const SEEDER_PORT = 6881;

interface Task {
  readonly bytes: number;
  readonly image: MadeImage;
  readonly torrent: string;
  readonly server: Machine;
  readonly nodes: readonly Machine[];
}

interface Measured {
  readonly lastSeconds: number;
  readonly firstSeconds: number;
  /** What the server's interface sent, headers of all layers included. */
  readonly sentBytes: number;
  /** Payload that a node received, on average, as it crossed the wire. */
  readonly receivedBytes: number;
  readonly server: Usage;
  /** Of the node that had the most memory. */
  readonly node: Usage;
  readonly nodes: Usage;
}

export async function main(words: string[]): Promise<void> {
  const { bytes, megabits, image, memory, rounds, only, json } = readSettings(
    {
      name: "compress",
      summary: "Compressed blocks on shaped links: one server, 1 and 8 nodes, with and without.",
      options: {
        bytes: size("how much is sent", "256M"),
        megabits: value(
          { placeholder: "N", help: "what each link carries each way", expected: "a number", parse: Number },
          100,
        ),
        image: choice(["os", "noise"], "files of this machine (2:1), or what nothing compresses", "os"),
        memory: size("--memory of every node", "64M"),
        only: names(Object.keys(CONTESTANTS), "who takes part"),
      },
    },
    words,
  );
  const scope = new Scope();
  try {
    const folder = scope.ramDir();
    const made = (image === "os" ? osImage : noiseImage)(join(folder, "image.raw"), bytes);
    const torrent = await capture(scope, made.path, join(folder, "image.torrent"), "--piece-size", "1M");
    const network = new Network(scope);
    const server = network.machine();
    const nodes = Array.from({ length: NODES_MAX }, () => network.machine());
    for (const machine of [server, ...nodes]) machine.shape(megabits);
    const goodput = (await iperfGoodput(placeOf(server), placeOf(nodes[0]!), { seconds: 4 })).forward;
    const task: Task = { bytes, image: made, torrent, server, nodes };
    const measured = await takeTurns(only, rounds, (name) => deployAll(task, CONTESTANTS[name]!, memory));
    const rows = [...measured].map(([name, all]) => summarize(name, bytes, goodput, all));
    print(json, { bytes, megabits, image, packedShare: made.packedShare, goodput, rounds, rows }, asTable);
  } finally {
    await scope.close();
  }
}

function placeOf(machine: Machine) {
  return { address: machine.address, machine };
}

async function deployAll(task: Task, how: { nodes: number; compress: string }, memory: number): Promise<Measured> {
  const scope = new Scope();
  try {
    const { server, image, torrent } = task;
    const flags = ["--compress", how.compress];
    const watched = { watchMemory: true };
    const http = "6969";
    const at = ["--listen", server.address, "--port", String(SEEDER_PORT), "--http", http, "--udp", http];
    const serving = start(scope, ["serve", `${torrent}=${image.path}`, ...at, ...flags], {
      ...watched,
      machine: server,
    });
    await serving.event("start");
    const sentBefore = sentBytes(server);
    const folder = scope.ramDir();
    const beginMs = performance.now();
    const nodes = task.nodes.slice(0, how.nodes).map((machine, index) => {
      const url = `http://${server.address}:${http}/torrents/image.torrent`;
      const target = join(folder, `target-${index}`);
      const words = ["deploy", url, target, "--force", "--memory", String(memory), "--linger", "10m", ...flags];
      return { target, run: start(scope, words, { ...watched, machine }) };
    });
    const ends = await Promise.all(
      nodes.map(({ run }) => run.done().then((done) => ({ atMs: performance.now(), done }))),
    );
    const sent = sentBytes(server) - sentBefore;
    for (const { run } of [...nodes, { run: serving }]) await run.child.stop();
    for (const { target } of nodes) expectSameBytes(target, image.path, task.bytes);
    return {
      lastSeconds: (Math.max(...ends.map(({ atMs }) => atMs)) - beginMs) / 1000,
      firstSeconds: (Math.min(...ends.map(({ atMs }) => atMs)) - beginMs) / 1000,
      sentBytes: sent,
      receivedBytes: ends.reduce((sum, { done }) => sum + Number(done.bytesReceived), 0) / ends.length,
      server: usageOf(serving.child),
      node: largest(nodes.map(({ run }) => run)),
      nodes: usageOfAll(nodes.map(({ run }) => run.child)),
    };
  } catch (error) {
    if (error instanceof Error) error.message += `\n${scope.explanation()}`;
    throw error;
  } finally {
    await scope.close();
    rmSync(join(task.image.path, "..", "target"), { force: true });
  }
}

function largest(runs: readonly Run[]): Usage {
  const usages = runs.map(({ child }) => usageOf(child));
  return usages.reduce((a, b) => (b.peakRssBytes > a.peakRssBytes ? b : a));
}

function sentBytes(machine: Machine): number {
  return Number(machine.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"));
}

interface Row {
  readonly name: string;
  readonly lastSeconds: number;
  readonly firstSeconds: number;
  /** T over F/goodput. */
  readonly overLimit: number;
  /** The server's and a node's bytes, in images. */
  readonly serverSent: number;
  readonly nodeReceived: number;
  readonly server: UsageFigures | null;
  readonly nodes: UsageFigures | null;
}

function summarize(name: string, bytes: number, goodput: number, all: readonly Measured[]): Row {
  const of = (figure: (one: Measured) => number) => median(all.map(figure));
  const nodeCount = CONTESTANTS[name]!.nodes;
  const lastSeconds = of((one) => one.lastSeconds);
  const nodes = usageFigures(
    all.map((one) => ({ cpuSeconds: one.nodes.cpuSeconds / nodeCount, peakRssBytes: one.node.peakRssBytes })),
    bytes,
  );
  return {
    name,
    lastSeconds,
    firstSeconds: of((one) => one.firstSeconds),
    overLimit: lastSeconds / (bytes / goodput),
    serverSent: of((one) => one.sentBytes) / bytes,
    nodeReceived: of((one) => one.receivedBytes) / bytes,
    server: usageFigures(
      all.map((one) => one.server),
      bytes,
    ),
    nodes,
  };
}

interface Result {
  readonly bytes: number;
  readonly megabits: number;
  readonly image: string;
  readonly packedShare: number;
  readonly goodput: number;
  readonly rows: readonly Row[];
}

function asTable({ bytes, megabits, image, packedShare, goodput, rows }: Result): string {
  const head = ["nodes, --compress", "T last s", "first s", "T/(F/goodput)", "server sent F", "node received F"];
  const text = table(
    [...head, ...usageHead("server"), ...usageHead("node")],
    rows.map((row) => [
      row.name,
      row.lastSeconds.toFixed(2),
      row.firstSeconds.toFixed(2),
      row.overLimit.toFixed(3),
      row.serverSent.toFixed(2),
      row.nodeReceived.toFixed(2),
      ...usageCells(row.server),
      ...usageCells(row.nodes),
    ]),
  );
  const about =
    `F = ${(bytes / MiB).toFixed(0)} MiB (${image}), packs to ${packedShare.toFixed(3)} at level 1; ` +
    `links of ${megabits} Mbit/s, iperf3 carries ${(goodput / MiB).toFixed(2)} MiB/s: F/goodput is ${(bytes / goodput).toFixed(2)} s`;
  return `${about}\n${text}`;
}
