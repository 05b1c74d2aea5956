/**
 * Builds the executable: `npm run build -- [--dynamic] [--target NAME|all] [--sysroot DIR] [--outfile PATH]`.
 *
 * Without a target it is for this machine and carries its C library: dist/diskswarm, or with `--dynamic` the plain
 * form, dist/diskswarm-dynamic. For other machines (dist/diskswarm-NAME) the Bun runtime of that target comes from
 * the npm registry, is checked against the digests pinned here and is kept in .cache/; it carries a C library where
 * `--sysroot` says where one is. Each file that was made is looked at: its machine and its C library must be those
 * asked for.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { WORKER_ENTRIES } from "./src/kernel/threads.ts";
import { formatBytes } from "./src/units.ts";
import { Elf, ElfError, type Machine } from "./tools/standalone/elf.ts";
import { standalone } from "./tools/standalone/standalone.ts";
import { trimUnicodeData, UnicodeDataProblem } from "./tools/unicode-data.ts";

const ROOT = import.meta.dir;
const CACHE = join(ROOT, ".cache");

interface Target {
  /** Package of the runtime on the npm registry, in the version of the Bun that builds. */
  readonly runtime: string;
  /** SHA-512 of the package's archive as the registry lists it (`dist.integrity`). */
  readonly integrity: string;
  readonly machine: Machine;
  readonly library: "glibc" | "musl";
}

/** The digests below belong to this version; a newer Bun needs new ones (`npm view PACKAGE@VERSION dist.integrity`). */
const RUNTIME_VERSION = "1.4.5";

const TARGETS: Readonly<Record<string, Target>> = {
  "linux-x64": {
    runtime: "@oven/bun-linux-x64",
    integrity: "sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==",
    machine: "x86-64",
    library: "glibc",
  },
  // For processors before 2013, which lack AVX2.
  "linux-x64-baseline": {
    runtime: "@oven/bun-linux-x64-baseline",
    integrity: "sha512-s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA==",
    machine: "x86-64",
    library: "glibc",
  },
  "linux-x64-musl": {
    runtime: "@oven/bun-linux-x64-musl",
    integrity: "sha512-10QoW/YfTgnURaGEaHpJCiXjLI2e5iTtfVDaA5JKcyUzaa1cq6cVUY9/Uq5XkYzvtRjHLRe9Oj/lTDIQcxy8HQ==",
    machine: "x86-64",
    library: "musl",
  },
  "linux-arm64": {
    runtime: "@oven/bun-linux-aarch64",
    integrity: "sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==",
    machine: "aarch64",
    library: "glibc",
  },
  "linux-arm64-musl": {
    runtime: "@oven/bun-linux-aarch64-musl",
    integrity: "sha512-XCNc+WvvMAdNNb+OWTogpy+N9wm62fkVeEVLb6how0RZhW5LPi6c7BlkeVCuWps7XjEl2saFpHFa20/1E+PAHg==",
    machine: "aarch64",
    library: "musl",
  },
};

function main(words: string[]): void {
  const wanted = option(words, "--target");
  const outfileWord = option(words, "--outfile");
  const sysrootWord = option(words, "--sysroot");
  const isDynamic = flag(words, "--dynamic");
  if (words.length > 0) fail(`unknown argument ${words[0]}; known are --target, --outfile, --sysroot and --dynamic`);
  if (isDynamic && sysrootWord) fail("--dynamic takes no C library from --sysroot: give one of them");
  const outfile = outfileWord === null ? null : resolve(outfileWord);
  const sysroot = sysrootWord === null ? null : resolve(sysrootWord);
  if (!wanted) {
    const name = isDynamic ? "dist/diskswarm-dynamic" : "dist/diskswarm";
    return build(null, outfile ?? join(ROOT, name), isDynamic ? null : (sysroot ?? "/"));
  }
  const names = wanted === "all" ? Object.keys(TARGETS) : [wanted];
  if ((outfile || sysroot) && names.length > 1) fail("--outfile and --sysroot take one target");
  for (const name of names) {
    if (!TARGETS[name]) fail(`unknown target ${name}; known are ${Object.keys(TARGETS).join(", ")} and all`);
    build(name, outfile ?? join(ROOT, `dist/diskswarm-${name}`), sysroot);
  }
}

/** Takes `--name value` or `--name=value` out of the words. */
function option(words: string[], name: string): string | null {
  const at = words.findIndex((word) => word === name || word.startsWith(`${name}=`));
  if (at < 0) return null;
  const [word, next] = words.splice(at, words[at] === name ? 2 : 1);
  return (word === name ? next : word!.slice(name.length + 1)) || fail(`${name} needs a value`);
}

function flag(words: string[], name: string): boolean {
  const at = words.indexOf(name);
  if (at >= 0) words.splice(at, 1);
  return at >= 0;
}

