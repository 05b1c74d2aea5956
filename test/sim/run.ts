/** `bun test/sim/run.ts --help`: deployments in virtual time by name and options, repeated, or swept over a value of the policy. */
import { parseArgs } from "node:util";
import { ExitCode, Failure } from "../../src/errors.ts";
import type { SwarmTuning } from "../../src/swarm/policy.ts";
import { parseSize } from "../../src/units.ts";
import { table } from "../bench/shared/report.ts";
import type { Outcome } from "./measure.ts";
import { overridePolicy } from "./overrides.ts";
import type { Setup } from "./scenarios.ts";
import type { Moment } from "./timeline.ts";

/** Each option sets one value of a `Setup`. */
type Reader = (text: string) => number | null;
const size: Reader = parseSize;
const number: Reader = (text) => (text.trim() === "" || !(Number(text) >= 0) ? null : Number(text));
/** `5%` is a part, `3` a number of nodes. */
const count: Reader = (text) => (text.endsWith("%") ? number(text.slice(0, -1))! / 100 : number(text));

const OPTIONS: Record<string, { readonly key: keyof Setup; readonly read: Reader; readonly text: string }> = {
  nodes: { key: "nodes", read: number, text: "nodes, beside the seeder (100)" },
  pieces: { key: "pieces", read: number, text: "pieces of the image (512)" },
  "piece-size": { key: "pieceBytes", read: size, text: "bytes of a piece (1M)" },
  rate: { key: "rateBytesPerSecond", read: size, text: "goodput of a link each way, per second (125000000)" },
  latency: { key: "latencyMs", read: number, text: "ms between a machine and its switch (0.1)" },
  racks: { key: "rackNodes", read: number, text: "nodes per rack; 0: all on one switch" },
  uplink: { key: "uplinkShare", read: number, text: "what a rack's uplink carries of its cables' sum (0.25)" },
  "loss-of-nodes": { key: "deaths", read: count, text: "nodes that die at random times: 5% or 3" },
  late: { key: "late", read: count, text: "nodes that join at random times before F/B: 20% or 3" },
  slow: { key: "slow", read: count, text: "nodes with a slower link: 5% or 3" },
  "slow-rate": { key: "slowShare", read: number, text: "what of the rate these have (0.25)" },
  join: { key: "joinMs", read: number, text: "ms within which the others join (50)" },
  "disk-rate": { key: "diskBytesPerSecond", read: size, text: "what a disk writes per second; 0: in no time" },
  seek: { key: "seekMs", read: number, text: "ms that a disk seeks" },
  ordered: { key: "ordered", read: number, text: "1: nodes put writes into order for a disk with a head (0)" },
  memory: { key: "memoryBytes", read: size, text: "a node's memory for receiving (48M)" },
  turn: { key: "turnBytes", read: size, text: "bytes that a link sends for one connection at a time (64K)" },
  window: { key: "windowBytes", read: size, text: "bytes on their way per connection (256K)" },
  unsent: {
    key: "unsentBytes",
    read: size,
    text: "bytes that a sender's kernel holds per connection and has not sent (256K)",
  },
  queue: { key: "queueBytes", read: size, text: "bytes in one line in front of a cable that frames wait for (256K)" },
  wake: { key: "wakeMs", read: number, text: "mean ms until a node looks at what arrived (0)" },
  seed: { key: "seed", read: number, text: "what everything random comes from (1)" },
};

