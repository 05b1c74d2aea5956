/**
 * A room of nodes imaged from one server over shaped links: `npm run bench -- fleet [--nodes 1,2,4]
 * [--only ours,aria2] [--links clean] [--joins once] ...`.
 *
 * The limit is F/goodput: the image's bytes by what one iperf3 connection carries from the server to a node
 * over the very same links. A node's time runs from the start of its process to its word that everything is
 * there (ours: proven and flushed). Each combination of links, way of joining and number of nodes is run by
 * all contestants in turn, `--rounds` times.
 */
import { mkdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { duration, size, value } from "../../src/cli/options.ts";
import { formatBytes, formatDuration, MiB } from "../../src/units.ts";
import { trackerUrl } from "../harness/clients.ts";
import { stampedImage } from "../harness/image.ts";
import { Scope } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { singleTorrent, writeTorrent } from "../harness/torrents.ts";
import { CONTESTANT_NAMES, type ContestantName } from "./fleet/contestants.ts";
import { type FleetResult, imageRoom } from "./fleet/deployment.ts";
import { type Link, Room, type RoomGoodput } from "./fleet/room.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { cannotMeasure, choice, count, counts, names, readSettings, type Settings, share } from "./shared/settings.ts";
import { type UsageFigures, usageCells, usageFigures, usageHead } from "./shared/usage.ts";

const OPTIONS = {
  nodes: counts("how many nodes", [1, 2, 4, 8, 16, 32]),
  only: names(CONTESTANT_NAMES, "who images the room"),
  bytes: size("F, the image", "256M"),
  rate: count("each link's rate in each direction, in Mbit/s", 100),
  links: names(["clean", "lossy"], "links without loss, and with --loss"),
  loss: share("of what arrives at a machine is lost on lossy links", 0.01),
  joins: names(["once", "staggered"], "all nodes at once, and evenly over --stagger"),
  stagger: duration("from the first node's start to the last one's", "30s"),
  memory: value(
    { placeholder: "SIZE", help: "--memory of our nodes", expected: "a size", parse: (word) => word || null },
    "64M",
  ),
  storage: choice(["ram", "disk"], "where the targets are", "ram"),
  congestion: value({
    placeholder: "NAME",
    help: "TCP congestion control in all machines (default: this machine's)",
    expected: "an algorithm that the kernel has and allows",
    parse: (word) => word || null,
  }),
};

type FleetSettings = Settings<typeof OPTIONS>;

/** A deployment slower than this many times its limit is given up. */
const PATIENCE = 8;
/** Network, iperf3, hashing, comparing and ending of one deployment. */
const OVERHEAD_SECONDS = 8;

interface Combination {
  readonly link: Link;
  readonly staggerMs: number;
  readonly nodes: number;
}

interface Row {
  readonly link: string;
  readonly joining: "once" | "staggered";
  readonly nodes: number;
  readonly contestant: ContestantName;
  readonly limitSeconds: number;
  /** Medians of the rounds in which all nodes came through, as multiples of the limit; null without any. */
  readonly first: number | null;
  readonly middle: number | null;
  readonly last: number | null;
  readonly unfinished: number;
  readonly serverSentShare: number;
  readonly coresBusy: number;
  readonly server: UsageFigures | null;
  readonly node: UsageFigures | null;
  readonly rounds: readonly FleetResult[];
}

export async function main(words: string[]): Promise<void> {
  const summary = "A room of nodes on shaped links, imaged from one server by us and by others.";
  const settings = readSettings({ name: "fleet", summary, options: OPTIONS }, words);
  if (!isRoot) throw cannotMeasure("network namespaces need root");
  needTools("ip", "tc", "iperf3");
  const combinations = combinationsOf(settings);
  announce(settings, combinations);
  const scope = new Scope();
  try {
    const folder = settings.storage === "ram" ? scope.ramDir() : scope.tempDir();
    const room = new Room(scope, Math.max(...settings.nodes));
    if (settings.congestion !== null) room.useCongestionControl(settings.congestion);
    const staging = stage(folder, room, settings);
    const rows: Row[] = [];
    const links: { link: string; goodput: RoomGoodput[] }[] = [];
    let laid: string | null = null;
    for (const combination of combinations) {
      const { link } = combination;
      if (laid !== link.name) {
        room.lay(link);
        laid = link.name;
        links.push({ link: link.name, goodput: [] });
      }
      const { goodput } = links.at(-1)!;
      rows.push(...(await runCombination(combination, settings, staging, goodput)));
    }
    const congestion = settings.congestion ?? readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
    const result = { settings: { ...settings, congestion }, cores: availableParallelism(), links, rows };
    print(settings.json, result, () => asText(settings, congestion, links, rows));
  } finally {
    await scope.close();
  }
}

function combinationsOf({ nodes, links, joins, loss, rate, stagger }: FleetSettings): Combination[] {
  const laid = links.map((name): Link => ({ name, megabits: rate, lossShare: name === "lossy" ? loss : 0 }));
  return laid.flatMap((link) =>
    joins.flatMap((joining) =>
      nodes
        // One node cannot be late for itself.
        .filter((count) => joining === "once" || count > 1 || joins.length === 1)
        .map((count) => ({ link, nodes: count, staggerMs: joining === "once" ? 0 : stagger })),
    ),
  );
}

/** What is about to be run and how long that takes; a run that is too long is better ended here. */
function announce(settings: FleetSettings, combinations: readonly Combination[]): void {
  const limitSeconds = idealSeconds(settings);
  const turns = settings.rounds * settings.only.length;
  const fixed = combinations.reduce((sum, { staggerMs }) => sum + staggerMs / 1000 + OVERHEAD_SECONDS, 0) * turns;
  const seconds = (times: number) =>
    formatDuration((fixed + combinations.length * turns * limitSeconds * times) * 1000);
  console.error(
    `${combinations.length} combinations x ${settings.only.length} contestants x ${settings.rounds} rounds of ` +
      `${formatBytes(settings.bytes)} at ${settings.rate} Mbit/s: about ${seconds(1.3)}, ${seconds(PATIENCE)} at most ` +
      "(--nodes, --only, --links, --joins and --rounds choose a part)",
  );
}

/** At the bare rate of the link. */
function idealSeconds({ bytes, rate }: FleetSettings): number {
  return (bytes * 8) / (rate * 1e6);
}

function stage(folder: string, room: Room, settings: FleetSettings) {
  const imageFolder = join(folder, "image");
  mkdirSync(imageFolder);
  const { bytes, memory } = settings;
  const path = stampedImage(join(imageFolder, "image.raw"), bytes, 71);
  // The stock clients get pieces of the size that our capture chooses for such an image.
  const pieceBytes = Math.max(MiB / 4, 2 ** Math.round(Math.log2(bytes / 4000)));
  const fields = singleTorrent(path, bytes, pieceBytes, trackerUrl(room.server));
  const torrent = writeTorrent(join(folder, "image.torrent"), fields);
  return { room, image: { path, folder: imageFolder, bytes }, torrent, memory };
}

async function runCombination(
  { link, nodes, staggerMs }: Combination,
  settings: FleetSettings,
  staging: ReturnType<typeof stage>,
  goodput: RoomGoodput[],
): Promise<Row[]> {
  const joining = staggerMs === 0 ? "once" : "staggered";
  console.error(`${link.name} links, ${nodes} nodes, ${joining}`);
  const timeoutMs = idealSeconds(settings) * PATIENCE * 1000;
  // A combination of which one was measured already keeps to it: a link carries the same every time.
  while (goodput.length < settings.rounds) goodput.push(await staging.room.goodput());
  const limitSeconds = settings.bytes / median(goodput.map(({ toNode }) => toNode));
  const results = await takeTurns(settings.only, settings.rounds, async (contestant) => {
    const result = await imageRoom({ contestant, nodes, staggerMs, timeoutMs }, staging);
    console.error(`  ${describe(result, limitSeconds)}`);
    return result;
  });
  return [...results].map(([contestant, rounds]) => ({
    link: link.name,
    joining,
    nodes,
    contestant,
    limitSeconds,
    ...spreadOf(rounds, limitSeconds),
    serverSentShare: median(rounds.map(({ serverSentBytes }) => serverSentBytes / settings.bytes)),
    coresBusy: median(rounds.map(({ coresBusy }) => coresBusy)),
    server: usageFigures(
      rounds.map(({ server }) => server),
      settings.bytes,
    ),
    node: usageFigures(
      rounds.flatMap((round) => round.nodes.map(({ usage }) => usage)),
      settings.bytes,
    ),
    rounds,
  }));
}

/** First, median and last node of a round as multiples of the limit; null where a node did not come through. */
function timesOf({ nodes }: FleetResult, limitSeconds: number): readonly [number, number, number] | null {
  const times = nodes.map(({ seconds }) => seconds).filter((seconds) => seconds !== null);
  if (times.length < nodes.length) return null;
  return [Math.min(...times) / limitSeconds, median(times) / limitSeconds, Math.max(...times) / limitSeconds];
}

function spreadOf(rounds: readonly FleetResult[], limitSeconds: number) {
  const times = rounds.map((round) => timesOf(round, limitSeconds)).filter((one) => one !== null);
  const at = (index: 0 | 1 | 2) => (times.length === 0 ? null : median(times.map((one) => one[index])));
  const unfinished = rounds.flatMap(({ nodes }) => nodes).filter(({ seconds }) => seconds === null).length;
  return { first: at(0), middle: at(1), last: at(2), unfinished };
}

function describe(result: FleetResult, limitSeconds: number): string {
  const times = timesOf(result, limitSeconds);
  const busy = `${(result.coresBusy * 100).toFixed(0)} % of the cores busy`;
  if (!times) return `not all nodes came through; ${busy}`;
  const [first, middle, last] = times.map((one) => one.toFixed(3));
  return `T/limit ${first} first, ${middle} median, ${last} last; ${busy}`;
}

function asText(
  settings: FleetSettings,
  congestion: string,
  links: readonly { link: string; goodput: readonly RoomGoodput[] }[],
  rows: readonly Row[],
): string {
  const megabits = (rates: readonly number[]) => ((median(rates) * 8) / 1e6).toFixed(1);
  const about = links.map(({ link, goodput }) => {
    const loss = link === "lossy" ? `, ${settings.loss * 100} % lost` : "";
    return (
      `${link}: ${settings.rate} Mbit/s each way${loss}, ${congestion}; iperf3 carries ` +
      `${megabits(goodput.map(({ toNode }) => toNode))} Mbit/s to a node, ` +
      `${megabits(goodput.map(({ toServer }) => toServer))} back, ` +
      `${megabits(goodput.map(({ bothWays }) => bothWays[0]))} and ` +
      `${megabits(goodput.map(({ bothWays }) => bothWays[1]))} at the same time`
    );
  });
  const head = [
    "",
    "joining",
    "nodes",
    "limit s",
    "T/limit first",
    "median",
    "last",
    "server sent/F",
    "cores busy",
    ...usageHead("server"),
    ...usageHead("node"),
  ];
  const times = (one: number | null) => (one === null ? "-" : one.toFixed(3));
  const cells = rows.map((row) => [
    `${row.link} ${row.contestant}`,
    row.joining,
    String(row.nodes),
    row.limitSeconds.toFixed(1),
    times(row.first),
    times(row.middle),
    row.unfinished > 0 ? `${row.unfinished} not done` : times(row.last),
    row.serverSentShare.toFixed(2),
    `${(row.coresBusy * 100).toFixed(0)} %`,
    ...usageCells(row.server),
    ...usageCells(row.node),
  ]);
  return [`F = ${formatBytes(settings.bytes)}, targets ${settings.storage}`, ...about, "", table(head, cells)].join(
    "\n",
  );
}
