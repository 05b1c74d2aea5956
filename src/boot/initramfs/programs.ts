/**
 * Which programs of others a node gets, and what for. Each is taken where it is installed and left out where it is not:
 * the disk is deployed without any of them. Whoever builds is told what is left out, and which package has it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { FileTree } from "./file-tree.ts";
import type { Libraries } from "./libraries.ts";
import { buildFailure } from "./problem.ts";

export const TOOL_SETS = ["all", "minimal", "none"] as const;
export type ToolSet = (typeof TOOL_SETS)[number];

export interface NodeProgram {
  readonly program: string;
  /** Debian's package. */
  readonly package: string;
  /** What a node cannot do without it. */
  readonly reason: string;
  /** Of use only where the kernel has a file system that the smallest set of drivers leaves out. */
  readonly isExtra?: boolean;
}

export const NODE_PROGRAMS: readonly NodeProgram[] = [
  { program: "sfdisk", package: "fdisk", reason: "make the GPT right for a larger or smaller disk" },
  { program: "partx", package: "util-linux", reason: "tell the kernel of a changed partition" },
  { program: "blkid", package: "util-linux", reason: "find out what a partition holds" },
  { program: "mount", package: "mount", reason: "mount any file system by its type" },
  { program: "losetup", package: "mount", reason: "grow or mount a partition that the kernel has no node for" },
  { program: "e2fsck", package: "e2fsprogs", reason: "check ext4 before it is grown" },
  { program: "resize2fs", package: "e2fsprogs", reason: "grow ext4" },
  { program: "xfs_growfs", package: "xfsprogs", reason: "grow XFS", isExtra: true },
  { program: "xfs_repair", package: "xfsprogs", reason: "check XFS", isExtra: true },
  { program: "btrfs", package: "btrfs-progs", reason: "grow Btrfs", isExtra: true },
  { program: "ntfsresize", package: "ntfs-3g", reason: "grow NTFS", isExtra: true },
  { program: "resize.f2fs", package: "f2fs-tools", reason: "grow F2FS", isExtra: true },
  { program: "pvs", package: "lvm2", reason: "find a system in a logical volume, to name it", isExtra: true },
  { program: "efibootmgr", package: "efibootmgr", reason: "name the new system in UEFI's boot entries" },
  { program: "kexec", package: "kexec-tools", reason: "start the new system without the firmware" },
];

const FOLDERS = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/** Where a program is below `sysroot`, as a path within it; null where it is not installed. */
export function findProgram(sysroot: string, name: string): string | null {
  return FOLDERS.map((folder) => join(folder, name)).find((path) => existsSync(`${sysroot}${path}`)) ?? null;
}

/** Puts those of a set that are there into the root's /usr/bin; returns those that are not. */
export function addPrograms(tree: FileTree, libraries: Libraries, sysroot: string, set: ToolSet): NodeProgram[] {
  const wanted = NODE_PROGRAMS.filter(({ isExtra = false }) => set === "all" || (set === "minimal" && !isExtra));
  return wanted.filter(({ program }) => {
    const path = findProgram(sysroot, program);
    if (path !== null) libraries.addProgram(tree, `${sysroot}${path}`, `usr/bin/${program}`);
    return path === null;
  });
}

/** Path of the busybox that goes into an initramfs. Throws Failure where there is none, or it needs libraries. */
export function needStaticBusybox(sysroot: string, libraries: Libraries): string {
  const path = findProgram(sysroot, "busybox");
  if (path === null) throw buildFailure("tool-missing", "busybox is not installed: install the package busybox-static");
  const needs = libraries.needsOf(`${sysroot}${path}`);
  if (needs === null || needs.loader !== null)
    throw buildFailure(
      "busybox",
      `${sysroot}${path} is not a static program: install the package busybox-static in place of busybox`,
    );
  return `${sysroot}${path}`;
}

/** What the user named is looked for before anything takes time. Throws Failure. */
export function needFiles(paths: readonly string[]): void {
  for (const path of paths) if (!existsSync(path)) throw buildFailure("missing", `${path} does not exist`);
}
