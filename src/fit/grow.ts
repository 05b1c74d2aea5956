/**
 * `--grow`: the last partition takes the space behind it, and its filesystem the partition. Tables are sfdisk's,
 * filesystems each their own tool's.
 */
import { readSignature } from "../image/signature.ts";
import type { Partition, PartitionTable } from "../torrent/partition-table.ts";
import { formatBytes, MiB } from "../units.ts";
import { type Grower, growerOf } from "./grow-filesystem.ts";
import { type DiskPart, openPart, readTable, rereadPartitions, type TargetDisk } from "./target-disk.ts";
import { change, fitFailure, SFDISK } from "./tools.ts";

/** Partitions end at multiples of this, as every partitioning tool makes them. */
const ALIGN_BYTES = 1 * MiB;
/** Start and length of an MBR's partition are 32 bits of sectors. */
const MBR_SECTORS_MAX = 2 ** 32 - 1;

export interface Grown {
  /** As in /dev/sda3; 0: the filesystem covers the disk or partition. */
  readonly number: number;
  readonly filesystem: string;
  readonly fromBytes: number;
  readonly toBytes: number;
}

/** `imageBytes`: how large the disk of the image was. Null: there is nothing to grow. Throws Failure. */
export async function grow(disk: TargetDisk, imageBytes: number): Promise<Grown | null> {
  const table = await readTable(disk);
  return table === null ? growWhole(disk, imageBytes) : growLast(disk, table);
}

/** A filesystem without a partition table around it. */
async function growWhole(disk: TargetDisk, imageBytes: number): Promise<Grown | null> {
  if (disk.sizeBytes <= imageBytes) return null;
  const part = { startBytes: 0, lengthBytes: disk.sizeBytes };
  const { grower, type } = await growerFor(disk, part, disk.path);
  await growFilesystem(disk, part, grower);
  return { number: 0, filesystem: type, fromBytes: imageBytes, toBytes: disk.sizeBytes };
}

async function growLast(disk: TargetDisk, table: PartitionTable): Promise<Grown | null> {
  const last = lastPartition(table);
  const endBytes = last.startBytes + last.lengthBytes;
  const newEndBytes = Math.floor(limitBytes(disk, table, last) / ALIGN_BYTES) * ALIGN_BYTES;
  if (newEndBytes <= endBytes) {
    if (table.label === "gpt" && disk.sizeBytes - endBytes >= 2 * ALIGN_BYTES)
      throw fitFailure("grow", `the GPT of ${disk.path} does not reach to the disk's end`);
    return null;
  }
  const free = formatBytes(newEndBytes - endBytes);
  const name = `the last partition of ${disk.path}, ${last.number}, before ${free} of free space,`;
  const { grower, type } = await growerFor(disk, last, name);
  // A logical partition lies in the frame of the extended one, which grows first.
  const frames = last.number > 4 ? table.partitions.filter(({ isExtended }) => isExtended) : [];
  for (const { number, startBytes } of [...frames, last]) await resizePartition(disk, number, newEndBytes - startBytes);
  await rereadPartitions(disk);
  const part = { startBytes: last.startBytes, lengthBytes: newEndBytes - last.startBytes };
  await growFilesystem(disk, part, grower);
  return { number: last.number, filesystem: type, fromBytes: last.lengthBytes, toBytes: part.lengthBytes };
}

function lastPartition(table: PartitionTable): Partition {
  const real = table.partitions.filter(({ isExtended }) => !isExtended);
  return real.reduce((last, one) => (one.startBytes > last.startBytes ? one : last));
}

/** Where a partition may end. */
function limitBytes(disk: TargetDisk, table: PartitionTable, last: Partition): number {
  if (table.label === "gpt") return (table.lastSector + 1) * disk.sectorBytes;
  return Math.min(
    disk.sizeBytes,
    last.startBytes + MBR_SECTORS_MAX * disk.sectorBytes,
    (MBR_SECTORS_MAX + 1) * disk.sectorBytes,
  );
}

async function growerFor(disk: TargetDisk, part: DiskPart, name: string): Promise<{ grower: Grower; type: string }> {
  const place = { offsetBytes: part.startBytes, lengthBytes: part.lengthBytes };
  const { type } = await readSignature(disk.path, place, new AbortController().signal);
  const grower = growerOf(type);
  if (typeof grower === "string") throw fitFailure("grow", `${name} is not grown: ${grower}`);
  return { grower, type };
}

async function resizePartition(disk: TargetDisk, number: number, lengthBytes: number): Promise<void> {
  const words = ["--quiet", "--no-reread", "--no-tell-kernel", "-N", String(number), disk.path];
  await change(SFDISK, words, { input: `size=${lengthBytes / disk.sectorBytes}\n` });
  const now = (await readTable(disk))?.partitions.find((partition) => partition.number === number);
  if (now?.lengthBytes !== lengthBytes)
    throw fitFailure("grow", `sfdisk did not make partition ${number} of ${disk.path} ${lengthBytes} bytes long`);
}

async function growFilesystem(disk: TargetDisk, part: DiskPart, grower: Grower): Promise<void> {
  const view = await openPart(disk, part);
  try {
    await grower(view.path);
  } finally {
    view.close();
  }
}
