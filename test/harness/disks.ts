/** Whole disks as installers leave them: partition table, boot code, filesystems, swap, with old bytes everywhere else. */
import { openSync, closeSync } from "node:fs";
import { type Filesystem, filesystemOf, type TestFile, testFiles } from "./filesystems.ts";
import { type Extent, randomBytes, writeFully } from "./image.ts";
import { loopDevice, loopPart } from "./loop.ts";
import { Scope } from "./scope.ts";
import { run } from "./process.ts";
import { needTools } from "./tools.ts";

const MIB = 1024 * 1024;

export interface DiskPartition extends Extent {
  readonly number: number;
  /** blkid's word; "" for an extended partition. */
  readonly type: string;
}

export interface Disk {
  readonly path: string;
  readonly lengthBytes: number;
  readonly partitions: readonly DiskPartition[];
  readonly files: readonly TestFile[];
}

const FILES = testFiles(12, 1 * MIB);

/** GPT with an EFI system partition, ext4, XFS and swap, and 30 MiB that belong to no partition. */
export async function gptDisk(scope: Scope): Promise<Disk> {
  return makeDisk(
    scope,
    640 * MIB,
    ["label: gpt", "size=64M, type=U", "size=128M, type=L", "size=320M, type=L", "size=96M, type=S"],
    ["vfat", "ext4", "xfs", "swap"],
  );
}

/** MBR with boot code, a bootable NTFS and an extended partition that holds ext4 and swap. */
export async function mbrDisk(scope: Scope): Promise<Disk> {
  const script = [
    "label: dos",
    "1: size=96M, type=7, bootable",
    "2: size=150M, type=f",
    "5: size=96M, type=83",
    "6: size=40M, type=82",
  ];
  const disk = await makeDisk(scope, 256 * MIB, script, ["ntfs", "", "ext4", "swap"]);
  const fd = openSync(disk.path, "r+");
  // The MBR's code, and what GRUB embeds behind it.
  writeFully(fd, randomBytes(440, 77), 0);
  writeFully(fd, randomBytes(100_000, 78), 512);
  closeSync(fd);
  return disk;
}

/** `types` by partition in the order of the script. */
async function makeDisk(scope: Scope, lengthBytes: number, script: string[], types: string[]): Promise<Disk> {
  needTools("sfdisk", "sgdisk");
  const { path } = loopDevice(scope, lengthBytes, { dirty: 3 });
  const made = Bun.spawnSync(["sfdisk", "--quiet", "--wipe", "always", path], {
    stdin: Buffer.from(script.join("\n")),
  });
  if (made.exitCode !== 0) throw new Error(`sfdisk: ${made.stderr.toString()}`);
  const partitions = partitionsOf(path).map((partition, i) => ({ ...partition, type: types[i] }));
  for (const partition of partitions) await fillPartition(path, partition);
  return { path, lengthBytes, partitions, files: FILES };
}

async function fillPartition(disk: string, partition: DiskPartition): Promise<void> {
  if (partition.type === "") return;
  const scope = new Scope();
  try {
    const device = loopPart(scope, disk, partition);
    if (partition.type === "swap") {
      run(["mkswap", device]);
      return;
    }
    const filesystem: Filesystem = filesystemOf(partition.type);
    filesystem.make(device);
    await filesystem.fill(device, FILES);
  } finally {
    await scope.close();
  }
}

interface SfdiskPartition {
  readonly node: string;
  readonly start: number;
  readonly size: number;
}

/** As sfdisk sees them now. */
export function partitionsOf(disk: string): Omit<DiskPartition, "type">[] {
  const { partitiontable } = JSON.parse(run(["sfdisk", "--json", disk])) as {
    partitiontable: { partitions: SfdiskPartition[] };
  };
  return partitiontable.partitions.map(({ node, start, size }) => ({
    number: Number(/\d+$/.exec(node)![0]),
    offsetBytes: start * 512,
    lengthBytes: size * 512,
  }));
}
