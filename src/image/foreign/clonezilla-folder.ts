/**
 * A folder that Clonezilla saved one disk into, as a plan: how large the disk is, which files hold its tables, and
 * which files hold each partition. What cannot be put together again to that disk is refused with what it is; a name
 * that is missing is named.
 *
 * The names are those of Clonezilla's ocs-functions (savedisk): `disk`, `parts`, `sda-pt.sf` (sfdisk's dump),
 * `sda-pt.parted`, `sda-mbr`, `sda-gpt-1st`, `sda-gpt-2nd`, `sda-hidden-data-after-mbr`, `sda2-ebr`,
 * `sda1.ext4-ptcl-img.gz.aa`, `sda3.dd-img.aa`, `swappt-sda5.info`.
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { ExitCode, Failure } from "../../errors.ts";
import { missingSuffix } from "./split-files.ts";

export interface ClonezillaFolder {
  readonly path: string;
  /** `sda`, as its files begin. */
  readonly disk: string;
  readonly diskBytes: number;
  readonly isGpt: boolean;
  readonly files: readonly string[];
  /** Partitions that Clonezilla says it saved, such as `sda1`. */
  readonly saved: readonly string[];
}

/** What is known of one partition's content. */
export type PartitionContent =
  | { readonly kind: "image"; readonly parts: readonly string[] }
  | { readonly kind: "swap"; readonly uuid: string; readonly label: string }
  | { readonly kind: "nothing" };

/** A dd of 512-byte sectors holds the whole table of such a disk only. */
const SECTOR_BYTES = 512;
/** Their files in a folder, and what they mean. */
const UNSUPPORTED: readonly (readonly [RegExp, string])[] = [
  [/^lvm_vg_dev\.list$/, "LVM volumes"],
  [/^luks-dev\.list$|^ocs_luks_/, "LUKS volumes that were saved opened"],
  [/^(?:ecryptfs|gocryptfs)\.info$/, "encrypted files"],
  [/^md\d+-detail\.info$|^mdadm\.conf$/, "a software RAID"],
  [/^dmraid\.table$/, "a firmware RAID"],
];
/** `sda1.ext4-ptcl-img.gz.aa`, of old `sda1.ext4-img.aa`: filesystem, then what follows, with the suffix of a split. */
const IMAGE = /^(?:[\w+-]+?-)?(?:ptcl-)?img(?:\.(?:gz|bz2|lzo|lzma|xz|lzip|lrz|lz4|zst|uncomp))?(?:\.([a-z]{2,4}))?$/;

/** Reads the folder. Throws Failure (exit 1) where it is none of one whole disk. */
export function readClonezillaFolder(path: string): ClonezillaFolder {
  const files = readdirSync(path).sort();
  const disk = onlyDisk(path, files);
  for (const [name, what] of UNSUPPORTED) {
    const found = files.find((file) => name.test(file) && hasContent(join(path, file)));
    if (found !== undefined) throw refused(path, `it holds ${what} (${found})`);
  }
  const parted = needFile(path, `${disk}-pt.parted`);
  const sectors = /^Disk \/dev\/.*: (\d{1,15})s$/m.exec(parted)?.[1];
  const sectorBytes = /^Sector size \(logical\/physical\): (\d+)B\//m.exec(parted)?.[1];
  if (sectors === undefined || sectorBytes === undefined)
    throw refused(path, `${disk}-pt.parted does not say how large the disk is`);
  if (Number(sectorBytes) !== SECTOR_BYTES) throw refused(path, `its disk has sectors of ${sectorBytes} bytes`);
  const isGpt = /^Partition Table: gpt/m.test(parted);
  needFile(path, isGpt ? `${disk}-gpt-1st` : `${disk}-mbr`);
  if (!isGpt) needFile(path, `${disk}-pt.sf`);
  const saved = existsSync(join(path, "parts")) ? wordsIn(join(path, "parts")) : [];
  return { path, disk, diskBytes: Number(sectors) * SECTOR_BYTES, isGpt, files, saved };
}

/** What holds that partition. Throws Failure where a file is missing. */
export function contentOf(folder: ClonezillaFolder, number: number): PartitionContent {
  const { path, files, saved } = folder;
  const name = partitionName(folder.disk, number);
  const own = files.filter((file) => file.startsWith(`${name}.`) && !file.endsWith(".info"));
  const images = own.filter((file) => IMAGE.test(file.slice(name.length + 1)));
  if (images.length > 0) return { kind: "image", parts: inOrder(folder, name, images) };
  const others = own.filter((file) => /^\.(?:\d{3}|[a-z]{2,3})$/.test(file.slice(name.length)));
  if (others.length > 0) throw refused(path, `${others[0]} is an image of partimage`);
  const swap = `swappt-${name}.info`;
  if (files.includes(swap)) return { kind: "swap", ...swapOf(readFileSync(join(path, swap), "utf8")) };
  if (saved.includes(name))
    throw refused(path, `the image of ${name}, which its file parts names, is missing (${name}.*-ptcl-img*)`);
  return { kind: "nothing" };
}

/** `sda1`, `nvme0n1p1`. */
export function partitionName(disk: string, number: number): string {
  return `${disk}${/\d$/.test(disk) ? "p" : ""}${number}`;
}

function inOrder(folder: ClonezillaFolder, name: string, images: readonly string[]): string[] {
  const suffixes = images.map((file) => IMAGE.exec(file.slice(name.length + 1))![1] ?? "");
  if (images.length > 1 || suffixes[0] !== "") {
    const stem = suffixes[0] === "" ? images[0] : images[0].slice(0, -suffixes[0].length);
    const isOneImage = images.every((file, i) => suffixes[i] !== "" && file === stem + suffixes[i]);
    if (!isOneImage) throw refused(folder.path, `it has several images of ${name}: ${images[0]} and ${images.at(-1)}`);
    const missing = missingSuffix(suffixes);
    if (missing !== null) throw refused(folder.path, `${stem}${missing} is missing, a part of the image of ${name}`);
  }
  return images.map((file) => join(folder.path, file));
}

function onlyDisk(path: string, files: readonly string[]): string {
  if (!files.includes("disk")) {
    const first = files.find((file) => IMAGE.test(file.slice(file.indexOf(".") + 1)));
    const advice = first === undefined ? "" : `; capture one of them by its file, such as ${join(path, first)}`;
    throw refused(path, `it holds partitions and no disk${advice}`);
  }
  const disks = wordsIn(join(path, "disk"));
  if (disks.length === 1 && /^[\w-]+$/.test(disks[0])) return disks[0];
  throw refused(
    path,
    disks.length === 0 ? "its file disk is empty" : `it holds ${disks.length} disks (${disks.join(" ")})`,
  );
}

function swapOf(text: string): { uuid: string; label: string } {
  const value = (key: string) => new RegExp(`^${key}="([^"\\x00-\\x1f]{0,64})"$`, "m").exec(text)?.[1] ?? "";
  return { uuid: value("UUID"), label: value("LABEL") };
}

function needFile(path: string, name: string): string {
  if (!existsSync(join(path, name))) throw refused(path, `its file ${name} is missing`);
  return readFileSync(join(path, name), "latin1");
}

function wordsIn(path: string): string[] {
  return readFileSync(path, "utf8")
    .split(/\s+/)
    .filter((word) => word !== "");
}

function hasContent(path: string): boolean {
  return statSync(path).size > 0;
}

function refused(path: string, problem: string): Failure {
  const what = `cannot put the disk of ${basename(path)} together: ${problem}`;
  return new Failure(ExitCode.failed, "clonezilla", `${what}; restore it with Clonezilla and capture that disk`);
}
