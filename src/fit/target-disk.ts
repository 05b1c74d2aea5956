/** A disk, partition or file that an image was written to, as it is seen afterwards: its size, its table, its partitions. */
import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { BLKRRPART, O_RDONLY } from "../kernel/abi.ts";
import { closeChecked } from "../disk/open-disk.ts";
import { Errno, errnoText, ioctl, open, stat } from "../kernel/libc.ts";
import { openCaptureSource } from "../image/capture-source.ts";
import { diskReader } from "../image/disk-reader.ts";
import { runToolForText, reasonOf } from "../image/external-tool.ts";
import { type PartitionTable, parsePartitionTable, tableProblem } from "../torrent/partition-table.ts";
import { change, fitFailure, LOSETUP, PARTX, SFDISK } from "./tools.ts";

export interface TargetDisk {
  readonly path: string;
  readonly kind: "disk" | "partition" | "file";
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  /** `major:minor`; empty for a file. */
  readonly deviceId: string;
}

/** A part of a disk in bytes. */
export interface DiskPart {
  readonly startBytes: number;
  readonly lengthBytes: number;
}

export interface PartView {
  /** A block device that is this part. */
  readonly path: string;
  /** Stores what was written through it. Throws where the device did not take it. */
  close(): void;
}

export function targetDisk(path: string): TargetDisk {
  const source = openCaptureSource(path, false);
  source.close();
  const { kind, sizeBytes, sectorBytes, deviceId } = source;
  return { path, kind, sizeBytes, sectorBytes, deviceId };
}

/** The partitions of a disk; null where there are none. Throws Failure where its table makes no sense. */
export async function readTable(disk: TargetDisk): Promise<PartitionTable | null> {
  return disk.kind === "disk" ? tableOn(disk) : null;
}

/** The table by sfdisk, wherever it was written: in a partition it makes no partitions. */
export async function tableOn(disk: TargetDisk): Promise<PartitionTable | null> {
  const run = await runToolForText(SFDISK, ["--json", disk.path], null);
  if (run.exitCode !== 0) {
    if (/does not contain a recognized partition table/.test(run.stderr)) return null;
    throw fitFailure("sfdisk", `sfdisk cannot read the partition table of ${disk.path} (${reasonOf(run)})`);
  }
  const table = parsePartitionTable(run.stdout, disk.sectorBytes);
  if (typeof table === "string") throw fitFailure("partition-table", `the partition table of ${disk.path} ${table}`);
  const problem = tableProblem(table, disk.sizeBytes);
  if (problem !== null)
    throw fitFailure("partition-table", `the partition table of ${disk.path} makes no sense: partition ${problem}`);
  return table.partitions.length === 0 ? null : table;
}

/** The sizes that there are. */
const SECTOR_SIZES = [512, 4096];

/** The sectors that a GPT on the disk counts in where they are not the disk's own; null where all is well. */
export function foreignGptSectors(disk: TargetDisk): number | null {
  const fd = openSync(disk.path, "r");
  try {
    const read = diskReader(fd);
    const hasHeader = (sectorBytes: number) => read(sectorBytes, 8).toString("latin1") === "EFI PART";
    if (hasHeader(disk.sectorBytes)) return null;
    return SECTOR_SIZES.find((sectorBytes) => sectorBytes !== disk.sectorBytes && hasHeader(sectorBytes)) ?? null;
  } finally {
    closeSync(fd);
  }
}

/** A part as a device: the kernel's own node where it knows the partition, else a loop device. Throws Failure. */
export async function openPart(disk: TargetDisk, part: DiskPart): Promise<PartView> {
  if (part.startBytes === 0 && part.lengthBytes === disk.sizeBytes) return viewOf(disk.path);
  return viewOf(partitionNode(disk, part) ?? (await loopOver(disk, part)));
}

/** The descriptor keeps a loop device that is detached already; its fsync tells errors of every write through the device. */
async function viewOf(path: string | { readonly loop: string }): Promise<PartView> {
  const device = typeof path === "string" ? path : path.loop;
  const fd = openSync(device, "r+");
  if (typeof path !== "string") await change(LOSETUP, ["--detach", device]);
  return {
    path: device,
    close: () => {
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    },
  };
}

/** sysfs counts in units of 512 bytes whatever the sectors are. */
const SYSFS_BYTES = 512;

function partitionNode(disk: TargetDisk, part: DiskPart): string | null {
  const folder = `/sys/dev/block/${disk.deviceId}`;
  if (!existsSync(folder)) return null;
  const numberIn = (path: string) => Number(readFileSync(path, "utf8")) * SYSFS_BYTES;
  for (const entry of readdirSync(folder)) {
    const path = join(folder, entry);
    if (!existsSync(join(path, "partition"))) continue;
    if (numberIn(join(path, "start")) !== part.startBytes || numberIn(join(path, "size")) !== part.lengthBytes)
      continue;
    const node = join("/dev", basename(path));
    const found = stat(node);
    const id = typeof found === "number" ? "" : `${found.rdevMajor}:${found.rdevMinor}`;
    return id === readFileSync(join(path, "dev"), "utf8").trim() ? node : null;
  }
  return null;
}

async function loopOver(disk: TargetDisk, part: DiskPart): Promise<{ readonly loop: string }> {
  const range = ["--offset", String(part.startBytes), "--sizelimit", String(part.lengthBytes)];
  const sectors = ["--sector-size", String(disk.sectorBytes)];
  const made = await change(LOSETUP, ["--find", "--show", ...sectors, ...range, disk.path]);
  const loop = made.stdout.trim();
  if (!/^\/dev\/\S+$/.test(loop)) throw fitFailure("no-loop-device", `losetup names no loop device for ${disk.path}`);
  return { loop };
}

/** udev may look at a partition just now; it is done within a moment. */
const REREAD_TRIES = 10;
const REREAD_PAUSE_MS = 200;

/**
 * Makes the kernel look at the table again, so that /dev/sda1 is what the image says. What keeps it from that
 * harms nothing (somebody uses a partition; loop devices without partitions), so it is but an answer in words.
 */
export async function rereadPartitions(disk: TargetDisk): Promise<string | null> {
  if (disk.kind !== "disk") return null;
  const result = await rereadTable(disk.path);
  if (result < 0 && result !== -Errno.EBUSY) return errnoText(result);
  if ((await missingNodes(disk)) === 0) return null;
  // A kernel without that kind of table, or with one of the partitions in use, is told of each by itself.
  if (Bun.which(PARTX.program) === null) return "not all partitions are there, and partx is not installed";
  const run = await runToolForText(PARTX, ["--update", disk.path], null);
  return run.exitCode === 0 ? null : reasonOf(run);
}

/** 0, or minus errno. */
async function rereadTable(path: string): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const fd = open(path, O_RDONLY);
    if (fd < 0) return fd;
    const result = ioctl(fd, BLKRRPART);
    closeChecked(fd);
    if (result !== -Errno.EBUSY || attempt === REREAD_TRIES) return result;
    await Bun.sleep(REREAD_PAUSE_MS);
  }
}

/** How many partitions of a table that makes sense the kernel does not know. */
async function missingNodes(disk: TargetDisk): Promise<number> {
  const run = Bun.which(SFDISK.program) === null ? null : await runToolForText(SFDISK, ["--json", disk.path], null);
  const table = run === null ? "" : parsePartitionTable(run.stdout, disk.sectorBytes);
  if (typeof table === "string") return 0;
  const real = table.partitions.filter(({ isExtended }) => !isExtended);
  return real.filter((partition) => partitionNode(disk, partition) === null).length;
}
