/**
 * Whether the firmware will start what is on the disk. A disk that is proven byte for byte does not boot where it has no
 * boot code for a BIOS, or where UEFI knows no loader on it; better to hear of it while the machine is still ours.
 *
 * Where UEFI needs an entry it is made with efibootmgr and read back. Nothing here is a failure of the deployment.
 */
import { closeSync, openSync, readdirSync, readSync } from "node:fs";
import { readTable, type TargetDisk } from "../../fit/target-disk.ts";
import type { Tool } from "../../image/external-tool.ts";
import type { Partition, PartitionTable } from "../../torrent/partition-table.ts";
import { entryFor, type Loader, parseBootEntries, removableLoader, systemLoaders } from "./efi-loader.ts";
import type { InstalledFiles } from "./installed-files.ts";
import { lookInside, Unreadable } from "./look-inside.ts";
import { askTool } from "./node-tool.ts";

export interface BootCheck {
  /** Null: the firmware will start it, as far as can be seen. */
  readonly problem: string | null;
  /** What was found or done, for people. */
  readonly note: string | null;
}

/** Partition types of an EFI system partition, by table. */
const ESP_TYPES: Readonly<Record<string, string>> = { gpt: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", dos: "ef" };
const EFIBOOTMGR: Tool = { program: "efibootmgr", package: "efibootmgr" };
const EFIVARS = "/sys/firmware/efi/efivars";
/** An MBR: boot code, then the table, then 55h AAh. */
const MBR_BYTES = 512;
const MBR_CODE_BYTES = 440;
const MBR_MAGIC = [0x55, 0xaa];

const fine = (note: string | null): BootCheck => ({ problem: null, note });
const bad = (problem: string): BootCheck => ({ problem, note: null });

/** Looks at a whole disk; of a partition nobody knows what starts it. */
export function checkBoot(disk: TargetDisk, isUefi: boolean): Promise<BootCheck> | BootCheck {
  if (disk.kind !== "disk") return fine(null);
  return isUefi ? checkUefi(disk) : checkBios(disk);
}

/** The boot sector of a disk; pure. */
export function hasBootCode(sector: Uint8Array): boolean {
  const isSigned = MBR_MAGIC.every((byte, index) => sector[MBR_BYTES - 2 + index] === byte);
  return isSigned && sector.subarray(0, MBR_CODE_BYTES).some((byte) => byte !== 0);
}

function checkBios({ path }: TargetDisk): BootCheck {
  const sector = new Uint8Array(MBR_BYTES);
  const fd = openSync(path, "r");
  try {
    readSync(fd, sector, 0, sector.length, 0);
  } finally {
    closeSync(fd);
  }
  if (hasBootCode(sector)) return fine(null);
  const what = `${path} has no boot code in its first sector, and this machine was started by a BIOS`;
  return bad(
    `${what}: it will not start from this disk (is the image one of a UEFI machine? Switch its setup to UEFI)`,
  );
}

async function checkUefi(disk: TargetDisk): Promise<BootCheck> {
  const table = await readTable(disk);
  const esp = table?.partitions.find(({ type }) => type.toLowerCase() === ESP_TYPES[table.label]);
  if (!table || !esp) {
    const what = `${disk.path} has no EFI system partition, and this machine was started by UEFI`;
    return bad(`${what}: it will not start from this disk unless its setup is switched to BIOS (CSM)`);
  }
  const found = await lookInside(disk, esp, (files) => loadersOf(files));
  if (found instanceof Unreadable)
    return bad(`the EFI system partition of ${disk.path} cannot be looked into: ${found.problem}`);
  if (found.removable !== null) return fine(`UEFI starts ${disk.path} by ${found.removable}`);
  const [loader] = found.loaders;
  if (loader === undefined)
    return bad(`the EFI system partition of ${disk.path} has no loader for this machine: it will not start from it`);
  return makeEntry(disk, table, esp, loader);
}

function loadersOf(files: InstalledFiles): { removable: string | null; loaders: Loader[] } {
  return { removable: removableLoader(files, process.arch), loaders: systemLoaders(files, process.arch) };
}

/** Makes the firmware know the loader, unless it does. What it says afterwards is what counts. */
async function makeEntry(
  disk: TargetDisk,
  table: PartitionTable,
  { number, uuid }: Partition,
  { path, label }: Loader,
): Promise<BootCheck> {
  const failed = (why: string): BootCheck => {
    const what = `UEFI has no boot entry for ${path} of ${disk.path}, and one could not be made`;
    return bad(
      `${what}: ${why}; choose the file in the firmware's setup, or reinstall the image's loader as removable`,
    );
  };
  if (!hasVariables()) return failed("the firmware's variables cannot be reached (efivarfs is not mounted, or noefi)");
  const guid = table.label === "gpt" ? uuid : table.id;
  const before = await askTool(EFIBOOTMGR, ["-v"]);
  if (before.problem !== null) return failed(before.problem);
  const known = entryFor(parseBootEntries(before.stdout), guid, path);
  if (known !== null) return fine(`UEFI starts ${disk.path} by its entry Boot${known.number}`);
  const words = ["--create", "--disk", disk.path, "--part", String(number), "--loader", path, "--label", label];
  const made = await askTool(EFIBOOTMGR, words);
  const after = await askTool(EFIBOOTMGR, ["-v"]);
  const entry = after.problem === null ? entryFor(parseBootEntries(after.stdout), guid, path) : null;
  if (entry !== null) return fine(`UEFI has a new entry Boot${entry.number} for ${path} of ${disk.path}`);
  return failed(made.problem ?? after.problem ?? "the firmware did not keep it");
}

function hasVariables(): boolean {
  try {
    return readdirSync(EFIVARS).length > 0;
  } catch {
    return false;
  }
}
