/**
 * Real kernels to boot and to build from: Debian's packages, fetched and unpacked below `.cache/kernels`, never
 * installed. The metapackage (linux-image-cloud-amd64) is followed to the package of the day, whose version is
 * in the folder's name, so that a newer kernel is a new folder.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { alone, cacheFolder } from "./cache.ts";
import { run } from "./process.ts";
import { needTools } from "./tools.ts";

/** `cloud-*`: small, virtio and few drivers; the others: everything that Debian drives. */
export type KernelFlavour = "cloud-amd64" | "amd64" | "cloud-arm64" | "arm64";

export interface TestKernel {
  /** `6.1.0-56-cloud-amd64`: what uname -r says, and the name of its module folder. */
  readonly release: string;
  /** The bootable file, a bzImage or an arm64 Image. */
  readonly vmlinuz: string;
  /** `.../lib/modules/RELEASE`, with modules.dep and modules.alias. */
  readonly modules: string;
}

/** Asking apt takes a second. */
const found = new Map<KernelFlavour, TestKernel>();

/** Fetches it unless it is there; several test processes may ask at once. */
export function debianKernel(flavour: KernelFlavour): TestKernel {
  const kernel = found.get(flavour) ?? fetchKernel(flavour);
  found.set(flavour, kernel);
  return kernel;
}

function fetchKernel(flavour: KernelFlavour): TestKernel {
  needTools("apt-get", "dpkg-deb", "depmod");
  const { name, folder } = alone("kernels", () => unpackedPackage(flavour));
  const release = name.slice("linux-image-".length);
  return { release, vmlinuz: join(folder, `boot/vmlinuz-${release}`), modules: join(folder, "lib/modules", release) };
}

interface Unpacked {
  readonly name: string;
  readonly folder: string;
}

function unpackedPackage(flavour: KernelFlavour): Unpacked {
  const apt = aptFor(flavour.endsWith("arm64") ? "arm64" : "amd64");
  const known = unpackedBy(apt, flavour);
  if (known !== null) return known;
  // There are no lists yet, or they are of a day whose packages the mirror no longer has.
  run(["apt-get", ...apt, "update", "-q"]);
  const found = unpackedBy(apt, flavour);
  if (found === null) throw new Error(`apt cannot fetch the package that linux-image-${flavour} depends on`);
  return found;
}

/** Null where apt does not know it, or not where it is. */
function unpackedBy(apt: readonly string[], flavour: KernelFlavour): Unpacked | null {
  const found = packageOfTheDay(apt, `linux-image-${flavour}`);
  if (found === null) return null;
  const folder = join(cacheFolder("kernels"), `${found.name}_${found.version.replaceAll(":", "_")}`);
  return existsSync(folder) || unpack(apt, found.name, folder) ? { name: found.name, folder } : null;
}

export type DebianArchitecture = "amd64" | "arm64";

/** The options that make apt look at one architecture. Another than this machine's has package lists of its own. */
export function aptFor(architecture: DebianArchitecture): string[] {
  const own = process.arch === "x64" ? "amd64" : "arm64";
  if (architecture === own) return [];
  const state = join(cacheFolder("kernels"), `apt-${architecture}`);
  mkdirSync(join(state, "lists/partial"), { recursive: true });
  mkdirSync(join(state, "cache"), { recursive: true });
  return [
    ["-o", `APT::Architecture=${architecture}`],
    ["-o", `APT::Architectures=${architecture}`],
    ["-o", `Dir::State::lists=${state}/lists`],
    ["-o", `Dir::Cache=${state}/cache`],
  ].flat();
}

function packageOfTheDay(apt: readonly string[], meta: string): { name: string; version: string } | null {
  const name = /^\s+Depends: (linux-image-\d\S*)/m.exec(succeed(["apt-cache", ...apt, "depends", meta]))?.[1];
  const version =
    name === undefined ? undefined : /^Version: (\S+)/m.exec(succeed(["apt-cache", ...apt, "show", name]))?.[1];
  return name === undefined || version === undefined ? null : { name, version };
}

/** What a look-up says; nothing where the package is not known. */
function succeed(argv: readonly string[]): string {
  const { exitCode, stdout } = Bun.spawnSync([...argv], { stdin: "ignore", stderr: "ignore" });
  return exitCode === 0 ? stdout.toString() : "";
}

/** False where it cannot be fetched. */
function unpack(apt: readonly string[], name: string, folder: string): boolean {
  const work = mkdtempSync(join(cacheFolder("kernels"), ".unpack-"));
  try {
    const download = ["apt-get", ...apt, "download", "-q", "-o", "Acquire::Retries=3", name];
    const { exitCode, stderr } = Bun.spawnSync(download, { cwd: work, stdin: "ignore" });
    if (exitCode !== 0) console.error(`apt-get download ${name} ended with ${exitCode}: ${stderr}`);
    const [archive] = readdirSync(work);
    if (exitCode !== 0 || archive === undefined) return false;
    run(["dpkg-deb", "-x", join(work, archive), join(work, "root")]);
    run(["depmod", "-b", join(work, "root"), name.slice("linux-image-".length)]);
    renameSync(join(work, "root"), folder);
    return true;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
