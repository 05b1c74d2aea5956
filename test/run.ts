/**
 * `npm test`: installs the tools that the tests need, builds the executable, runs every test file in a
 * process of its own and ends with a line for each test that failed and one of counts. `npm test -- wire tracker/udp`
 * runs the files whose path contains one of the words; `--fast` leaves out what needs networks, disks or minutes.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Counts, parseReport, type Report } from "./report.ts";

const ROOT = join(import.meta.dir, "..");

/** Files that run in the same way, so many at once. */
interface Group {
  readonly has: (path: string) => boolean;
  readonly parallel: number;
  readonly timeoutMs: number;
}

/** Many times what any takes on an idle machine. */
const LIGHT_TIMEOUT_MS = 10 * 60_000;
const HEAVY_TIMEOUT_MS = 20 * 60_000;
const isIn = (path: string, folders: readonly string[]) => folders.some((name) => path.startsWith(`test/${name}/`));
const isHeavy = (path: string) => isIn(path, ["bench", "deploy", "interop", "vm"]);
const isFleet = (path: string) => path === "test/vm/fleet.test.ts";
/**
 * Machines of one processor and stock clients: they have namespaces and files of their own, are waited for by what they
 * write, and leave a core idle. Nothing with mounts or loop devices is among them: whoever enters a namespace takes a copy of
 * all mounts along, and a device that was unmounted here stays in use there.
 */
const isApart = (path: string) =>
  (isIn(path, ["vm"]) && !isFleet(path)) || /\/interop\/(?:clients|stock)\.test\.ts$/.test(path);
/** In the order in which they run. */
const GROUPS: readonly Group[] = [
  { has: (path) => !isHeavy(path), parallel: 2, timeoutMs: LIGHT_TIMEOUT_MS },
  { has: (path) => isHeavy(path) && !isApart(path) && !isFleet(path), parallel: 1, timeoutMs: HEAVY_TIMEOUT_MS },
  { has: isApart, parallel: 2, timeoutMs: HEAVY_TIMEOUT_MS },
  { has: isFleet, parallel: 1, timeoutMs: HEAVY_TIMEOUT_MS },
];
/** Above every deadline that a test sets for itself, so that its own message is the one that is seen. */
const TEST_TIMEOUT_MS = 10 * 60_000;

/** More than these are hardly read; all of them stand in the log. */
const FAILURES_SHOWN = 40;

/** A file's counts, a line for each failure, and its output where there was one. */
interface Outcome extends Report {
  readonly output: string | null;
}

const words = process.argv.slice(2);
const isFast = words.includes("--fast");
const filters = words.filter((word) => !word.startsWith("--"));
const files = [...new Bun.Glob("test/**/*.test.ts").scanSync(ROOT)]
  .filter((path) => !(isFast && isHeavy(path)))
  .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
  .sort();
const total: Counts = { passed: 0, failed: 0, skipped: 0 };
/** The output above may be long, and is shown in parts by some: these come last. */
const failures: string[] = [];
const reports = mkdtempSync(join(tmpdir(), "diskswarm-test-"));
const environment: Record<string, string | undefined> = { ...process.env };

if (files.length === 0) end(`no test file matches ${filters.join(", ")}`);
if (!isFast) {
  installPackages();
  build();
}
try {
  for (const { has, parallel, timeoutMs } of GROUPS) await runAll(files.filter(has), parallel, timeoutMs);
} finally {
  rmSync(reports, { recursive: true, force: true });
}
for (const line of failures.slice(0, FAILURES_SHOWN)) console.log(line);
if (failures.length > FAILURES_SHOWN) console.log(`... and ${failures.length - FAILURES_SHOWN} more failed`);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed === 0 && total.passed > 0 ? 0 : 1);

