/**
 * A disk that is larger than the one its image was taken from has the backup of its GPT in the middle, where
 * neither firmware nor installers look for it, and a protective MBR that ends there. sfdisk (or sgdisk) moves
 * the one and corrects the other; identifiers and partitions stay as they are.
 */
import { openCaptureSource } from "../image/capture-source.ts";
import { diskReader } from "../image/disk-reader.ts";
import { reasonOf, runToolForText, type Tool } from "../image/external-tool.ts";
import { checkGpt } from "../image/gpt-check.ts";

/** Whichever is there. Both flush the disk. */
const MOVERS: readonly { readonly tool: Tool; readonly words: readonly string[] }[] = [
  { tool: { program: "sfdisk", package: "fdisk" }, words: ["--quiet", "--relocate", "gpt-bak-std"] },
  { tool: { program: "sgdisk", package: "gdisk" }, words: ["--move-second-header"] },
];

export type MoveOutcome =
  | { readonly type: "unneeded" }
  | { readonly type: "moved"; readonly fromBytes: number }
  /** The disk is as it was written. `problem` says what is not right with it and what to do. */
  | { readonly type: "left"; readonly problem: string };

/** Moves it where that is needed: on a whole disk with a sound primary GPT whose backup is not at its end. */
export async function moveBackupGpt(diskPath: string): Promise<MoveOutcome> {
  const fromBytes = misplacedBackup(diskPath);
  if (fromBytes === null) return { type: "unneeded" };
  const mover = MOVERS.find(({ tool }) => Bun.which(tool.program) !== null);
  const left = (why: string): MoveOutcome => {
    const what = `the backup GPT of ${diskPath} stays at byte ${fromBytes}, not at the disk's end`;
    return { type: "left", problem: `${what}: ${why}` };
  };
  if (mover === undefined) return left("install the package fdisk, and run sfdisk --relocate gpt-bak-std on it");
  const run = await runToolForText(mover.tool, [...mover.words, diskPath], null);
  if (misplacedBackup(diskPath) === null) return { type: "moved", fromBytes };
  return left(`${mover.tool.program} could not move it (${reasonOf(run)}); do it with gdisk`);
}

/** Where the backup is when it is not at the end; null where it is, and for what is no disk with a sound GPT. */
function misplacedBackup(diskPath: string): number | null {
  const disk = openCaptureSource(diskPath, false);
  try {
    if (disk.kind !== "disk") return null;
    const gpt = checkGpt(diskReader(disk.bufferedFd), disk.sizeBytes, disk.sectorBytes);
    if (gpt === null || gpt.primary !== null || gpt.backupOffsetBytes === disk.sizeBytes - disk.sectorBytes)
      return null;
    return gpt.backupOffsetBytes;
  } finally {
    disk.close();
  }
}
