/** Goes from this kernel straight to the one on the disk, without the firmware's minutes in between. */
import type { TargetDisk } from "../../fit/target-disk.ts";
import type { Tool } from "../../image/external-tool.ts";
import { findKernel } from "./find-kernel.ts";
import { lookThrough, type Inside } from "./look-inside.ts";
import { askTool } from "./node-tool.ts";

const KEXEC: Tool = { program: "kexec", package: "kexec-tools" };

/** In memory, ready to be started: what it is. Or why there is none. */
export type LoadedKernel = { readonly loaded: string } | { readonly why: string };

/** Loads the kernel that the disk's own boot loader would start. */
export async function loadKernel(disk: TargetDisk): Promise<LoadedKernel> {
  const problems: string[] = [];
  const found = await lookThrough(disk, problems, async (inside) => {
    const loaded = await loadFrom(inside);
    if ("loaded" in loaded) return loaded;
    problems.push(`${inside.name}: ${loaded.why}`);
    return null;
  });
  return found ?? { why: `no kernel of ${disk.path} can be started (${problems.join("; ")})` };
}

async function loadFrom({ files, name, partUuid }: Inside): Promise<LoadedKernel> {
  const isRoot = files.exists("etc/fstab") || files.exists("sbin/init");
  const found = findKernel(files, isRoot && partUuid !== null ? `PARTUUID=${partUuid}` : null);
  if (typeof found === "string") return { why: found };
  const { kernel, initrds, commandLine, source } = found;
  if (initrds.length > 1) return { why: `${source} has ${initrds.length} initrds, and kexec takes one` };
  // Both are there: `findKernel` has looked.
  const words = ["--load", "--kexec-syscall-auto", files.pathOf(kernel)!, `--command-line=${commandLine}`];
  if (initrds.length === 1) words.push(`--initrd=${files.pathOf(initrds[0]!)!}`);
  const { problem } = await askTool(KEXEC, words);
  return problem === null ? { loaded: `${kernel} of ${name} (${source})` } : { why: problem };
}

/** Starts what was loaded. Returns only where that did not work: why. */
export async function startKernel(): Promise<string> {
  const { problem } = await askTool(KEXEC, ["--exec"]);
  return problem ?? "kexec returned";
}
