/**
 * What every npm script goes through: `node tools/with-bun.mjs FILE [arguments]` installs the packages of
 * package-lock.json if they are missing or of another version, finds the Bun among them, and runs FILE with
 * it. Plain Node without imports from outside, since on a fresh machine there is nothing else yet.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MODULES = join(ROOT, "node_modules");

if (!packagesAreInstalled()) installPackages();
const bun = findBun() ?? installBun();
const child = spawn(bun, process.argv.slice(2), { cwd: ROOT, stdio: "inherit" });
// Ctrl-C reaches the child by itself; other signals are handed on, and its end is ours.
process.on("SIGINT", () => {});
for (const name of ["SIGTERM", "SIGHUP"]) process.on(name, () => child.kill(name));
child.on("error", (error) => fail(`cannot run ${bun}: ${error.message}`));
child.on("exit", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)));

/** Whether node_modules holds what package-lock.json names; packages for other systems may be absent. */
function packagesAreInstalled() {
  const installed = readPackages(join(MODULES, ".package-lock.json"));
  if (!installed) return false;
  const wanted = readPackages(join(ROOT, "package-lock.json")) ?? fail("package-lock.json is missing");
  return Object.entries(wanted).every(([path, { version, optional }]) => {
    if (path === "") return true;
    return installed[path] ? installed[path].version === version : optional === true;
  });
}

function readPackages(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).packages : null;
}

function installPackages() {
  console.error("installing the packages of package-lock.json (npm ci)");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: ROOT, stdio: ["ignore", 2, 2] });
  if (status !== 0) fail("npm ci failed; its own message stands above");
}

/**
 * npm may have run bun's install script, which moves the executable out of its platform's package, or may
 * have refused to run it: look at both places. Those for another C library are there too but do not start.
 */
function findBun() {
  const platforms = join(MODULES, "@oven");
  const candidates = [join(MODULES, "bun/bin/bun.exe")];
  if (existsSync(platforms)) candidates.push(...readdirSync(platforms).map((name) => join(platforms, name, "bin/bun")));
  return candidates.find((path) => existsSync(path) && spawnSync(path, ["--version"]).status === 0) ?? null;
}

function installBun() {
  spawnSync(process.execPath, ["install.js"], { cwd: join(MODULES, "bun"), stdio: ["ignore", 2, 2] });
  return findBun() ?? fail(`Bun does not start on this machine (${process.platform}-${process.arch})`);
}

function fail(message) {
  console.error(`with-bun: ${message}`);
  process.exit(1);
}
