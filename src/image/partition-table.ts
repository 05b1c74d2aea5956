/**
 * A disk cut along its partition table: partitions, and what lies before, between and after them.
 */
import { numberOf, type PartitionTable } from "../torrent/partition-table.ts";

/** A part of a disk: a partition, or what lies around them. Areas ascend and cover the disk. */
export interface Area {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Its index in the table's partitions (0 for a source without a table); -1 outside of all. */
  readonly partition: number;
  /** `partition 2`, `before partition 1`. */
  readonly name: string;
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