/** `sysroot` is where the C library lies that it shall carry; null for none. */
function build(targetName: string | null, outfile: string, sysroot: string | null): void {
  const target = targetName === null ? null : TARGETS[targetName]!;
  mkdirSync(dirname(outfile), { recursive: true });
  // Bun leaves source maps around its output, and an executable that runs can be replaced but not overwritten.
  const folder = mkdtempSync(join(dirname(outfile), ".build-"));
  try {
    const made = join(folder, "diskswarm");
    compile(targetName, made);
    if (target) checkExecutable(made, target);
    trimLanguages(made);
    const form = sysroot === null ? "dynamic" : addLibraries(made, sysroot);
    if (!target) run([made, "--version"]);
    renameSync(made, outfile);
    console.log(`${outfile}: ${form}, ${formatBytes(statSync(outfile).size)}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Without the data of other languages; with it where this Bun keeps it in another way, which is only larger. */
function trimLanguages(path: string): void {
  const bytes = readFileSync(path);
  try {
    const { droppedItems, freedBytes } = trimUnicodeData(bytes);
    writeFileSync(path, bytes);
    console.log(`${droppedItems} items of other languages taken out: ${formatBytes(freedBytes)} are zeros now`);
  } catch (error) {
    if (!(error instanceof UnicodeDataProblem)) throw error;
    console.error(`build: the data of other languages stays, and nodes need 7 MB more: ${error.message}`);
  }
}

/** Makes of the dynamic executable the one that carries its C library; tells which form it has afterwards. */
function addLibraries(path: string, sysroot: string): string {
  const elf = new Elf(path, readFileSync(path));
  // musl's loader is libc itself, and libstdc++ would have to be carried too: docs/decisions/0022.
  if (elf.interpreter?.includes("musl")) return "dynamic (there is no other form for musl)";
  writeFileSync(path, standalone(elf, sysroot));
  return "standalone";
}

function compile(targetName: string | null, outfile: string): void {
  const flags = [
    "--compile",
    // Embedded, so that traces in bug reports name the lines of the sources.
    "--sourcemap=inline",
    "--keep-names",
    // Parsed when it is built and not at each start of each thread: the first request goes out after half the CPU time.
    "--bytecode",
    "--format=esm",
    // What the threads have in common is there once: 3 MB, and 1 MB of what a node's image is packed to.
    "--splitting",
    // The directory where an administrator happens to stand must not change what the executable does.
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    `--define=DISKSWARM_BUILD="${buildId()}"`,
    "--root=src",
    `--outfile=${outfile}`,
  ];
  if (targetName !== null) {
    flags.push(`--target=bun-${targetName}`, `--compile-executable-path=${runtimeOf(TARGETS[targetName]!)}`);
  }
  const entries = ["main.ts", ...WORKER_ENTRIES].map((entry) => join("src", entry));
  run([process.execPath, "build", ...flags, ...entries]);
}

/** The same sources and packages give the same name, whether or not they lie in a git repository. */
function buildId(): string {
  const hash = createHash("sha256");
  for (const path of [...new Bun.Glob("{src,initramfs}/**/*").scanSync(ROOT)].sort()) {
    hash.update(`${path}\0`).update(readFileSync(join(ROOT, path)));
  }
  return hash
    .update(readFileSync(join(ROOT, "package-lock.json")))
    .digest("hex")
    .slice(0, 12);
}

/** Path of a target's runtime, fetched if it is not in the cache. */
function runtimeOf(target: Target): string {
  if (Bun.version !== RUNTIME_VERSION)
    fail(`the pinned runtimes are of Bun ${RUNTIME_VERSION}, this is ${Bun.version}`);
  const archive = `${target.runtime.slice(1).replace("/", "-")}-${RUNTIME_VERSION}`;
  const folder = join(CACHE, archive);
  const runtime = join(folder, "package/bin/bun");
  const archivePath = join(CACHE, `${archive}.tgz`);
  if (existsSync(runtime) && existsSync(archivePath) && integrityOf(archivePath) === target.integrity) return runtime;
  mkdirSync(folder, { recursive: true });
  run(["npm", "pack", "--silent", `--pack-destination=${CACHE}`, `${target.runtime}@${RUNTIME_VERSION}`]);
  const found = integrityOf(archivePath);
  if (found !== target.integrity) {
    rmSync(archivePath);
    fail(`${archivePath} has the digest ${found} but ${target.integrity} is pinned; it was removed`);
  }
  run(["tar", "-xzf", archivePath, "-C", folder]);
  return runtime;
}

function integrityOf(path: string): string {
  return `sha512-${createHash("sha512").update(readFileSync(path)).digest("base64")}`;
}

/** Looks at the machine and at the name of the dynamic loader. */
function checkExecutable(path: string, target: Target): void {
  const { machine, interpreter } = new Elf(path, readFileSync(path));
  const library = interpreter?.includes("ld-musl") ? "musl" : "glibc";
  if (machine !== target.machine || library !== target.library)
    fail(
      `${path} is for ${machine} with ${library} (${interpreter}), not for ${target.machine} with ${target.library}`,
    );
}

function run(command: string[]): void {
  const { exitCode } = Bun.spawnSync(command, { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
  if (exitCode !== 0) fail(`${command[0]} ${command[1]} ended with ${exitCode}`);
}

class BuildError extends Error {}

function fail(message: string): never {
  throw new BuildError(message);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof BuildError || error instanceof ElfError)) throw error;
  console.error(`build: ${error.message}`);
  process.exitCode = 1;
}
