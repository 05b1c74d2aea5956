/** Programs and libraries of another kind of machine: Debian's packages for it, unpacked below `.cache`, never installed. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "./diskswarm.ts";
import { aptFor, type DebianArchitecture, debianKernel } from "./kernels.ts";
import { run } from "./process.ts";
import { needTools } from "./tools.ts";

const CACHE = join(REPOSITORY, ".cache/sysroots");

/** A folder with the packages of the day; what they depend on is to be named too. */
export function debianSysroot(architecture: DebianArchitecture, packages: readonly string[]): string {
  needTools("apt-get", "dpkg-deb");
  // It sees to it that apt has the lists of that architecture.
  debianKernel(`cloud-${architecture}`);
  const apt = aptFor(architecture);
  const versions = packages.map((name) => {
    const version = /^Version: (\S+)/m.exec(run(["apt-cache", ...apt, "show", "--no-all-versions", name]))?.[1];
    return `${name}-${version}`.replaceAll(/[^A-Za-z0-9.+~-]/g, "_");
  });
  const folder = join(CACHE, `${architecture}_${versions.join("_")}`);
  if (existsSync(folder)) return folder;
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, ".unpack-"));
  try {
    mkdirSync(join(work, "root"));
    run(["apt-get", ...apt, "download", "-q", ...packages], ["env", "-C", work]);
    for (const archive of readdirSync(work).filter((name) => name.endsWith(".deb")))
      run(["dpkg-deb", "-x", join(work, archive), join(work, "root")]);
    renameSync(join(work, "root"), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}
