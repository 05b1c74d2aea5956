/**
 * A GPT for a disk that is smaller than the image's, or counts in other sectors: written anew by sfdisk from what the
 * image says, with the same identifiers, types, names and attributes, and every partition at its byte.
 */
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { diskReader } from "../image/disk-reader.ts";
import { checkGpt } from "../image/gpt-check.ts";
import type { DiskLayout } from "../torrent/disk-layout.ts";
import type { Partition, PartitionTable } from "../torrent/partition-table.ts";
import { tableOn, type TargetDisk } from "./target-disk.ts";
import { change, fitFailure, SFDISK } from "./tools.ts";

/** Boot code and an MBR's signature: what sfdisk may not touch. */
const BOOT_CODE_BYTES = 440;
const MBR_BYTES = 512;

/** Throws Failure where the disk does not have the table afterwards. */
export async function rewriteGpt(
  disk: TargetDisk,
  layout: DiskLayout,
  imageSectorBytes: number,
): Promise<{ readonly hadHybridMbr: boolean }> {
  const script = gptScript(layout, disk.sectorBytes);
  const mbr = readBytes(disk.path, MBR_BYTES);
  // A table in the other sectors would lie beside the new one, for whoever looks there.
  if (imageSectorBytes !== disk.sectorBytes) {
    const ends = [imageSectorBytes, disk.sectorBytes].map((bytes) => bytes + layout.gptBytes(bytes));
    const firstBytes = Math.min(...layout.table.partitions.map(({ startBytes }) => startBytes));
    zero(disk.path, MBR_BYTES, Math.min(Math.max(...ends), firstBytes));
  }
  const quiet = ["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "--wipe-partitions", "never"];
  await change(SFDISK, [...quiet, disk.path], { input: script });
  const written = await tableOn(disk);
  const isSame = written !== null && describe(written) === describe(layout.table);
  const isBootCodeKept = readBytes(disk.path, BOOT_CODE_BYTES).equals(mbr.subarray(0, BOOT_CODE_BYTES));
  if (!isSame || !isBootCodeKept || !isSound(disk))
    throw fitFailure(
      "partition-table",
      `the GPT that sfdisk wrote to ${disk.path} is not the image's; look with sfdisk`,
    );
  return { hadHybridMbr: isHybrid(mbr) };
}

/** UEFI specification 2.10, 5.2.3: a protective MBR has one entry. */
function isHybrid(mbr: Buffer): boolean {
  return [0, 1, 2, 3].filter((entry) => mbr[446 + entry * 16 + 4] !== 0).length > 1;
}

/** What sfdisk reads. The layout has seen to it that identifiers and attributes are such. */
export function gptScript(layout: DiskLayout, sectorBytes: number): string {
  const { id, entriesMax, firstSector, partitions } = layout.table;
  const leastFirst = 1 + layout.gptBytes(sectorBytes) / sectorBytes;
  const lowest = Math.min(...partitions.map(({ startBytes }) => startBytes / sectorBytes));
  const first = Math.max(leastFirst, Math.min(firstSector, lowest));
  const head = ["label: gpt", `label-id: ${id}`, "unit: sectors", `table-length: ${entriesMax}`, `first-lba: ${first}`];
  return [...head, ...partitions.map((partition) => lineOf(partition, sectorBytes)), ""].join("\n");
}

function lineOf(partition: Partition, sectorBytes: number): string {
  const { number, startBytes, lengthBytes, type, uuid, name, attributes } = partition;
  const fields = [
    `start=${startBytes / sectorBytes}`,
    `size=${lengthBytes / sectorBytes}`,
    `type=${type}`,
    `uuid=${uuid}`,
  ];
  if (name !== "") fields.push(`name="${escaped(name)}"`);
  if (attributes !== "") fields.push(`attrs="${attributes}"`);
  return `${number} : ${fields.join(", ")}`;
}

/** sfdisk reads `\x22` as a byte of UTF-8. */
function escaped(name: string): string {
  const bytes = [...Buffer.from(name)];
  const isPlain = (byte: number) => /[\w .+-]/.test(String.fromCharCode(byte)) && byte < 0x80;
  return bytes
    .map((byte) => (isPlain(byte) ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`))
    .join("");
}

/** Everything of a table that must not have changed. */
function describe({ id, partitions }: PartitionTable): string {
  const sorted = [...partitions].sort((a, b) => a.number - b.number);
  return JSON.stringify([id, sorted]).toLowerCase();
}

function isSound(disk: TargetDisk): boolean {
  const fd = openSync(disk.path, "r");
  try {
    const gpt = checkGpt(diskReader(fd), disk.sizeBytes, disk.sectorBytes);
    const endBytes = disk.sizeBytes - (disk.sizeBytes % disk.sectorBytes);
    return gpt?.primary === null && gpt.backup === null && gpt.backupOffsetBytes === endBytes - disk.sectorBytes;
  } finally {
    closeSync(fd);
  }
}

function readBytes(path: string, lengthBytes: number): Buffer {
  const fd = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(lengthBytes);
    readSync(fd, bytes, 0, lengthBytes, 0);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function zero(path: string, startBytes: number, endBytes: number): void {
  const fd = openSync(path, "r+");
  try {
    writeSync(fd, Buffer.alloc(endBytes - startBytes), 0, endBytes - startBytes, startBytes);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
