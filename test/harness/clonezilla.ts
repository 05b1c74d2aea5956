/** Image folders as Clonezilla's ocs-functions saves a disk: its names, its commands, its mistake with the second GPT. */
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Disk, DiskPartition } from "./disks.ts";
import { filesystemOf } from "./filesystems.ts";
import { loopPart } from "./loop.ts";
import { run } from "./process.ts";
import { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";

export interface SaveOptions {
  /** The compressor and its suffix; none: not compressed. */
  readonly codec?: "gz" | "zst";
  /** As `split -b` takes it; none: not split. */
  readonly split?: string;
  /** Partitions that are saved by partclone.dd, as those that no partclone knows. */
  readonly raw?: readonly number[];
}

const COMPRESS = { gz: "gzip -c -1", zst: "zstd -c -q -1" };
const SECTOR_BYTES = 512;

/** Saves the disk under the name `sda`. Returns the folder. */
export async function saveClonezilla(disk: Disk, folder: string, options: SaveOptions): Promise<string> {
  needTools("sfdisk", "parted", "partclone.dd", "split", "gzip", "zstd");
  const named = (text: string) => text.replaceAll(`${disk.path}p`, "/dev/sda").replaceAll(disk.path, "/dev/sda");
  const dump = run(["sfdisk", "-d", disk.path]);
  writeFileSync(join(folder, "disk"), "sda\n");
  writeFileSync(join(folder, "sda-pt.sf"), named(dump));
  writeFileSync(join(folder, "sda-pt.parted"), named(run(["parted", "-s", disk.path, "unit", "s", "print"])));
  const sectors = disk.lengthBytes / SECTOR_BYTES;
  copySectors(disk.path, join(folder, "sda-mbr"), 0, 1);
  if (/^label: gpt/m.test(dump)) {
    copySectors(disk.path, join(folder, "sda-gpt-1st"), 0, 34);
    copySectors(disk.path, join(folder, "sda-gpt-2nd"), sectors - 33 + 1, 33);
  } else {
    const first = Math.min(...disk.partitions.map(({ offsetBytes }) => offsetBytes)) / SECTOR_BYTES;
    copySectors(disk.path, join(folder, "sda-hidden-data-after-mbr"), 1, first - 1);
  }
  const saved = disk.partitions.filter(({ type }) => type !== "" && type !== "swap");
  writeFileSync(join(folder, "parts"), `${saved.map(({ number }) => `sda${number}`).join(" ")}\n`);
  for (const partition of disk.partitions) await savePartition(disk.path, partition, folder, options);
  return folder;
}

function copySectors(device: string, path: string, skip: number, count: number): void {
  run(["dd", `if=${device}`, `of=${path}`, "bs=512", `skip=${skip}`, `count=${count}`, "status=none"]);
}

async function savePartition(
  disk: string,
  partition: DiskPartition,
  folder: string,
  options: SaveOptions,
): Promise<void> {
  const scope = new Scope();
  const { number, type } = partition;
  try {
    const device = loopPart(scope, disk, partition);
    if (type === "") copySectors(device, join(folder, `sda${number}-ebr`), 0, 1);
    else if (type === "swap") {
      const value = (tag: string) => run(["blkid", "-p", "-o", "value", "-s", tag, device]).trim();
      writeFileSync(join(folder, `swappt-sda${number}.info`), `UUID="${value("UUID")}"\nLABEL=""\n`);
    } else if (options.raw?.includes(number))
      saveImage(`partclone.dd -q -f 0 -L /dev/null -s ${device} -o -`, join(folder, `sda${number}.dd-img`), options);
    else {
      const { partclone } = filesystemOf(type);
      const suffix = options.codec ?? "uncomp";
      saveImage(partcloneTo("-", partclone, device), join(folder, `sda${number}.${type}-ptcl-img.${suffix}`), options);
    }
  } finally {
    await scope.close();
  }
}

/** The words of partclone that clone a filesystem to a file. */
export function partcloneTo(output: string, partclone: string, device: string): string {
  return `${partclone} -c -q -f 0 -L /dev/null -s ${device} -o ${output}`;
}

function saveImage(command: string, path: string, { codec, split }: SaveOptions): void {
  const compressed = codec === undefined ? "" : ` | ${COMPRESS[codec]}`;
  const end = split === undefined ? ` > ${path}` : ` | split -a 2 -b ${split} - ${path}.`;
  run(["bash", "-o", "pipefail", "-c", `${command} 2>/dev/null${compressed}${end}`]);
}

/** The files of a folder that begin like that, sorted. */
export function filesLike(folder: string, prefix: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix))
    .sort()
    .map((name) => join(folder, name));
}
