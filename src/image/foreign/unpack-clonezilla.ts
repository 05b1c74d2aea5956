/**
 * Puts the disk of a Clonezilla folder together in a raw file, as Clonezilla would on a disk of the same size: table
 * and boot code first, then each partition at its place.
 *
 * A GPT is written from the sectors that Clonezilla copied. Its copy of the backup lacks the first sector of the
 * entries (it starts one too late), which are the same as the primary's: those are taken, and the checksums of both
 * copies are looked at afterwards like those of any disk. An MBR is made by sfdisk from its own dump, which knows
 * where logical partitions are; the saved sector then goes over it.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, Failure } from "../../errors.ts";
import { reasonOf, runToolForText, type Tool } from "../external-tool.ts";
import type { UsedMap } from "../partclone.ts";
import {
  parsePartitionTable,
  type Partition,
  type PartitionTable,
  tableProblem,
} from "../../torrent/partition-table.ts";
import { areasOf } from "../partition-table.ts";
import type { WorkHooks } from "../work.ts";
import { type ClonezillaFolder, contentOf, partitionName, readClonezillaFolder } from "./clonezilla-folder.ts";
import { restoreNtfsBackup } from "./ntfs-backup.ts";
import { PackedImage, type PartcloneImage } from "./packed-image.ts";
import { runPipeline } from "./pipeline.ts";
import type { RawTarget } from "./raw-target.ts";
import type { Unpacked } from "./unpack.ts";

const SFDISK: Tool = { program: "sfdisk", package: "fdisk", isNeeded: true };
const MKSWAP: Tool = { program: "mkswap", package: "util-linux", isNeeded: true };
/** Works on a file, and on a table that is none yet; other signatures are the partitions' own. */
const SFDISK_OPTIONS = ["--quiet", "--force", "--no-reread", "--no-tell-kernel", "--wipe", "never"];
const SECTOR_BYTES = 512;
/** Boot code of an MBR or EBR; what follows is its table. */
const BOOT_CODE_BYTES = 446;
/** The entries of a GPT: 128 of 128 bytes, from the third sector on and before the backup's header. */
const ENTRY_SECTORS = 32;
/** A swap area's header: one page, of at most 64 KiB. */
const SWAP_HEADER_BYTES = 64 * 1024;

interface PartitionImage {
  readonly name: string;
  readonly partition: Partition;
  readonly image: PackedImage;
  /** null: a raw copy. */
  readonly partclone: PartcloneImage | null;
}

