/**
 * What an image takes of each part of its disk, and why: the table that `capture` ends with and that `inspect`
 * shows. It is worked out from what stands in the torrent, so that both say the same.
 */
import { parsePartitionTable, tableProblem } from "../torrent/partition-table.ts";
import type { ImageInfo, RangeTable } from "../torrent/types.ts";
import { type Area, areasOf } from "./partition-table.ts";

export interface AreaRow {
  readonly name: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** blkid's word; "" where nothing is known or no partition is. */
  readonly filesystem: string;
  readonly sentBytes: number;
  readonly zeroBytes: number;
  /** Unused: neither sent nor zeroed. */
  readonly unusedBytes: number;
  readonly why: string;
}

/** Rows in disk order that cover it; none where the image was captured without looking at its partitions. */
export function areaRows(image: ImageInfo, extents: RangeTable): AreaRow[] {
  if (image.filesystems === undefined) return [];
  const areas = areasOfImage(image);
  if (areas === null) return [];
  const sent = new RangeWalk(extents);
  const zero = new RangeWalk(image.zeroRanges);
  return areas.map((area) => {
    const endBytes = area.offsetBytes + area.lengthBytes;
    const sentBytes = sent.bytesUntil(endBytes);
    const zeroBytes = zero.bytesUntil(endBytes);
    const unusedBytes = area.lengthBytes - sentBytes - zeroBytes;
    const filesystem = area.partition < 0 ? "" : word(image.filesystems![area.partition]);
    const { name, offsetBytes, lengthBytes } = area;
    const why = reason(area, filesystem, unusedBytes > 0);
    return { name, offsetBytes, lengthBytes, filesystem, sentBytes, zeroBytes, unusedBytes, why };
  });
}

/** A torrent of somebody else may hold anything there; blkid's types are words. */
function word(type: string | undefined): string {
  return type !== undefined && /^[\w.+-]{1,32}$/.test(type) ? type : "";
}

/** Null where the torrent's table makes no sense: somebody else wrote it. */
function areasOfImage({ partitions, diskBytes, sectorBytes }: ImageInfo): Area[] | null {
  if (partitions === undefined) return areasOf(null, diskBytes);
  const table = parsePartitionTable(partitions, sectorBytes);
  if (typeof table === "string" || tableProblem(table, diskBytes) !== null) return null;
  return areasOf(table, diskBytes);
}

const ALL_BUT_ZEROS = "everything but zeros";

function reason(area: Area, filesystem: string, hasUnused: boolean): string {
  if (area.partition < 0)
    return area.offsetBytes === 0 ? "boot code and partition table" : `no partition: ${ALL_BUT_ZEROS}`;
  if (filesystem === "") return `nothing known in it: ${ALL_BUT_ZEROS}`;
  if (filesystem === "LVM2_member")
    return hasUnused ? "LVM: used blocks of its volumes, by partclone" : `LVM: ${ALL_BUT_ZEROS}`;
  if (hasUnused) return filesystem === "swap" ? "its header, swap holds nothing to keep" : "used blocks, by partclone";
  if (filesystem === "crypto_LUKS" || filesystem === "BitLocker") return `encrypted: ${ALL_BUT_ZEROS}`;
  return ALL_BUT_ZEROS;
}

/** Counts the bytes of ascending ranges area by area. */
class RangeWalk {
  #range = 0;
  #positionBytes = 0;

  constructor(readonly ranges: RangeTable) {}

  /** Bytes of the ranges from where the last call ended to `endBytes`. */
  bytesUntil(endBytes: number): number {
    const { diskOffsetBytes, lengthBytes, count } = this.ranges;
    let bytes = 0;
    for (; this.#range < count && diskOffsetBytes[this.#range] < endBytes; this.#range++) {
      const rangeEnd = diskOffsetBytes[this.#range] + lengthBytes[this.#range];
      bytes += Math.min(rangeEnd, endBytes) - Math.max(diskOffsetBytes[this.#range], this.#positionBytes);
      if (rangeEnd > endBytes) break;
    }
    this.#positionBytes = endBytes;
    return bytes;
  }
}
