/**
 * What an image asks of a disk that differs from the one it was taken of: how small it may be, and whether it
 * may have sectors of another size. Worked out from what stands in the torrent, before anything is written.
 */
import { DROPPED_BYTES_MAX } from "../limits.ts";
import { type Partition, type PartitionTable, parsePartitionTable, tableProblem } from "./partition-table.ts";
import type { ExtentTable, ImageInfo, Metainfo } from "./types.ts";

/** UEFI specification 2.10, 5.3.3. */
const GPT_ENTRY_BYTES = 128;
/** Windows mounts these on sectors of the size that they were made for alone. */
const BOUND_TO_SECTORS: ReadonlySet<string> = new Set(["ntfs", "exfat", "BitLocker"]);
/** Made of memory pages, whatever the sectors are. */
const SWAP = "swap";

export class DiskLayout {
  private constructor(
    readonly table: PartitionTable,
    private readonly image: ImageInfo,
    private readonly extents: ExtentTable,
  ) {}

  /** Null where the torrent does not say what partitions there are, or says what cannot be. */
  static of({ image, extents }: Metainfo): DiskLayout | null {
    if (image?.partitions === undefined) return null;
    const table = parsePartitionTable(image.partitions, image.sectorBytes);
    if (typeof table === "string" || table.partitions.length === 0 || !canBeWritten(table)) return null;
    return tableProblem(table, image.diskBytes) === null ? new DiskLayout(table, image, extents) : null;
  }

  get isGpt(): boolean {
    return this.table.label === "gpt";
  }

  /** Where the last partition ends. */
  get endBytes(): number {
    return Math.max(...this.table.partitions.map(endOf));
  }

  /** Bytes of one copy of the GPT's header and entries; 0 for an MBR. */
  gptBytes(sectorBytes: number): number {
    if (!this.isGpt) return 0;
    return (1 + Math.ceil((this.table.entriesMax * GPT_ENTRY_BYTES) / sectorBytes)) * sectorBytes;
  }

  /** How small a disk may be: its partitions and the backup of its table fit, and what is dropped is no more than a table. */
  leastBytes(sectorBytes: number): number {
    const round = (bytes: number) => Math.ceil(bytes / sectorBytes) * sectorBytes;
    return Math.max(round(this.endBytes) + this.gptBytes(sectorBytes), round(endWithout(this.extents)));
  }

  /** Why the disk may not be smaller, as words that follow "the image needs N bytes: ". */
  leastReason(sectorBytes: number): string {
    const { endBytes } = this;
    return this.leastBytes(sectorBytes) > endBytes + this.gptBytes(sectorBytes) + sectorBytes
      ? `behind its last partition, which ends at byte ${endBytes}, it holds data (zero what is of no use there and capture again)`
      : `its last partition ends at byte ${endBytes}`;
  }

  /** Why its table cannot be made one of other sectors, as words that follow "cannot be converted: ", or null. */
  conversionProblem(sectorBytes: number): string | null {
    if (!this.isGpt) return "only a GPT is, and its table is an MBR";
    const { table, image } = this;
    const firstBytes = sectorBytes + this.gptBytes(sectorBytes);
    for (const [index, partition] of table.partitions.entries()) {
      const { number, startBytes, lengthBytes } = partition;
      if (startBytes % sectorBytes !== 0 || lengthBytes % sectorBytes !== 0)
        return `partition ${number} begins or ends inside a sector of ${sectorBytes} bytes`;
      if (startBytes < firstBytes) return `partition ${number} begins where the larger table would be`;
      const problem = this.contentProblem(partition, index, sectorBytes < image.sectorBytes, sectorBytes);
      if (problem !== null) return `partition ${number} ${problem}`;
    }
    return null;
  }

  private contentProblem(partition: Partition, index: number, isFiner: boolean, sectorBytes: number): string | null {
    const type = this.image.filesystems?.[index] ?? "";
    const blockBytes = this.image.blockBytes?.[index] ?? 0;
    if (BOUND_TO_SECTORS.has(type)) return `holds ${type}, which Windows reads on sectors of its own size alone`;
    // Whatever was made for coarser sectors is read and written in multiples of the finer ones.
    if (isFiner || type === SWAP || blockBytes >= sectorBytes) return null;
    if (blockBytes > 0) return `holds ${type} in blocks of ${blockBytes} bytes, which cannot be mounted there`;
    if (type === "" && !hasData(this.extents, partition)) return null;
    return `holds ${type === "" ? "something unknown" : type}, which may count in sectors of ${this.image.sectorBytes} bytes`;
  }
}

/** A GPT is rewritten from these texts, which somebody else may have made. */
function canBeWritten({ label, id, partitions }: PartitionTable): boolean {
  if (label !== "gpt") return true;
  const isGuid = (text: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
  return (
    isGuid(id) &&
    partitions.every(({ type, uuid, attributes }) => isGuid(type) && isGuid(uuid) && /^[\w:, ]*$/.test(attributes))
  );
}

function endOf({ startBytes, lengthBytes }: Partition): number {
  return startBytes + lengthBytes;
}

/** Where the data ends when the last DROPPED_BYTES_MAX bytes of it are left out. */
function endWithout({ count, diskOffsetBytes, lengthBytes }: ExtentTable): number {
  let left = DROPPED_BYTES_MAX;
  for (let i = count - 1; i >= 0; i--) {
    if (lengthBytes[i] > left) return diskOffsetBytes[i] + lengthBytes[i] - left;
    left -= lengthBytes[i];
  }
  return 0;
}

function hasData({ count, diskOffsetBytes, lengthBytes }: ExtentTable, partition: Partition): boolean {
  for (let i = 0; i < count && diskOffsetBytes[i] < endOf(partition); i++)
    if (diskOffsetBytes[i] + lengthBytes[i] > partition.startBytes) return true;
  return false;
}