/** Throws Failure (exit 1), Interrupted. */
export async function unpackClonezilla(
  path: string,
  target: RawTarget,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<Unpacked> {
  const folder = readClonezillaFolder(path);
  target.resize(folder.diskBytes);
  const table = await writeTable(folder, target, signal);
  const images: PartitionImage[] = [];
  const maps = new Map<number, UsedMap>();
  try {
    for (const partition of table.partitions.filter(({ isExtended }) => !isExtended)) {
      const content = contentOf(folder, partition.number);
      const name = partitionName(folder.disk, partition.number);
      if (content.kind === "swap") await makeSwap(content, partition, target, signal);
      if (content.kind === "nothing")
        hooks.warning("not-saved", `${name} was not saved into ${path}: nodes get zeros there`);
      if (content.kind !== "image") continue;
      const image = new PackedImage(content.parts);
      const partclone = await image.readPartclone(signal);
      images.push({ name, partition, image, partclone });
      if (partclone !== null) maps.set(partition.number, partclone.map);
    }
    const neededBytes = images.reduce((sum, each) => sum + neededBy(each), 0);
    target.needRoom(neededBytes);
    await target.watched(neededBytes, hooks, async () => {
      for (const each of images) await writePartition(each, target, signal);
    });
    return { what: `the disk ${folder.disk} in an image of Clonezilla`, maps };
  } catch (error) {
    for (const { partclone } of images) partclone?.map.close();
    throw error;
  }
}

/** Of a raw copy nobody knows how much of it is zeros. */
function neededBy({ partclone }: PartitionImage): number {
  return partclone === null ? 0 : partclone.map.usedBytes;
}

async function writePartition(
  { name, partition, image, partclone }: PartitionImage,
  target: RawTarget,
  signal: AbortSignal,
): Promise<void> {
  const { startBytes, lengthBytes } = partition;
  const endBytes = partclone?.map.endBytes ?? 0;
  if (endBytes > lengthBytes)
    throw failure(`${image.name} holds ${endBytes} bytes, and ${name} in the partition table has ${lengthBytes}`);
  if (partclone !== null) {
    await image.restore(target.path, startBytes, signal);
    return restoreNtfsBackup(target, startBytes, lengthBytes);
  }
  const copiedBytes = await image.copy(target.path, startBytes, signal);
  if (copiedBytes !== lengthBytes)
    throw failure(`${image.name} holds ${copiedBytes} bytes, and ${name} in the partition table has ${lengthBytes}`);
}

async function writeTable(folder: ClonezillaFolder, target: RawTarget, signal: AbortSignal): Promise<PartitionTable> {
  const { path, disk, diskBytes, isGpt, files } = folder;
  /** What of that file goes there, if it was saved. */
  const put = (name: string, offsetBytes: number, bytesMax: number) => {
    if (files.includes(name)) target.putFile(join(path, name), offsetBytes, bytesMax);
  };
  if (isGpt) writeGpt(folder, target);
  else await makeMbr(join(path, `${disk}-pt.sf`), target.path, signal);
  put(`${disk}-mbr`, 0, SECTOR_BYTES);
  const table = await readTable(target.path, path, diskBytes, signal);
  const firstStart = areasOf(table, diskBytes).find(({ partition }) => partition >= 0)?.offsetBytes ?? diskBytes;
  put(`${disk}-hidden-data-after-mbr`, SECTOR_BYTES, firstStart - SECTOR_BYTES);
  for (const { number, startBytes, isExtended } of table.partitions)
    if (isExtended) put(`${partitionName(disk, number)}-ebr`, startBytes, BOOT_CODE_BYTES);
  return table;
}

function writeGpt({ path, disk, diskBytes, files }: ClonezillaFolder, target: RawTarget): void {
  const primary = readFileSync(join(path, `${disk}-gpt-1st`)).subarray(0, (2 + ENTRY_SECTORS) * SECTOR_BYTES);
  target.put(0, primary);
  const backup = `${disk}-gpt-2nd`;
  if (!files.includes(backup)) throw failure(`the file ${join(path, backup)} is missing`);
  const header = readFileSync(join(path, backup)).subarray(-SECTOR_BYTES);
  target.put(diskBytes - SECTOR_BYTES, header);
  const entries = primary.subarray(2 * SECTOR_BYTES);
  target.put(diskBytes - SECTOR_BYTES - entries.length, entries);
}

async function makeMbr(dumpPath: string, rawPath: string, signal: AbortSignal): Promise<void> {
  const fd = openSync(dumpPath, "r");
  try {
    const made = await runPipeline(
      [{ tool: SFDISK, args: [...SFDISK_OPTIONS, rawPath] }],
      { stdin: fd, stdout: null },
      signal,
    );
    if (made[0].exitCode !== 0)
      throw failure(`sfdisk cannot make the partition table of ${dumpPath} (${reasonOf(made[0])})`);
  } finally {
    closeSync(fd);
  }
}

async function readTable(
  rawPath: string,
  folderPath: string,
  diskBytes: number,
  signal: AbortSignal,
): Promise<PartitionTable> {
  const run = await runToolForText(SFDISK, ["--json", rawPath], signal);
  const table =
    run.exitCode === 0 ? parsePartitionTable(run.stdout, SECTOR_BYTES) : `cannot be read (${reasonOf(run)})`;
  if (typeof table === "string") throw failure(`the partition table in ${folderPath} ${table}`);
  const problem = tableProblem(table, diskBytes);
  if (problem !== null) throw failure(`the partition table in ${folderPath} makes no sense: partition ${problem}`);
  return table;
}

/** Clonezilla keeps nothing of a swap partition but its names. */
async function makeSwap(
  { uuid, label }: { uuid: string; label: string },
  partition: Partition,
  target: RawTarget,
  signal: AbortSignal,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-swap-"));
  try {
    const path = join(folder, "swap");
    closeSync(openSync(path, "wx", 0o600));
    truncateSync(path, partition.lengthBytes);
    const names = [...(uuid === "" ? [] : ["-U", uuid]), ...(label === "" ? [] : ["-L", label])];
    const made = await runToolForText(MKSWAP, [...names, path], signal);
    if (made.exitCode !== 0)
      throw failure(`mkswap cannot make the swap partition ${partition.number} (${reasonOf(made)})`);
    const header = Buffer.alloc(Math.min(SWAP_HEADER_BYTES, partition.lengthBytes));
    const fd = openSync(path, "r");
    readSync(fd, header, 0, header.length, 0);
    closeSync(fd);
    target.put(partition.startBytes, header);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function failure(message: string): Failure {
  return new Failure(ExitCode.failed, "clonezilla", message);
}
