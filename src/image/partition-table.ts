/**
 * The partition table of a disk as `sfdisk --json` tells it, and the disk cut along it: partitions, and what
 * lies before, between and after them. Reading tables is sfdisk's; this is what its answer means for an image.
 *
 * The text comes from a tool, or from a torrent that somebody else made: nothing in it is believed.
 */
import { PARTITIONS_MAX } from "../limits.ts";

export interface Partition {
  /** As in `/dev/sda3`. */
  readonly number: number;
  readonly startBytes: number;
  readonly lengthBytes: number;
  /** An extended partition: a frame around logical ones, with no content of its own. */
  readonly isExtended: boolean;
}

export interface PartitionTable {
  readonly label: string;
  /** In sfdisk's order, which is that of the filesystem types in a torrent. */
  readonly partitions: readonly Partition[];
}

/** A part of a disk: a partition, or what lies around them. Areas ascend and cover the disk. */
export interface Area {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Its index in the table's partitions (0 for a source without a table); -1 outside of all. */
  readonly partition: number;
  /** `partition 2`, `before partition 1`. */
  readonly name: string;
}

/** The type bytes of an extended partition in an MBR: CHS, LBA, Linux. */
const EXTENDED_TYPES = /^(?:5|f|85)$/i;
/** Partitions 1 to 4 of an MBR are in its own table, logical ones start at 5. */
const PRIMARY_MAX = 4;

/** Reads sfdisk's JSON. A problem, as words that follow "the partition table", where it makes no sense. */
export function parsePartitionTable(text: string, sectorBytes: number): PartitionTable | string {
  const table = tableOf(text);
  if (table === null) return "is not what sfdisk --json prints";
  const { label, unit, sectorsize, partitions = [] } = table;
  if (typeof label !== "string" || unit !== "sectors" || !Array.isArray(partitions))
    return "is not what sfdisk --json prints";
  if (sectorsize !== undefined && sectorsize !== sectorBytes)
    return `counts in sectors of ${String(sectorsize)} bytes, the disk in ${sectorBytes}`;
  if (partitions.length > PARTITIONS_MAX) return `has more than ${PARTITIONS_MAX} partitions`;
  const read: Partition[] = [];
  for (const entry of partitions as unknown[]) {
    const partition = partitionOf(entry, sectorBytes, label === "dos");
    if (partition === null) return "has a partition without number, start or size";
    read.push(partition);
  }
  return { label, partitions: read };
}

/** What sfdisk told without what depends on the name that the disk had on this machine, so that equal disks give equal torrents. */
export function portableTable(text: string): string {
  const { partitiontable } = JSON.parse(text) as { partitiontable: Record<string, unknown> };
  const { device: _device, partitions, ...rest } = partitiontable;
  const portable = ((partitions ?? []) as Record<string, unknown>[]).map((partition) => ({
    ...partition,
    node: String(numberOf(partition.node)),
  }));
  return JSON.stringify({ partitiontable: { ...rest, partitions: portable } });
}

/** What makes the table impossible on a disk of `diskBytes`, as words that follow "its partition", or null. */
export function tableProblem(table: PartitionTable, diskBytes: number): string | null {
  for (const { number, startBytes, lengthBytes } of table.partitions) {
    if (startBytes + lengthBytes > diskBytes) return `${number} ends beyond the disk`;
  }
  const primaries = table.label === "dos" ? table.partitions.filter(({ number }) => number <= PRIMARY_MAX) : [];
  return overlapOf(table.partitions.filter(({ isExtended }) => !isExtended)) ?? overlapOf(primaries);
}

/** Cuts the disk. Without a table, or with an empty one, it is one area. The table has no problem. */
export function areasOf(table: PartitionTable | null, diskBytes: number): Area[] {
  const partitions = (table?.partitions ?? [])
    .map((partition, index) => ({ ...partition, index }))
    .filter(({ isExtended }) => !isExtended)
    .sort((a, b) => a.startBytes - b.startBytes);
  if (partitions.length === 0) return [{ offsetBytes: 0, lengthBytes: diskBytes, partition: 0, name: "all of it" }];
  const areas: Area[] = [];
  let endBytes = 0;
  let before = 0;
  for (const { index, number, startBytes, lengthBytes } of partitions) {
    const name = before === 0 ? `before partition ${number}` : `between ${before} and ${number}`;
    if (startBytes > endBytes)
      areas.push({ offsetBytes: endBytes, lengthBytes: startBytes - endBytes, partition: -1, name });
    areas.push({ offsetBytes: startBytes, lengthBytes, partition: index, name: `partition ${number}` });
    endBytes = startBytes + lengthBytes;
    before = number;
  }
  const name = `after partition ${before}`;
  if (diskBytes > endBytes)
    areas.push({ offsetBytes: endBytes, lengthBytes: diskBytes - endBytes, partition: -1, name });
  return areas;
}

function tableOf(text: string): Record<string, unknown> | null {
  try {
    const json = JSON.parse(text) as { partitiontable?: unknown } | null;
    const table = json?.partitiontable;
    return typeof table === "object" && table !== null ? (table as Record<string, unknown>) : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function partitionOf(entry: unknown, sectorBytes: number, isMbr: boolean): Partition | null {
  if (typeof entry !== "object" || entry === null) return null;
  const { node, start, size, type } = entry as Record<string, unknown>;
  const number = numberOf(node);
  if (number < 1 || !isSectorCount(start, 0, sectorBytes) || !isSectorCount(size, 1, sectorBytes)) return null;
  const startBytes = start * sectorBytes;
  const lengthBytes = size * sectorBytes;
  if (!Number.isSafeInteger(startBytes + lengthBytes)) return null;
  const isExtended = isMbr && number <= PRIMARY_MAX && typeof type === "string" && EXTENDED_TYPES.test(type);
  return { number, startBytes, lengthBytes, isExtended };
}

/** The digits at the end of `/dev/nvme0n1p3`; 0 where there are none. */
function numberOf(node: unknown): number {
  return typeof node === "string" ? Number(/(\d{1,5})$/.exec(node)?.[1] ?? 0) : 0;
}

function isSectorCount(value: unknown, least: number, sectorBytes: number): value is number {
  return Number.isInteger(value) && (value as number) >= least && Number.isSafeInteger((value as number) * sectorBytes);
}

function overlapOf(partitions: readonly Partition[]): string | null {
  const sorted = [...partitions].sort((a, b) => a.startBytes - b.startBytes);
  for (let i = 1; i < sorted.length; i++) {
    const [before, after] = [sorted[i - 1], sorted[i]];
    if (before.startBytes + before.lengthBytes > after.startBytes) return `${after.number} overlaps ${before.number}`;
  }
  return null;
}
