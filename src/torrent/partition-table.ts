/**
 * The partition table of a disk as `sfdisk --json` tells it: reading it, and whether it makes sense. Reading
 * tables on disks is sfdisk's; this is what its answer means for an image.
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
  /** A GUID, or an MBR's type byte in hex. */
  readonly type: string;
  /** What a GPT tells besides, as sfdisk writes it; empty texts where there is none. */
  readonly uuid: string;
  readonly name: string;
  readonly attributes: string;
}

export interface PartitionTable {
  /** `gpt`, `dos` or another word of sfdisk's. */
  readonly label: string;
  /** The disk's GUID, or an MBR's signature. */
  readonly id: string;
  /** Entries that a GPT has room for. */
  readonly entriesMax: number;
  /** The first sector that a GPT lets a partition begin at; 0 where it does not say. */
  readonly firstSector: number;
  /** And the last that one may end with. */
  readonly lastSector: number;
  /** In sfdisk's order, which is that of the filesystem types in a torrent. */
  readonly partitions: readonly Partition[];
}

/** The type bytes of an extended partition in an MBR: CHS, LBA, Linux. */
const EXTENDED_TYPES = /^(?:5|f|85)$/i;
/** Partitions 1 to 4 of an MBR are in its own table, logical ones start at 5. */
const PRIMARY_MAX = 4;
/** What a GPT has unless it says otherwise. */
const GPT_ENTRIES = 128;
/** 4 MiB of entries: no disk has so many. */
const GPT_ENTRIES_MAX = 32_768;
/** A name has 36 characters and attributes are a few words. */
const TEXT_LENGTH_MAX = 300;

/** Reads sfdisk's JSON. A problem, as words that follow "the partition table", where it makes no sense. */
export function parsePartitionTable(text: string, sectorBytes: number): PartitionTable | string {
  const table = tableOf(text);
  if (table === null) return "is not what sfdisk --json prints";
  const { label, unit, sectorsize, id, firstlba, lastlba, partitions = [] } = table;
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
  const entriesMax = Number(table["table-length"] ?? GPT_ENTRIES);
  if (!Number.isInteger(entriesMax) || entriesMax < 1 || entriesMax > GPT_ENTRIES_MAX)
    return `has room for ${String(table["table-length"]).slice(0, 20)} partitions`;
  const firstSector = isSectorCount(firstlba, 0, sectorBytes) ? firstlba : 0;
  const lastSector = isSectorCount(lastlba, 0, sectorBytes) ? lastlba : 0;
  return { label, id: textOf(id), entriesMax, firstSector, lastSector, partitions: read };
}

/** What makes the table impossible on a disk of `diskBytes`, as words that follow "its partition", or null. */
export function tableProblem(table: PartitionTable, diskBytes: number): string | null {
  for (const { number, startBytes, lengthBytes } of table.partitions) {
    if (startBytes + lengthBytes > diskBytes) return `${number} ends beyond the disk`;
  }
  const primaries = table.label === "dos" ? table.partitions.filter(({ number }) => number <= PRIMARY_MAX) : [];
  return overlapOf(table.partitions.filter(({ isExtended }) => !isExtended)) ?? overlapOf(primaries);
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
  const { node, start, size, type, uuid, name, attrs } = entry as Record<string, unknown>;
  const number = numberOf(node);
  if (number < 1 || !isSectorCount(start, 0, sectorBytes) || !isSectorCount(size, 1, sectorBytes)) return null;
  const startBytes = start * sectorBytes;
  const lengthBytes = size * sectorBytes;
  if (!Number.isSafeInteger(startBytes + lengthBytes)) return null;
  const isExtended = isMbr && number <= PRIMARY_MAX && typeof type === "string" && EXTENDED_TYPES.test(type);
  const texts = { type: textOf(type), uuid: textOf(uuid), name: textOf(name), attributes: textOf(attrs) };
  return { number, startBytes, lengthBytes, isExtended, ...texts };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value.slice(0, TEXT_LENGTH_MAX) : "";
}

/** The digits at the end of `/dev/nvme0n1p3`; 0 where there are none. */
export function numberOf(node: unknown): number {
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
