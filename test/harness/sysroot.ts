/** Programs and libraries of another kind of machine: Debian's packages for it, unpacked below `.cache`, never installed. */
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { kept } from "./cache.ts";
import { aptFor, type DebianArchitecture, debianKernel } from "./kernels.ts";
import { run } from "./process.ts";
import { needTools } from "./tools.ts";

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
  return kept("sysroots", `${architecture}_${versions.join("_")}`, (made, work) => {
    mkdirSync(made);
    run(["apt-get", ...apt, "download", "-q", "-o", "Acquire::Retries=3", ...packages], ["env", "-C", work]);
    for (const archive of readdirSync(work).filter((name) => name.endsWith(".deb")))
      run(["dpkg-deb", "-x", join(work, archive), made]);
  });
}