const { values } = parseArgs({
  options: {
    ...Object.fromEntries(Object.keys(OPTIONS).map((name) => [name, { type: "string" as const }])),
    scenario: { type: "string", multiple: true },
    repeat: { type: "string", default: "1" },
    set: { type: "string", multiple: true, default: [] },
    sweep: { type: "string", multiple: true, default: [] },
    timeline: { type: "string" },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const given = values as typeof values & Record<string, string | undefined>;

try {
  if (values.help) await help();
  else if (values.sweep.length > 0) await sweep();
  else await run();
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`sim: ${error.message}`);
  process.exitCode = error.exitCode;
}

async function help(): Promise<void> {
  const { SCENARIOS } = await import("./scenarios.ts");
  console.log("usage: sim [options]: one deployment in virtual time, the same for the same options and seed\n");
  const line = (name: string, text: string): void => console.log(`  ${name.padEnd(24)} ${text}`);
  for (const [name, { text }] of Object.entries(OPTIONS)) line(`--${name}`, text);
  line("--repeat N", "with the next N seeds");
  line("--set NAME=VALUE", "another value for a field of SwarmTuning or a constant of policy.ts; any number of these");
  line("--sweep NAME=V,V,...", "a row for each value of such a name; several sweeps: for each combination");
  line("--timeline N", "how busy the lines are, and what idle ones wait for, N times within F/B");
  line("--json", "an array of outcomes instead of the table");
  line("--scenario NAME", "values for the options above, which may still be given; any number of these:");
  for (const [name, { text }] of Object.entries(SCENARIOS)) line(`    ${name}`, text);
}

/** One row for each scenario and seed, in this process. */
async function run(): Promise<void> {
  const settings = values.set.map(readSetting);
  overridePolicy(new Map(settings.filter(([name]) => isConstant(name))));
  // Loaded only now, with the policy as it was overridden.
  const { cells, COLUMNS, deploy, LEGEND } = await import("./measure.ts");
  const { SCENARIOS, SETUP_DEFAULT } = await import("./scenarios.ts");
  const { cells: momentCells, COLUMNS: TIMELINE_COLUMNS, Timeline } = await import("./timeline.ts");
  const { TUNING_DEFAULT } = await import("../../src/swarm/policy.ts");
  const fields = settings.filter(([name]) => !isConstant(name));
  for (const [name] of fields) if (!(name in TUNING_DEFAULT)) usage(`there is no SwarmTuning.${name}`);
  const outcomes: { name: string; outcome: Outcome }[] = [];
  for (const name of values.scenario ?? ["equal"]) {
    const scenario = SCENARIOS[name] ?? usage(`no scenario ${name}; --help names them`);
    const setup: Setup = { ...SETUP_DEFAULT, ...scenario.setup, ...givenSetup() };
    const tuning: Partial<SwarmTuning> = { ...scenario.tuning, ...Object.fromEntries(fields) };
    for (let i = 0; i < Number(values.repeat); i++) {
      const timelines: { readonly moments: readonly Moment[] }[] = [];
      const outcome = deploy({ ...setup, seed: setup.seed + i }, tuning, (fleet) => {
        if (values.timeline !== undefined) timelines.push(new Timeline(fleet, fleet.boundMs / Number(values.timeline)));
      });
      for (const { moments } of timelines) console.log(table(TIMELINE_COLUMNS, moments.map(momentCells)));
      outcomes.push({ name: `${name} seed ${outcome.seed}`, outcome });
      if (!outcome.complete) process.exitCode = ExitCode.failed;
    }
  }
  if (values.json) console.log(JSON.stringify(outcomes));
  else {
    const rows = outcomes.map(({ name, outcome }) => cells(name, outcome));
    console.log(table(COLUMNS, rows));
    console.log(LEGEND);
    for (const { name, outcome } of outcomes) console.log(`${name}: ${outcome.events} events, hash ${outcome.hash}`);
  }
}

/** One row for each combination of values, each in a process of its own: constants are set when modules load. */
async function sweep(): Promise<void> {
  const { cells, COLUMNS, LEGEND } = await import("./measure.ts");
  let combinations: string[][] = [[]];
  for (const text of values.sweep) {
    const [name, list = ""] = text.split("=");
    if (list === "") usage(`--sweep ${text}: NAME=VALUE,VALUE`);
    combinations = combinations.flatMap((before) => list.split(",").map((value) => [...before, `${name}=${value}`]));
  }
  const rows: string[][] = [];
  const all: unknown[] = [];
  for (const settings of combinations) {
    for (const { name, outcome } of runChild(settings)) {
      rows.push(cells(`${settings.join(" ")} ${name}`, outcome));
      all.push({ settings, name, outcome });
    }
  }
  console.log(values.json ? JSON.stringify(all) : `${table(COLUMNS, rows)}\n${LEGEND}`);
}

function runChild(settings: readonly string[]): { name: string; outcome: Outcome }[] {
  const rest = process.argv.slice(2).filter((word, i, words) => {
    const isSweep = word.startsWith("--sweep") || words[i - 1] === "--sweep";
    return !isSweep && word !== "--json";
  });
  const child = Bun.spawnSync([
    process.execPath,
    import.meta.path,
    ...rest,
    ...settings.flatMap((setting) => ["--set", setting]),
    "--json",
  ]);
  if (child.stdout.length === 0) usage(`${settings.join(" ")}: ${child.stderr.toString().trim()}`);
  return JSON.parse(child.stdout.toString()) as { name: string; outcome: Outcome }[];
}

function givenSetup(): Partial<Setup> {
  const setup: Partial<Record<keyof Setup, number>> = {};
  for (const [name, { key, read }] of Object.entries(OPTIONS)) {
    const text = given[name];
    if (typeof text !== "string") continue;
    setup[key] = read(text) ?? usage(`--${name} ${text}`);
  }
  return setup;
}

function readSetting(text: string): [string, number] {
  const at = text.indexOf("=");
  // A size is a whole number of bytes.
  const value = number(text.slice(at + 1)) ?? size(text.slice(at + 1));
  if (at < 1 || value === null) usage(`--set ${text}: NAME=VALUE`);
  return [text.slice(0, at), value];
}

function isConstant(name: string): boolean {
  return /^[A-Z]/.test(name);
}

function usage(text: string): never {
  throw new Failure(ExitCode.usage, "usage", text);
}
