/**
 * Announces per second: `npm run bench -- tracker`. Ours and opentracker, each alone on its port with the same
 * swarm, asked by the same client (`load/announcer.ts`, a process of its own on this machine's other core),
 * one after the other in each round. Every announce is of another peer, wants the same number of peers, and
 * gets a compact reply.
 *
 * opentracker closes each connection, so the comparison is without keep-alive; with it there is only us. The
 * limit is a responder that parses nothing and always says the same: where a tracker comes near its rate, the
 * client and the kernel are measured and the CPU time per announce is the figure to look at.
 */
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { MiB } from "../../src/units.ts";
import { start } from "../harness/diskswarm.ts";
import { freePort } from "../harness/ports.ts";
import { Child, until } from "../harness/process.ts";
import { Scope } from "../harness/scope.ts";
import { needTools } from "../harness/tools.ts";
import { median, print, table } from "./shared/report.ts";
import { takeTurns } from "./shared/rounds.ts";
import { count, names, readSettings } from "./shared/settings.ts";

const HOST = "127.0.0.1";
const HASH = "ab".repeat(20);
/** Clock ticks of /proc/PID/stat, sysconf(_SC_CLK_TCK): 100 on every Linux of these architectures. */
const TICKS_PER_SECOND = 100;

type Mode = "http-close" | "http-keep" | "udp";

interface Server {
  readonly child: Child;
  readonly httpPort: number;
  readonly udpPort: number;
}

interface Load {
  readonly seconds: number;
  readonly connections: number;
  readonly peers: number;
  readonly numwant: number;
}

interface Measured {
  readonly perSecond: number;
  readonly clientMicros: number;
  readonly clientCores: number;
  readonly serverMicros: number;
  readonly serverCores: number;
  readonly replyBytes: number;
  readonly peakRssBytes: number;
}

const watched = { watchMemory: true };

async function ours(scope: Scope): Promise<Server> {
  const words = ["track", "--listen", HOST, "--http", "0", "--udp", "0", "--open"];
  const run = start(scope, words, watched);
  const { httpPort, udpPort } = await run.event("start");
  return { child: run.child, httpPort: Number(httpPort), udpPort: Number(udpPort) };
}

async function opentracker(scope: Scope): Promise<Server> {
  needTools("opentracker");
  const folder = scope.tempDir();
  // As root it changes its root to the folder and becomes nobody, so the path is relative and all may read.
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, "allowed"), `${HASH}\n`);
  const port = await freePort(HOST);
  const at = ["-i", HOST, "-p", String(port), "-P", String(port)];
  const child = new Child(scope, ["opentracker", ...at, "-d", folder, "-w", "allowed"], { ...watched, cwd: folder });
  await until("opentracker answers", async () => {
    if (!child.running) throw new Error(child.describe());
    return await fetch(`http://${HOST}:${port}/stats`).then(
      () => true,
      () => false,
    );
  });
  return { child, httpPort: port, udpPort: port };
}

async function responder(scope: Scope, load: Load): Promise<Server> {
  const script = join(import.meta.dir, "load", "responder.ts");
  const child = new Child(scope, [process.execPath, script, HOST, String(load.numwant * 6)], watched);
  const port = Number((await child.waitForLine(/^listening/)).split(" ")[1]);
  return { child, httpPort: port, udpPort: 0 };
}

const CONTESTANTS: Record<string, { mode: Mode; start(scope: Scope, load: Load): Promise<Server> }> = {
  ours: { mode: "http-close", start: ours },
  opentracker: { mode: "http-close", start: opentracker },
  "limit-responder": { mode: "http-close", start: responder },
  "ours-keep-alive": { mode: "http-keep", start: ours },
  "ours-udp": { mode: "udp", start: ours },
  "opentracker-udp": { mode: "udp", start: opentracker },
};
const NAMES = Object.keys(CONTESTANTS);

