/**
 * One seeder to one node on this machine, from memory to memory, so that the programs and not the disks
 * are measured: `npm run bench -- pair [--bytes 4G] [--rounds 3] [--only NAME,...] [--json]`.
 *
 * The contestants take turns, round after round, so that whatever else the machine does falls on all of
 * them. The transfer's time runs from the first block that reaches the target to the program's word that
 * everything is there (for ours: proven and flushed); the total also has the start of the node's process.
 * Limits of the machine are measured in the same rounds.
 */
import { rmSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { size } from "../../src/cli/options.ts";
import { MiB } from "../../src/units.ts";
import { libtorrent } from "../harness/clients.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { seed, start } from "../harness/diskswarm.ts";
import { stampedImage } from "../harness/image.ts";
import { freePort } from "../harness/ports.ts";
import { Child, until } from "../harness/process.ts";
import { Scope } from "../harness/scope.ts";
import { singleTorrent, writeTorrent } from "../harness/torrents.ts";
import { copySeconds, hashSeconds, iperfGoodput } from "./shared/limits.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { names, readSettings } from "./shared/settings.ts";
import { type Usage, type UsageFigures, usageCells, usageFigures, usageHead, usageOf } from "./shared/usage.ts";

const SEEDER_HOST = "127.0.0.2";
const NODE_HOST = "127.0.0.1";
const PIECE_BYTES = MiB;

interface Task {
  readonly bytes: number;
  readonly folder: string;
  readonly image: string;
  readonly torrent: string;
  readonly infoHash: Uint8Array;
}

interface Measured {
  readonly transferSeconds: number;
  readonly totalSeconds: number;
  readonly seeder: Usage | null;
  readonly node: Usage | null;
}

/** One end of a transfer, started. */
interface Seeding {
  readonly child: Child;
  readonly peer: string;
}

type StartSeeder = (scope: Scope, task: Task) => Promise<Seeding>;
/** Starts a node that fetches from `peer`; `complete` settles when it says that everything is there. */
type StartNode = (
  scope: Scope,
  task: Task,
  peer: string,
) => Promise<{ child: Child; target: string; complete: Promise<unknown> }>;

const watched = { watchMemory: true };

function ourSeeder(...flags: string[]): StartSeeder {
  return async (scope, { torrent, image }) => {
    const at = { host: SEEDER_HOST, port: await freePort(SEEDER_HOST) };
    const seeder = await seed(scope, torrent, image, at, flags, watched);
    return { child: seeder.run.child, peer: seeder.peer };
  };
}

function ourNode(...flags: string[]): StartNode {
  return async (scope, { torrent, folder }, peer) => {
    const target = join(folder, "target");
    const at = ["--listen", NODE_HOST, "--port", String(await freePort(NODE_HOST))];
    const words = ["deploy", torrent, target, "--force", "--delta", "never", "--peer", peer, ...at, ...flags];
    const deployment = start(scope, words, watched);
    return { child: deployment.child, target, complete: deployment.done() };
  };
}

const libtorrentSeeder: StartSeeder = async (scope, { torrent, folder }) => {
  const at = { address: SEEDER_HOST, port: await freePort(SEEDER_HOST) };
  const child = libtorrent(scope, { torrent, folder, seeds: true }, at, watched, ["--fast"]);
  await child.waitForLine(/^seeding/);
  return { child, peer: `${at.address}:${at.port}` };
};

const libtorrentNode: StartNode = async (scope, { torrent, folder }, peer) => {
  const theirs = join(folder, "theirs");
  const at = { address: NODE_HOST, port: await freePort(NODE_HOST) };
  const child = libtorrent(scope, { torrent, folder: theirs, seeds: false, peers: [peer] }, at, watched, ["--fast"]);
  return { child, target: join(theirs, "image.raw"), complete: child.waitForLine(/^finished/) };
};

const ARIA2 = [
  "aria2c",
  "--no-conf",
  "--enable-dht=false",
  "--enable-dht6=false",
  "--disable-ipv6=true",
  "--file-allocation=none",
  "--bt-max-peers=0",
  "--bt-tracker-interval=1",
  "--summary-interval=0",
  "--bt-request-peer-speed-limit=0",
];

/** aria2 takes peers from a tracker alone: this one names the same peer to everybody. */
function trackerOf(scope: Scope, peer: string): string {
  const [host, port] = peer.split(":") as [string, string];
  const compact = Buffer.from([...host.split(".").map(Number), Number(port) >> 8, Number(port) & 255]);
  const answer = Buffer.concat([Buffer.from("d8:intervali1e5:peers6:"), compact, Buffer.from("e")]);
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(answer) });
  scope.defer(() => server.stop(true));
  return `http://127.0.0.1:${server.port}/announce`;
}

const aria2Seeder: StartSeeder = async (scope, { torrent, folder }) => {
  const port = await freePort(SEEDER_HOST);
  const words = [
    `--dir=${folder}`,
    `--listen-port=${port}`,
    "--bt-seed-unverified=true",
    "--seed-ratio=0",
    "--allow-overwrite=true",
    torrent,
  ];
  const child = new Child(scope, [...ARIA2, ...words], watched);
  const peer = `${SEEDER_HOST}:${port}`;
  await until("aria2 listens", () => accepts(SEEDER_HOST, port));
  return { child, peer };
};

async function accepts(hostname: string, port: number): Promise<boolean> {
  try {
    (await Bun.connect({ hostname, port, socket: { data() {} } })).end();
    return true;
  } catch {
    return false;
  }
}

