/**
 * One seeder to one node on this machine, unshaped: `npm run bench -- pair [--bytes 4G] [--storage ram|disk]
 * [--rounds 3] [--only NAME,...] [--json]`.
 *
 * From memory to memory the programs and not the disks are measured. On disk, ours read and write past the
 * page cache, the image is dropped from the page cache before each turn, and a program that does not flush by
 * itself is over when its file was flushed. The transfer's time runs from the first block that reaches the
 * target to the program's word that everything is there (ours: proven and flushed); the total also has the
 * start of the node's process. Limits of the machine are measured in the same rounds.
 *
 * Both ends are in a network namespace of their own and talk over its loopback device.
 */
import { mkdirSync, rmSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { size } from "../../src/cli/options.ts";
import { MiB } from "../../src/units.ts";
import { CLIENT_PORT, seedersKnown, startOpentracker, trackerUrl } from "../harness/clients.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { seed, start } from "../harness/diskswarm.ts";
import { stampedImage } from "../harness/image.ts";
import { type Machine, Network } from "../harness/network.ts";
import { type Child, run, until } from "../harness/process.ts";
import { Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { singleTorrent, writeTorrent } from "../harness/torrents.ts";
import { aria2Client, libtorrentClient, type StartClient, transmissionClient } from "./shared/clients.ts";
import { copySeconds, directCopySeconds, hashSeconds, iperfGoodput } from "./shared/limits.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { cannotMeasure, choice, names, readSettings } from "./shared/settings.ts";
import { type Usage, type UsageFigures, usageCells, usageFigures, usageHead, usageOf } from "./shared/usage.ts";

const NODE_ADDRESS = "10.78.0.1";
const PIECE_BYTES = MiB;
const WATCH_MS = 10;

interface Task {
  readonly bytes: number;
  readonly folder: string;
  readonly image: string;
  readonly torrent: string;
  /** The same torrent with the name of a tracker, for clients that hear of peers no other way. */
  readonly trackedTorrent: string;
  readonly infoHash: Uint8Array;
  /** One machine by two addresses, since several clients want one peer per address. */
  readonly seederAt: Machine;
  readonly nodeAt: Machine;
  readonly storage: "ram" | "disk";
}

interface Measured {
  readonly transferSeconds: number;
  readonly totalSeconds: number;
  readonly seeder: Usage | null;
  readonly node: Usage | null;
}

/** Starts a seeder; resolves when it serves. */
type StartSeeder = (scope: Scope, task: Task) => Promise<Child>;

interface Fetching {
  readonly child: Child;
  readonly target: string;
  /** Settles when the program says that everything is there. */
  readonly complete: Promise<unknown>;
  /** Its word means that everything is on the disk. */
  readonly flushes: boolean;
}

type StartNode = (scope: Scope, task: Task) => Fetching;

const watched = { watchMemory: { everyMs: WATCH_MS } };

function directFlags({ storage }: Task): string[] {
  return storage === "disk" ? ["--direct", "on"] : [];
}

function ourSeeder(...flags: string[]): StartSeeder {
  return async (scope, task) => {
    const { torrent, image, seederAt: machine } = task;
    const at = { host: machine.address, port: CLIENT_PORT };
    const options = { machine, ...watched };
    return (await seed(scope, torrent, image, at, [...directFlags(task), ...flags], options)).run.child;
  };
}

function ourNode(...flags: string[]): StartNode {
  return (scope, task) => {
    const { torrent, folder, seederAt, nodeAt: machine } = task;
    const target = join(folder, "target");
    const at = ["--listen", machine.address, "--port", String(CLIENT_PORT)];
    const from = ["--peer", `${seederAt.address}:${CLIENT_PORT}`];
    const how = ["--force", "--delta", "never", ...from, ...at, ...directFlags(task), ...flags];
    const deployment = start(scope, ["deploy", torrent, target, ...how], { machine, ...watched });
    return { child: deployment.child, target, complete: deployment.done(), flushes: true };
  };
}

/** A stock client as a peer: libtorrent is told its peers, the others meet at opentracker beside the seeder. */
interface Stock {
  readonly start: StartClient;
  readonly tracked: boolean;
}

const LIBTORRENT: Stock = { start: libtorrentClient, tracked: false };
const ARIA2: Stock = { start: aria2Client, tracked: true };
const TRANSMISSION: Stock = { start: transmissionClient, tracked: true };

function clientTask({ tracked }: Stock, task: Task, folder: string, seeds: boolean) {
  const torrent = tracked ? task.trackedTorrent : task.torrent;
  return { torrent, folder, seeds, port: CLIENT_PORT, watchMs: WATCH_MS };
}

function theirSeeder(stock: Stock): StartSeeder {
  return async (scope, task) => {
    const { infoHash, folder, seederAt } = task;
    const tracker = stock.tracked ? await startOpentracker(scope, seederAt, infoHash) : null;
    const client = stock.start(scope, seederAt, clientTask(stock, task, folder, true));
    if (tracker) await seedersKnown(seederAt, tracker.url, infoHash, 1);
    else await client.complete();
    return client.child;
  };
}

function theirNode(stock: Stock): StartNode {
  return (scope, task) => {
    const theirs = join(task.folder, "theirs");
    mkdirSync(theirs);
    const peers = stock.tracked ? [] : [`${task.seederAt.address}:${CLIENT_PORT}`];
    const client = stock.start(scope, task.nodeAt, { ...clientTask(stock, task, theirs, false), peers });
    return { child: client.child, target: join(theirs, "image.raw"), complete: client.complete(), flushes: false };
  };
}

/** A seeder of ours that announces itself, for clients that take peers from a tracker alone. */
function announced(startSeeder: (...flags: string[]) => StartSeeder): StartSeeder {
  return async (scope, task) => {
    const tracker = await startOpentracker(scope, task.seederAt, task.infoHash);
    const child = await startSeeder("--tracker", tracker.url)(scope, task);
    await seedersKnown(task.seederAt, tracker.url, task.infoHash, 1);
    return child;
  };
}

/** Pairs of a seeder and a node, by name. */
function transfer(startSeeder: StartSeeder, startNode: StartNode) {
  return async (task: Task): Promise<Measured> => {
    const scope = new Scope();
    try {
      if (task.storage === "disk") forget(task.image);
      const seeder = await startSeeder(scope, task);
      const beginMs = performance.now();
      const node = startNode(scope, task);
      const firstMs = await Promise.race([firstBlockMs(node.target), node.complete.then(() => performance.now())]);
      await node.complete;
      if (task.storage === "disk" && !node.flushes) run(["sync", node.target]);
      const endMs = performance.now();
      await node.child.stop();
      await seeder.stop();
      expectSameBytes(node.target, task.image, task.bytes);
      return {
        transferSeconds: (endMs - firstMs) / 1000,
        totalSeconds: (endMs - beginMs) / 1000,
        seeder: usageOf(seeder),
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

/** Writes a file out and drops it from the page cache: dd(1)'s way of asking for posix_fadvise(2). */
function forget(path: string): void {
  run(["dd", `of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
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

async function iperfSeconds({ bytes, seederAt, nodeAt }: Task): Promise<number> {
  const place = (machine: Machine) => ({ address: machine.address, machine });
  return bytes / (await iperfGoodput(place(seederAt), place(nodeAt), { bytes })).forward;
}

function bareCopySeconds({ image, folder, storage }: Task): number {
  const copy = join(folder, "target");
  return storage === "disk" ? directCopySeconds(image, copy) : copySeconds(image, copy);
}

const CONTESTANTS: Record<string, (task: Task) => Promise<Measured>> = {
  ours: transfer(ourSeeder(), ourNode()),
  "ours-epoll": transfer(ourSeeder("--io", "epoll"), ourNode("--io", "epoll")),
  "ours-16k": transfer(ourSeeder(), ourNode("--block-size", "16K")),
  "libtorrent-to-ours": transfer(theirSeeder(LIBTORRENT), ourNode()),
  "ours-to-libtorrent": transfer(ourSeeder(), theirNode(LIBTORRENT)),
  libtorrent: transfer(theirSeeder(LIBTORRENT), theirNode(LIBTORRENT)),
  aria2: transfer(theirSeeder(ARIA2), theirNode(ARIA2)),
  "ours-to-aria2": transfer(announced(ourSeeder), theirNode(ARIA2)),
  "aria2-to-ours": transfer(theirSeeder(ARIA2), ourNode()),
  // Version 3.00 asks a peer for its 512 blocks once a second and no sooner: 8.4 MB/s whatever the machine.
  transmission: transfer(theirSeeder(TRANSMISSION), theirNode(TRANSMISSION)),
  "limit-iperf3": limit(iperfSeconds),
  "limit-copy": limit(bareCopySeconds),
  "limit-sha1": limit(({ image }) => hashSeconds(image)),
};

/** Who is too slow to send all of it. */
const BYTES_MAX: Record<string, number> = { transmission: 256 * MiB };

export async function main(words: string[]): Promise<void> {
  const options = {
    bytes: size("how much is sent", "4G"),
    only: names(Object.keys(CONTESTANTS), "who takes part"),
    storage: choice(["ram", "disk"], "where image and target are", "ram"),
  };
  const summary = "One seeder to one node on this machine, unshaped.";
  const { bytes, rounds, only, storage, json } = readSettings({ name: "pair", summary, options }, words);
  if (!isRoot) throw cannotMeasure("network namespaces need root");
  const scope = new Scope();
  try {
    const seederAt = new Network(scope).machine();
    const nodeAt = seederAt.alias(NODE_ADDRESS);
    const prepared = new Map<number, Task>();
    const taskOf = (name: string): Task => {
      const taskBytes = Math.min(bytes, BYTES_MAX[name] ?? bytes);
      let task = prepared.get(taskBytes);
      if (!task) {
        const folder = storage === "ram" ? scope.ramDir() : scope.tempDir();
        task = { ...prepare(folder, taskBytes, seederAt), seederAt, nodeAt, storage };
        prepared.set(taskBytes, task);
      }
      return task;
    };
    const results = await takeTurns(only, rounds, (name) => CONTESTANTS[name]!(taskOf(name)));
    const rows = [...results].map(([name, measured]) => summarize(name, taskOf(name).bytes, measured));
    const result = { bytes, storage, rounds, cores: availableParallelism(), rows };
    print(json, result, () => asTable(rows));
  } finally {
    await scope.close();
  }
}

/** The image and its torrents in `folder`. */
function prepare(folder: string, bytes: number, trackerAt: Machine) {
  const image = stampedImage(join(folder, "image.raw"), bytes, 71);
  const fields = singleTorrent(image, bytes, PIECE_BYTES);
  const { path: torrent, infoHash } = writeTorrent(join(folder, "image.torrent"), fields);
  const tracked = { ...fields, announce: trackerUrl(trackerAt) };
  const trackedTorrent = writeTorrent(join(folder, "tracked.torrent"), tracked).path;
  return { bytes, folder, image, torrent, trackedTorrent, infoHash };
}

interface Row {
  readonly name: string;
  readonly bytes: number;
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
    bytes,
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