/** One contestant's turn: its server is started, filled with the whole swarm, asked for a while, and ended. */
async function measure(name: string, load: Load): Promise<Measured> {
  const { mode, start: startServer } = CONTESTANTS[name]!;
  const scope = new Scope();
  try {
    const server = await startServer(scope, load);
    const port = mode === "udp" ? server.udpPort : server.httpPort;
    const words = [mode, HOST, port, load.seconds, load.connections, load.peers, load.numwant, HASH].map(String);
    const script = join(import.meta.dir, "load", "announcer.ts");
    const client = new Child(scope, [process.execPath, script, ...words]);
    await client.waitForLine(/^ready/);
    const before = cpuSecondsOf(server.child.pid);
    const line = await client.waitForLine(/^\{/);
    const serverSeconds = cpuSecondsOf(server.child.pid) - before;
    const report = JSON.parse(line) as {
      announces: number;
      seconds: number;
      cpuSeconds: number;
      replyBytes: number;
    };
    await client.ended;
    await server.child.stop();
    return {
      perSecond: report.announces / report.seconds,
      clientMicros: (report.cpuSeconds * 1e6) / report.announces,
      clientCores: report.cpuSeconds / report.seconds,
      serverMicros: (serverSeconds * 1e6) / report.announces,
      serverCores: serverSeconds / report.seconds,
      replyBytes: report.replyBytes,
      peakRssBytes: server.child.peakRssBytes,
    };
  } catch (error) {
    if (error instanceof Error) error.message += `\n${scope.explanation()}`;
    throw error;
  } finally {
    await scope.close();
  }
}

/** User and system time of a process so far, with all its threads (proc_pid_stat(5)). */
function cpuSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

export async function main(words: string[]): Promise<void> {
  const settings = readSettings(
    {
      name: "tracker",
      summary: "Announces per second of our tracker and of opentracker, asked by the same client.",
      options: {
        seconds: count("how long each is asked", 4),
        connections: count("connections (or UDP sockets) with one announce each at a time", 64),
        peers: count("peers in the swarm, each announced in turn", 10_000),
        numwant: count("peers wanted with each announce", 30),
        only: names(NAMES, "which contestants take part"),
      },
    },
    words,
  );
  const load: Load = settings;
  const results = await takeTurns(settings.only, settings.rounds, (name) => measure(name, load));
  const rows = [...results].map(([name, measured]) => summarize(name, measured));
  print(settings.json, { ...load, rounds: settings.rounds, rows, results: Object.fromEntries(results) }, () =>
    asTable(rows),
  );
}

type Row = { readonly name: string; readonly minPerSecond: number; readonly maxPerSecond: number } & Measured;

function summarize(name: string, measured: readonly Measured[]): Row {
  const middle = (field: keyof Measured) => median(measured.map((one) => one[field]));
  const rates = measured.map(({ perSecond }) => perSecond);
  return {
    name,
    perSecond: middle("perSecond"),
    minPerSecond: Math.min(...rates),
    maxPerSecond: Math.max(...rates),
    serverMicros: middle("serverMicros"),
    serverCores: middle("serverCores"),
    clientMicros: middle("clientMicros"),
    clientCores: middle("clientCores"),
    replyBytes: middle("replyBytes"),
    peakRssBytes: Math.max(...measured.map(({ peakRssBytes }) => peakRssBytes)),
  };
}

function asTable(rows: readonly Row[]): string {
  const head = [
    "",
    "announces/s",
    "min",
    "max",
    "server us each",
    "cores",
    "client us each",
    "cores",
    "reply B",
    "RSS MiB",
  ];
  return table(
    head,
    rows.map((row) => [
      row.name,
      row.perSecond.toFixed(0),
      row.minPerSecond.toFixed(0),
      row.maxPerSecond.toFixed(0),
      row.serverMicros.toFixed(1),
      row.serverCores.toFixed(2),
      row.clientMicros.toFixed(1),
      row.clientCores.toFixed(2),
      row.replyBytes.toFixed(0),
      (row.peakRssBytes / MiB).toFixed(0),
    ]),
  );
}
