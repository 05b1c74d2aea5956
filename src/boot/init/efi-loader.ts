/**
 * Which loaders an EFI system partition holds, and what the firmware knows of them. Pure: files and efibootmgr's words
 * in, names out.
 *
 * UEFI 2.10, 3.5.1.1: firmware without an entry for a disk starts \EFI\BOOT\BOOTX64.EFI of it.
 */
import type { InstalledFiles } from "./installed-files.ts";

/** The machine's word in the names of loaders (UEFI 2.10, 3.5.1.1), by Node's name of it. */
const MACHINES: Readonly<Record<string, string>> = { x64: "x64", arm64: "aa64" };

/** In this order: shim is what Secure Boot trusts; the others are loaded by it. `MACHINE` stands for the machine's word. */
const LOADERS = ["shimMACHINE.efi", "grubMACHINE.efi", "systemd-bootMACHINE.efi", "bootmgfw.efi"];

export interface Loader {
  /** As firmware writes it: `\EFI\debian\shimx64.efi`. */
  readonly path: string;
  /** For a boot entry. */
  readonly label: string;
}

/** The loader that firmware starts by itself, if the partition has it: its path. */
export function removableLoader(esp: InstalledFiles, arch: string): string | null {
  const folder = folderOf(esp, "", ["efi", "boot"]);
  if (folder === null) return null;
  const name = nameOf(esp, folder, `boot${MACHINES[arch] ?? arch}.efi`);
  return name === null ? null : firmwarePath(`${folder}/${name}`);
}

/** The loaders of installed systems, the best first. */
export function systemLoaders(esp: InstalledFiles, arch: string): Loader[] {
  const efi = nameOf(esp, "", "efi");
  if (efi === null) return [];
  const machine = MACHINES[arch] ?? arch;
  const loaders: (Loader & { rank: number })[] = [];
  for (const vendor of esp.list(efi)) {
    if (vendor.toLowerCase() === "boot") continue;
    // Microsoft keeps its loader one folder further down.
    const folders = [`${efi}/${vendor}`, `${efi}/${vendor}/${nameOf(esp, `${efi}/${vendor}`, "boot") ?? "boot"}`];
    for (const folder of folders)
      for (const [rank, pattern] of LOADERS.entries()) {
        const name = nameOf(esp, folder, pattern.replace("MACHINE", machine));
        if (name !== null) loaders.push({ path: firmwarePath(`${folder}/${name}`), label: vendor, rank });
      }
  }
  return loaders.sort((a, b) => a.rank - b.rank).map(({ path, label }) => ({ path, label }));
}

function folderOf(esp: InstalledFiles, base: string, parts: readonly string[]): string | null {
  let folder = base;
  for (const part of parts) {
    const name = nameOf(esp, folder, part);
    if (name === null) return null;
    folder = folder === "" ? name : `${folder}/${name}`;
  }
  return folder;
}

/** As FAT has it: upper and lower case are the same. */
function nameOf(esp: InstalledFiles, folder: string, wanted: string): string | null {
  return esp.list(folder).find((name) => name.toLowerCase() === wanted) ?? null;
}

function firmwarePath(path: string): string {
  return `\\${path.replaceAll("/", "\\")}`;
}

export interface BootEntry {
  /** Four hex digits. */
  readonly number: string;
  readonly isActive: boolean;
  /** Label and device path as efibootmgr prints them. */
  readonly text: string;
}

export interface BootEntries {
  /** Numbers in the order in which the firmware tries them. */
  readonly order: readonly string[];
  readonly entries: readonly BootEntry[];
}

/** Reads what efibootmgr prints, of any version (`-v` or not). Other lines are skipped. */
export function parseBootEntries(text: string): BootEntries {
  const order = /^BootOrder: ([0-9A-F,]+)\s*$/im.exec(text)?.[1]?.toUpperCase().split(",") ?? [];
  const entries = [...text.matchAll(/^Boot([0-9A-F]{4})(\*?)[ \t]+(.*)$/gim)].map(([, number, star, rest]) => ({
    number: number!.toUpperCase(),
    isActive: star === "*",
    text: rest!.trim(),
  }));
  return { order, entries };
}

/** The entry that starts that loader from the partition with that GUID, if it is active and in the order. */
export function entryFor({ order, entries }: BootEntries, partitionGuid: string, loaderPath: string): BootEntry | null {
  // Versions differ in how they frame a path: HD(1,GPT,guid,...)/File(\EFI\x) and .../\EFI\x.
  const wanted = [partitionGuid.toLowerCase(), loaderPath.toLowerCase()];
  const found = entries.find(({ number, isActive, text }) => {
    const plain = text.toLowerCase();
    return isActive && order.includes(number) && wanted.every((part) => plain.includes(part));
  });
  return found ?? null;
}
