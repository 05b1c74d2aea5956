/** Whole disks as installers leave them: partition table, boot code, filesystems, swap, with old bytes everywhere else. */
import { expect } from "bun:test";
import { openSync, closeSync } from "node:fs";
import { expectSame, gapsBetween } from "./compare.ts";
import { digestsOf, type Filesystem, filesystemOf, partcloneRuns, type TestFile, testFiles } from "./filesystems.ts";
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

/** GPT with an EFI system partition, ext4, XFS and swap, and 30 MiB that belong to no partition. */
export async function gptDisk(scope: Scope, options: DiskOptions = {}): Promise<Disk> {
  return makeDisk(
    scope,
    640 * MIB,
    ["label: gpt", "size=64M, type=U", "size=128M, type=L", "size=320M, type=L", "size=96M, type=S"],
    ["vfat", "ext4", "xfs", "swap"],
    options,
  );
}

/** GPT with an EFI system partition and ext4: as small as they come. */
export async function smallDisk(scope: Scope): Promise<Disk> {
  return makeDisk(scope, 112 * MIB, ["label: gpt", "size=36M, type=U", "size=64M, type=L"], ["vfat", "ext4"], {
    fileBytes: 0.5 * MIB,
  });
}

/** MBR with boot code, a bootable NTFS and an extended partition that holds ext4 and swap. */
export async function mbrDisk(scope: Scope, options: DiskOptions = {}): Promise<Disk> {
  const script = [
    "label: dos",
    "1: size=96M, type=7, bootable",
    "2: size=150M, type=f",
    "5: size=96M, type=83",
    "6: size=40M, type=82",
  ];
  const disk = await makeDisk(scope, 256 * MIB, script, ["ntfs", "", "ext4", "swap"], options);
  const fd = openSync(disk.path, "r+");
  // The MBR's code, and what GRUB embeds behind it.
  writeFully(fd, randomBytes(440, 77), 0);
  writeFully(fd, randomBytes(100_000, 78), 512);
  closeSync(fd);
  return disk;
}

export interface DiskOptions {
  readonly sectorBytes?: 512 | 4096;
  /** Zeros behind the last partition, as on a disk that was never used there. */
  readonly hasCleanEnd?: boolean;
  /** Commands that make a filesystem of that type otherwise than usual; the device goes behind them. */
  readonly make?: Readonly<Record<string, readonly string[]>>;
  /** About how long each file is. */
  readonly fileBytes?: number;
}

/** A disk by a script of sfdisk's; `types` by partition in the order of the script. */
export async function makeDisk(
  scope: Scope,
  lengthBytes: number,
  script: readonly string[],
  types: readonly string[],
  options: DiskOptions = {},
): Promise<Disk> {
  needTools("sfdisk", "sgdisk");
  const { sectorBytes = 512, hasCleanEnd = false } = options;
  const { path } = loopDevice(scope, lengthBytes, { dirty: 3, sectorBytes });
  const made = Bun.spawnSync(["sfdisk", "--quiet", "--wipe", "always", path], {
    stdin: Buffer.from(script.join("\n")),
  });
  if (made.exitCode !== 0) throw new Error(`sfdisk: ${made.stderr.toString()}`);
  const partitions = partitionsOf(path).map((partition, i) => ({ ...partition, type: types[i] }));
  const files = testFiles(12, options.fileBytes ?? 1 * MIB);
  for (const partition of partitions) await fillPartition(path, partition, files, options);
  if (hasCleanEnd)
    zeroEnd(path, Math.max(...partitions.map((part) => part.offsetBytes + part.lengthBytes)), lengthBytes);
  return { path, lengthBytes, partitions, files };
}

/** Up to the backup of a GPT. */
function zeroEnd(path: string, startBytes: number, diskBytes: number): void {
  const fd = openSync(path, "r+");
  writeFully(fd, Buffer.alloc(diskBytes - MIB - startBytes), startBytes);
  writeFully(fd, Buffer.alloc(MIB - 64 * 1024), diskBytes - MIB);
  closeSync(fd);
}

async function fillPartition(
  disk: string,
  partition: DiskPartition,
  files: readonly TestFile[],
  { sectorBytes, make = {} }: DiskOptions,
): Promise<void> {
  if (partition.type === "") return;
  const scope = new Scope();
  try {
    const device = loopPart(scope, disk, partition, sectorBytes);
    if (partition.type === "swap") {
      run(["mkswap", device]);
      return;
    }
    const filesystem: Filesystem = filesystemOf(partition.type);
    if (Object.hasOwn(make, partition.type)) run([...make[partition.type], device]);
    else filesystem.make(device);
    await filesystem.fill(device, files);
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
    partitiontable: { sectorsize?: number; partitions: SfdiskPartition[] };
  };
  const { sectorsize = 512 } = partitiontable;
  return partitiontable.partitions.map(({ node, start, size }) => ({
    number: Number(/\d+$/.exec(node)![0]),
    offsetBytes: start * sectorsize,
    lengthBytes: size * sectorsize,
  }));
}

/** Everything outside of partitions from `fromBytes`, and of each partition what it holds. */
export async function expectSameDisk(target: string, disk: Disk, fromBytes = 0): Promise<void> {
  const contents = disk.partitions.filter(({ type }) => type !== "");
  const head = { offsetBytes: 0, lengthBytes: fromBytes };
  expectSame(target, disk.path, gapsBetween([head, ...contents], disk.lengthBytes));
  expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
  for (const partition of contents) await expectSamePartition(target, disk, partition);
}

export async function expectSamePartition(target: string, disk: Disk, partition: DiskPartition): Promise<void> {
  const scope = new Scope();
  try {
    const device = loopPart(scope, target, partition);
    if (partition.type === "swap") {
      expectSame(target, disk.path, [{ offsetBytes: partition.offsetBytes, lengthBytes: 4096 }]);
      expect(run(["blkid", "-p", "-o", "value", "-s", "TYPE", device]).trim()).toBe("swap");
      return;
    }
    const filesystem = filesystemOf(partition.type);
    const original = loopPart(scope, disk.path, partition);
    expectSame(device, original, partcloneRuns(filesystem, original).runs);
    filesystem.check(device);
    expect(await filesystem.digests(device)).toEqual(digestsOf(disk.files));
  } finally {
    await scope.close();
  }
}
