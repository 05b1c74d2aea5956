/**
 * The filesystems of a disk that was just written, opened one after the other to be read. Nothing is changed: journals
 * are not replayed, since the disk is proven as it is.
 */
import { mountDetached } from "../../fit/mounted.ts";
import { Rooted } from "../../fit/rooted.ts";
import { type DiskPart, openPart, readTable, type TargetDisk } from "../../fit/target-disk.ts";
import { readSignature } from "../../image/signature.ts";
import type { Partition, PartitionTable } from "../../torrent/partition-table.ts";

/** By type the options that keep a mount from writing. */
const READ_ONLY: Readonly<Record<string, readonly string[]>> = {
  ext2: ["ro"],
  ext3: ["ro", "noload"],
  ext4: ["ro", "noload"],
  xfs: ["ro", "norecovery", "nouuid"],
  btrfs: ["ro"],
  f2fs: ["ro"],
  vfat: ["ro"],
};

export interface Inside {
  readonly files: Rooted;
  /** Where it is, `partition 2`. */
  readonly name: string;
  /** As the kernel takes it after `root=`; null without a partition table. */
  readonly partUuid: string | null;
}

/** Why a part cannot be looked into. */
export class Unreadable {
  constructor(readonly problem: string) {}
}

/** Runs `visit` on what a part holds, where that can be read. */
export async function lookInside<T>(
  disk: TargetDisk,
  part: DiskPart,
  visit: (files: Rooted) => Promise<T> | T,
): Promise<T | Unreadable> {
  const place = { offsetBytes: part.startBytes, lengthBytes: part.lengthBytes };
  const { type } = await readSignature(disk.path, place, new AbortController().signal);
  const flags = READ_ONLY[type];
  if (flags === undefined) return new Unreadable(type === "" ? "it holds no filesystem" : `it holds ${type}`);
  const view = await openPart(disk, part);
  try {
    const mounted = await mountDetached(view.path, type, flags);
    if (typeof mounted === "string") return new Unreadable(`its ${type} cannot be mounted: ${mounted}`);
    try {
      // Programs that are started are to find it too: for them /proc/self is another. The descriptor itself is a link.
      return await visit(new Rooted(`${mounted.folder.replace("/proc/self/", `/proc/${process.pid}/`)}/.`));
    } finally {
      mounted.close();
    }
  } finally {
    view.close();
  }
}

/** Visits every filesystem in the order of the partitions, until `visit` returns something. `problems` tells of the others. */
export async function lookThrough<T>(
  disk: TargetDisk,
  problems: string[],
  visit: (inside: Inside) => Promise<T | null> | T | null,
): Promise<T | null> {
  const table = await readTable(disk);
  const whole = { startBytes: 0, lengthBytes: disk.sizeBytes };
  const places =
    table === null
      ? [{ part: whole, name: "all of it", partUuid: null }]
      : table.partitions
          .filter(({ isExtended }) => !isExtended)
          .map((part) => ({ part, name: `partition ${part.number}`, partUuid: partUuidOf(table, part) }));
  for (const { part, name, partUuid } of places) {
    const found = await lookInside(disk, part, (files) => visit({ files, name, partUuid }));
    if (found instanceof Unreadable) problems.push(`${name}: ${found.problem}`);
    else if (found !== null) return found;
  }
  return null;
}

/** What the kernel calls PARTUUID: of an MBR the disk's signature and the number. */
function partUuidOf(table: PartitionTable, { uuid, number }: Partition): string {
  return table.label === "gpt" ? uuid : `${table.id.replace(/^0x/, "")}-${number.toString(16).padStart(2, "0")}`;
}
