/** Makes the read-only image of a root folder by mksquashfs, the same bytes for the same content. */
import { chmodSync, constants, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { reasonOf, runToolForText } from "../../image/external-tool.ts";
import { assert } from "../../errors.ts";
import { KiB } from "../../units.ts";
import type { Machine } from "./elf.ts";
import type { FileTree, TreeNode } from "./file-tree.ts";
import { buildFailure } from "./problem.ts";

export const PACKERS = ["xz", "zstd", "lz4"] as const;
export type Packer = (typeof PACKERS)[number];

const TOOL = { program: "mksquashfs", package: "squashfs-tools" };
/**
 * Blocks of 1 MiB make a file 3 % smaller. But the kernel keeps five of them in memory for each mounted image, and where
 * memory is short one page that is needed again costs the unpacking of its whole block: with 192 MB a deployment then stood.
 * Figures: docs/decisions/0019-the-image-of-a-node-is-squashfs-of-xz.md.
 */
export const BLOCK_BYTES = 256 * KiB;
/** For two stages, which machines with less memory boot in: a page brings 15 others with it instead of 63. 7 % larger. */
export const SMALL_BLOCK_BYTES = 64 * KiB;

export interface Packing {
  readonly packer: Packer;
  readonly machine: Machine;
  readonly blockBytes: number;
}

export function needSquashfsTools(): void {
  if (Bun.which(TOOL.program) === null)
    throw buildFailure("tool-missing", `${TOOL.program} is not installed: install the package ${TOOL.package}`);
}

/** Writes the image to `outputPath`. `workFolder` is a folder of the caller's, which holds a copy of it all meanwhile. */
export async function makeSquashfs(
  tree: FileTree,
  outputPath: string,
  workFolder: string,
  packing: Packing,
  signal: AbortSignal,
): Promise<void> {
  const root = join(workFolder, "root");
  mkdirSync(root);
  for (const [path, node] of tree.entries()) layOut(join(root, path), node);
  const words = [root, outputPath, "-noappend", "-no-progress", "-quiet", "-no-xattrs", "-no-exports", "-all-root"];
  const times = ["-mkfs-time", "0", "-all-time", "0"];
  const run = await runToolForText(TOOL, [...words, ...times, ...packerWords(packing)], signal);
  if (run.exitCode === 0) return;
  const room = `is there room for ${Math.ceil(tree.totalBytes / 1e6)} MB`;
  throw buildFailure("squashfs", `mksquashfs could not write ${outputPath} (${reasonOf(run)}): ${room}?`);
}

function packerWords({ packer, machine, blockBytes }: Packing): string[] {
  const words = ["-comp", packer, "-b", String(blockBytes)];
  // The filter turns the relative jumps of x86 code into absolute ones, which repeat more.
  if (packer === "xz") return machine === "x86-64" ? [...words, "-Xbcj", "x86"] : words;
  return packer === "zstd" ? [...words, "-Xcompression-level", "19"] : words;
}

function layOut(path: string, node: TreeNode): void {
  assert(node.type !== "device", "an image holds no devices: devtmpfs has them");
  if (node.type === "link") return symlinkSync(node.target, path);
  if (node.type === "folder") mkdirSync(path);
  else if ("bytes" in node.content) writeFileSync(path, node.content.bytes);
  else copyFileSync(node.content.from, path, constants.COPYFILE_FICLONE);
  chmodSync(path, node.mode);
}
