/**
 * `npm test`: installs the tools that the tests need, builds the executable, runs every test file in a
 * process of its own and ends with one line of counts. `npm test -- wire tracker/udp` runs the files whose
 * path contains one of the words; `--fast` leaves out what needs networks, disks or minutes.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
/** These share the machine's cores and disks with nobody: one file at a time, and more time. */
const HEAVY_FOLDERS = ["bench", "deploy", "interop", "vm"];
const LIGHT_TIMEOUT_MS = 5 * 60_000;
const HEAVY_TIMEOUT_MS = 20 * 60_000;
const LIGHT_PARALLEL = 2;
/** Above every deadline that a test sets for itself, so that its own message is the one that is seen. */
const TEST_TIMEOUT_MS = 10 * 60_000;

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** A file's counts and what is to be said about it. */
interface Outcome extends Counts {
  readonly problem: string | null;
}

const words = process.argv.slice(2);
const isFast = words.includes("--fast");
const filters = words.filter((word) => !word.startsWith("--"));
const isHeavy = (path: string) => HEAVY_FOLDERS.some((folder) => path.startsWith(`test/${folder}/`));
const files = [...new Bun.Glob("test/**/*.test.ts").scanSync(ROOT)]
  .filter((path) => !(isFast && isHeavy(path)))
  .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
  .sort();
const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const reports = mkdtempSync(join(tmpdir(), "diskswarm-test-"));
const environment: Record<string, string | undefined> = { ...process.env };

if (files.length === 0) end(`no test file matches ${filters.join(", ")}`);
if (!isFast) {
  installPackages();
  build();
}
try {
  await runAll(
    files.filter((path) => !isHeavy(path)),
    LIGHT_PARALLEL,
    LIGHT_TIMEOUT_MS,
  );
  await runAll(files.filter(isHeavy), 1, HEAVY_TIMEOUT_MS);
} finally {
  rmSync(reports, { recursive: true, force: true });
}
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
  const install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", ...missing];
  if (succeeds(install, quiet)) return;
  if (!succeeds(["apt-get", "update", "-q"], quiet) || !succeeds(install, quiet))
    end(`cannot install ${missing.join(" ")}`);
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
  const outcome = await runFile(path, timeoutMs);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const counts = `${outcome.passed} passed, ${outcome.failed} failed, ${outcome.skipped} skipped`;
  console.log(`${outcome.failed > 0 ? "FAIL" : "ok  "} ${path}: ${counts} (${seconds} s)`);
  if (outcome.problem !== null) console.log(outcome.problem);
  total.passed += outcome.passed;
  total.failed += outcome.failed;
  total.skipped += outcome.skipped;
}

async function runFile(path: string, timeoutMs: number): Promise<Outcome> {
  const report = join(reports, `${path.replaceAll("/", "_")}.xml`);
  const flags = ["--reporter=junit", `--reporter-outfile=${report}`, `--timeout=${TEST_TIMEOUT_MS}`];
  const child = Bun.spawn([process.execPath, "test", ...flags, `./${path}`], {
    cwd: ROOT,
    env: environment,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let isLate = false;
  // SIGTERM first: the file's own clean-up takes its network namespaces and devices along.
  const terminate = setTimeout(() => {
    isLate = true;
    child.kill("SIGTERM");
  }, timeoutMs);
  const kill = setTimeout(() => child.kill("SIGKILL"), timeoutMs + 10_000);
  const [out, err, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(terminate);
  clearTimeout(kill);
  const counts = await readCounts(report);
  if (exitCode === 0 && counts && counts.failed === 0) return { ...counts, problem: null };
  const reason = isLate ? `ended after ${timeoutMs / 60_000} minutes` : `bun test ended with ${exitCode}`;
  const { passed, failed, skipped } = counts ?? { passed: 0, failed: 0, skipped: 0 };
  return { passed, failed: Math.max(1, failed), skipped, problem: `${withoutPasses(`${out}${err}`)}${reason}` };
}

/** Of hundreds of tests that passed nothing needs to be read. */
function withoutPasses(text: string): string {
  return text
    .split("\n")
    .filter((line) => !/^\((?:pass|skip)\) /.test(line))
    .join("\n");
}

/** Bun's own counts, from the head of its JUnit report; null where the process did not get to writing one. */
async function readCounts(report: string): Promise<Counts | null> {
  const file = Bun.file(report);
  if (!(await file.exists())) return null;
  const head = /<testsuites[^>]*>/.exec(await file.text())?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? Number.NaN);
  const [tests, failed, skipped] = [count("tests"), count("failures"), count("skipped")];
  if (![tests, failed, skipped].every(Number.isInteger)) return null;
  return { passed: tests - failed - skipped, failed, skipped };
}

function end(message: string): never {
  rmSync(reports, { recursive: true, force: true });
  console.error(`test: ${message}`);
  process.exit(1);
}