const aria2Node: StartNode = async (scope, { torrent, folder }, peer) => {
  const theirs = join(folder, "theirs");
  const words = [
    "--seed-time=0",
    `--dir=${theirs}`,
    `--listen-port=${await freePort(NODE_HOST)}`,
    `--bt-tracker=${trackerOf(scope, peer)}`,
    torrent,
  ];
  const child = new Child(scope, [...ARIA2, ...words], watched);
  return { child, target: join(theirs, "image.raw"), complete: child.ended };
};

/** Pairs of a seeder and a node, by name. */
function transfer(startSeeder: StartSeeder, startNode: StartNode) {
  return async (task: Task): Promise<Measured> => {
    const scope = new Scope();
    try {
      const seeding = await startSeeder(scope, task);
      const beginMs = performance.now();
      const node = await startNode(scope, task, seeding.peer);
      const firstMs = await Promise.race([firstBlockMs(node.target), node.complete.then(() => performance.now())]);
      await node.complete;
      const endMs = performance.now();
      await node.child.stop();
      await seeding.child.stop();
      expectSameBytes(node.target, task.image, task.bytes);
      return {
        transferSeconds: (endMs - firstMs) / 1000,
        totalSeconds: (endMs - beginMs) / 1000,
        seeder: usageOf(seeding.child),
        node: usageOf(node.child),
      };
    } catch (error) {
      if (error instanceof Error) error.message += `\n${scope.explanation()}`;
      throw error;
    } finally {
      await scope.close();
      rmSync(join(task.folder, "target"), { force: true });
      rmSync(join(task.folder, "theirs"), { recursive: true, force: true });
    }
  };
}

/** When the first data reached the target. */
async function firstBlockMs(target: string): Promise<number> {
  await until(`${target} has data`, () => (statSync(target, { throwIfNoEntry: false })?.blocks ?? 0) > 0);
  return performance.now();
}

function limit(work: (task: Task) => Promise<number> | number) {
  return async (task: Task): Promise<Measured> => {
    const seconds = await work(task);
    return { transferSeconds: seconds, totalSeconds: seconds, seeder: null, node: null };
  };
}

async function iperfSeconds({ bytes }: Task): Promise<number> {
  const goodput = await iperfGoodput({ address: SEEDER_HOST }, { address: NODE_HOST }, { bytes });
  return bytes / goodput.forward;
}

const CONTESTANTS: Record<string, (task: Task) => Promise<Measured>> = {
  ours: transfer(ourSeeder(), ourNode()),
  "ours-epoll": transfer(ourSeeder("--io", "epoll"), ourNode("--io", "epoll")),
  "ours-16k": transfer(ourSeeder(), ourNode("--block-size", "16K")),
  "libtorrent-to-ours": transfer(libtorrentSeeder, ourNode()),
  "ours-to-libtorrent": transfer(ourSeeder(), libtorrentNode),
  libtorrent: transfer(libtorrentSeeder, libtorrentNode),
  aria2: transfer(aria2Seeder, aria2Node),
  "ours-to-aria2": transfer(ourSeeder(), aria2Node),
  "aria2-to-ours": transfer(aria2Seeder, ourNode()),
  "limit-iperf3": limit(iperfSeconds),
  "limit-cp": limit(({ image, folder }) => copySeconds(image, join(folder, "target"))),
  "limit-sha1": limit(({ image }) => hashSeconds(image)),
};

export async function main(words: string[]): Promise<void> {
  const contestants = Object.keys(CONTESTANTS);
  const { bytes, rounds, only, json } = readSettings(
    {
      name: "pair",
      summary: "One seeder to one node on this machine, unshaped.",
      options: {
        bytes: size("how much is sent", "4G"),
        only: names(contestants, "who takes part"),
      },
    },
    words,
  );
  const scope = new Scope();
  try {
    const folder = scope.ramDir();
    const image = stampedImage(join(folder, "image.raw"), bytes, 71);
    const written = writeTorrent(join(folder, "image.torrent"), singleTorrent(image, bytes, PIECE_BYTES));
    const task: Task = { bytes, folder, image, torrent: written.path, infoHash: written.infoHash };
    const results = await takeTurns(only, rounds, (name) => CONTESTANTS[name]!(task));
    const rows = [...results].map(([name, measured]) => summarize(name, bytes, measured));
    print(json, { bytes, rounds, cores: availableParallelism(), rows }, (result) => asTable(result.rows));
  } finally {
    await scope.close();
  }
}

interface Row {
  readonly name: string;
  readonly mibPerSecond: number;
  readonly transferSeconds: number;
  readonly transferSecondsMin: number;
  readonly transferSecondsMax: number;
  readonly totalSeconds: number;
  readonly seeder: UsageFigures | null;
  readonly node: UsageFigures | null;
}

function summarize(name: string, bytes: number, measured: readonly Measured[]): Row {
  const times = measured.map(({ transferSeconds }) => transferSeconds);
  return {
    name,
    mibPerSecond: bytes / MiB / median(times),
    transferSeconds: median(times),
    transferSecondsMin: Math.min(...times),
    transferSecondsMax: Math.max(...times),
    totalSeconds: median(measured.map(({ totalSeconds }) => totalSeconds)),
    seeder: usageFigures(
      measured.map(({ seeder }) => seeder),
      bytes,
    ),
    node: usageFigures(
      measured.map(({ node }) => node),
      bytes,
    ),
  };
}

function asTable(rows: readonly Row[]): string {
  const head = ["", "MiB/s", "transfer s", "min", "max", "total s", ...usageHead("seeder"), ...usageHead("node")];
  return table(
    head,
    rows.map((row) => [
      row.name,
      row.mibPerSecond.toFixed(0),
      row.transferSeconds.toFixed(2),
      row.transferSecondsMin.toFixed(2),
      row.transferSecondsMax.toFixed(2),
      row.totalSeconds.toFixed(2),
      ...usageCells(row.seeder),
      ...usageCells(row.node),
    ]),
  );
}
