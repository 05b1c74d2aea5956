/**
 * Real kernels to boot and to build from: Debian's packages, fetched and unpacked below `.cache/kernels`, never
 * installed. The metapackage (linux-image-cloud-amd64) is followed to the package of the day, whose version is
 * in the folder's name, so that a newer kernel is a new folder.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./diskswarm.ts";
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

const CACHE = join(REPOSITORY, ".cache/kernels");
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
  mkdirSync(CACHE, { recursive: true });
  const apt = aptFor(flavour.endsWith("arm64") ? "arm64" : "amd64");
  const { name, version } = packageOfTheDay(apt, `linux-image-${flavour}`);
  const folder = join(CACHE, `${name}_${version.replaceAll(":", "_")}`);
  if (!existsSync(folder)) unpack(apt, name, folder);
  const release = name.slice("linux-image-".length);
  return { release, vmlinuz: join(folder, `boot/vmlinuz-${release}`), modules: join(folder, "lib/modules", release) };
}

export type DebianArchitecture = "amd64" | "arm64";

/** The options that make apt look at one architecture. Another than this machine's has package lists of its own. */
export function aptFor(architecture: DebianArchitecture): string[] {
  const own = process.arch === "x64" ? "amd64" : "arm64";
  if (architecture === own) return [];
  const state = join(CACHE, `apt-${architecture}`);
  mkdirSync(join(state, "lists/partial"), { recursive: true });
  mkdirSync(join(state, "cache"), { recursive: true });
  return [
    ["-o", `APT::Architecture=${architecture}`],
    ["-o", `APT::Architectures=${architecture}`],
    ["-o", `Dir::State::lists=${state}/lists`],
    ["-o", `Dir::Cache=${state}/cache`],
  ].flat();
}

function packageOfTheDay(apt: readonly string[], meta: string): { name: string; version: string } {
  const find = () => {
    const name = /^\s+Depends: (linux-image-\d\S*)/m.exec(succeed(["apt-cache", ...apt, "depends", meta]))?.[1];
    const version =
      name === undefined ? undefined : /^Version: (\S+)/m.exec(succeed(["apt-cache", ...apt, "show", name]))?.[1];
    return name === undefined || version === undefined ? null : { name, version };
  };
  const known = find();
  if (known !== null) return known;
  run(["apt-get", ...apt, "update", "-q"]);
  const afterUpdate = find();
  if (afterUpdate === null) throw new Error(`apt knows no package that ${meta} depends on`);
  return afterUpdate;
}

/** What a look-up says; nothing where the package is not known. */
function succeed(argv: readonly string[]): string {
  const { exitCode, stdout } = Bun.spawnSync([...argv], { stdin: "ignore", stderr: "ignore" });
  return exitCode === 0 ? stdout.toString() : "";
}

function unpack(apt: readonly string[], name: string, folder: string): void {
  const work = mkdtempSync(join(CACHE, ".unpack-"));
  try {
    const { exitCode, stderr } = Bun.spawnSync(["apt-get", ...apt, "download", "-q", name], {
      cwd: work,
      stdin: "ignore",
    });
    if (exitCode !== 0) throw new Error(`apt-get download ${name} ended with ${exitCode}: ${stderr}`);
    const [archive] = readdirSync(work);
    run(["dpkg-deb", "-x", join(work, archive!), join(work, "root")]);
    run(["depmod", "-b", join(work, "root"), name.slice("linux-image-".length)]);
    // Whoever is second finds the folder there, with the same content.
    if (!existsSync(folder)) renameSync(join(work, "root"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