/** Installs missing Debian packages where that is allowed; elsewhere the tests name what they miss. */
function installPackages(): void {
  const lines = readFileSync(join(ROOT, "test/packages.txt"), "utf8").split("\n");
  const wanted = lines.filter((line) => line !== "" && !line.startsWith("#"));
  if (!Bun.which("dpkg-query")) return;
  const missing = wanted.filter((name) => !packageIsInstalled(name));
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    console.log(`not installed (apt-get install them): ${missing.join(" ")}`);
    return;
  }
  // Nothing of it shall start as a service of this machine.
  const quiet = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const apt = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"];
  const install = [...apt, "install", "-y", "--no-install-recommends", ...missing];
  if (succeeds(install, quiet)) return;
  if (!succeeds([...apt, "update"], quiet) || !succeeds(install, quiet)) end(`cannot install ${missing.join(" ")}`);
}

function packageIsInstalled(name: string): boolean {
  const { stdout } = Bun.spawnSync(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], { stderr: "ignore" });
  return stdout.toString() === "installed";
}

/** The tests drive the executable that users get, not the sources. */
function build(): void {
  if (environment.DISKSWARM_BINARY) return;
  if (!succeeds([process.execPath, "build.ts"], process.env)) end("the build failed");
  environment.DISKSWARM_BINARY = join(ROOT, "dist/diskswarm");
}

/** Runs a command with its output on stderr. */
function succeeds(command: string[], env: Record<string, string | undefined>): boolean {
  return Bun.spawnSync(command, { cwd: ROOT, env, stdio: ["ignore", 2, 2] }).exitCode === 0;
}

async function runAll(paths: readonly string[], parallel: number, timeoutMs: number): Promise<void> {
  const waiting = [...paths];
  const runOneAfterTheOther = async () => {
    for (let path = waiting.shift(); path !== undefined; path = waiting.shift()) await runAndTell(path, timeoutMs);
  };
  await Promise.all(Array.from({ length: parallel }, runOneAfterTheOther));
}

async function runAndTell(path: string, timeoutMs: number): Promise<void> {
  const startMs = performance.now();
  const { counts, failures: lines, output } = await runFile(path, timeoutMs);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const said = `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
  console.log(`${counts.failed > 0 ? "FAIL" : "ok  "} ${path}: ${said} (${seconds} s)`);
  if (output !== null) console.log(output);
  failures.push(...lines.map((line) => `FAIL ${path}: ${line}`));
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
}

async function runFile(path: string, timeoutMs: number): Promise<Outcome> {
  const base = join(reports, path.replaceAll("/", "_"));
  const flags = ["--reporter=junit", `--reporter-outfile=${base}.xml`, `--timeout=${TEST_TIMEOUT_MS}`];
  // Into a file: a pipe would have to be read until the last process has closed it that a test left behind.
  const log = openSync(`${base}.log`, "a");
  const child = Bun.spawn([process.execPath, "test", ...flags, `./${path}`], {
    cwd: ROOT,
    env: environment,
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  let isLate = false;
  // SIGTERM first: the file's own clean-up takes its network namespaces and devices along.
  const terminate = setTimeout(() => {
    isLate = true;
    child.kill("SIGTERM");
  }, timeoutMs);
  const kill = setTimeout(() => child.kill("SIGKILL"), timeoutMs + 10_000);
  const exitCode = await child.exited;
  clearTimeout(terminate);
  clearTimeout(kill);
  const xml = Bun.file(`${base}.xml`);
  const report = (await xml.exists()) ? parseReport(await xml.text()) : null;
  if (exitCode === 0 && report?.counts.failed === 0) return { ...report, output: null };
  const reason = isLate ? `ended after ${timeoutMs / 60_000} minutes` : `bun test ended with ${exitCode}`;
  const { passed, failed, skipped } = report?.counts ?? { passed: 0, failed: 0, skipped: 0 };
  return {
    counts: { passed, failed: Math.max(1, failed), skipped },
    failures: failed > 0 ? report!.failures : [reason],
    output: `${withoutPasses(readFileSync(`${base}.log`, "utf8"))}${reason}`,
  };
}

/** Of hundreds of tests that passed nothing needs to be read. */
function withoutPasses(text: string): string {
  return text
    .split("\n")
    .filter((line) => !/^\((?:pass|skip)\) /.test(line))
    .join("\n");
}

function end(message: string): never {
  rmSync(reports, { recursive: true, force: true });
  console.error(`test: ${message}`);
  process.exit(1);
}
