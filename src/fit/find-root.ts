/**
 * Which part of a disk holds the installed system that is to get a name: every filesystem that Linux may have its root on is
 * looked into, read-only. Of several, it is the one whose own fstab says that it is the root; else nothing is guessed.
 */
import { volumesOn } from "../image/lvm.ts";
import { openReadOnlyView } from "../image/read-only-view.ts";
import { readSignature, type Signature } from "../image/signature.ts";
import type { Partition, PartitionTable } from "../torrent/partition-table.ts";
import { mountDetached } from "./mounted.ts";
import { Rooted } from "./rooted.ts";
import { type DiskPart, openPart, readTable, type TargetDisk } from "./target-disk.ts";
import { fitFailure } from "./tools.ts";

export interface RootPlace {
  readonly part: DiskPart;
  readonly type: string;
  /** For mount, beside those that make it safe. */
  readonly flags: readonly string[];
  /** Of the system's / in the filesystem: a Btrfs subvolume by its name, else "". */
  readonly folder: string;
  /** `partition 2, subvolume @`. */
  readonly name: string;
}

interface Candidate {
  readonly part: DiskPart;
  readonly name: string;
  readonly signature: Signature;
  readonly partUuid: string;
}

interface Found {
  readonly place: RootPlace;
  /** Its fstab names this very filesystem as the root. */
  readonly isOwnRoot: boolean;
}

const ROOT_TYPES: ReadonlySet<string> = new Set(["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"]);
/** How Debian, Ubuntu and Fedora name the subvolume with the root, which is seldom the default one. */
const BTRFS_ROOTS = ["@", "@rootfs", "root"];
const BTRFS_TOP = "subvolid=5";

export interface RootSearch {
  readonly place: RootPlace;
  /** Partitions that hold Windows, or may: they are left alone. */
  readonly windows: readonly string[];
}

/** Throws Failure where there is no such system, or not one alone. */
export async function findRoot(disk: TargetDisk): Promise<RootSearch> {
  const never = new AbortController().signal;
  const skipped: string[] = [];
  const windows: string[] = [];
  const found: Found[] = [];
  for (const candidate of await candidates(disk, skipped, never)) {
    const { type } = candidate.signature;
    if (type === "ntfs" || type === "BitLocker") windows.push(candidate.name);
    else if (ROOT_TYPES.has(type)) found.push(...(await lookInto(disk, candidate, skipped)));
    else if (type === "crypto_LUKS") skipped.push(`${candidate.name} is encrypted`);
  }
  const own = found.filter(({ isOwnRoot }) => isOwnRoot);
  const roots = own.length > 0 ? own : found;
  if (roots.length === 1) return { place: roots[0].place, windows };
  if (roots.length > 1) {
    const names = roots.map(({ place }) => place.name).join(" and ");
    throw fitFailure("personalize-root", `${names} each hold an installed system, and which one is meant is not clear`);
  }
  const others = windows.map((name) => `${name} holds NTFS: Windows is left alone`);
  const why = [...skipped, ...others].map((text) => `; ${text}`).join("");
  throw fitFailure("personalize-root", `no installed Linux was found on ${disk.path}${why}`);
}

async function candidates(disk: TargetDisk, skipped: string[], signal: AbortSignal): Promise<Candidate[]> {
  const table = await readTable(disk);
  const whole = { startBytes: 0, lengthBytes: disk.sizeBytes };
  if (table === null) return inPart(disk, whole, "all of it", "", skipped, signal);
  const all: Candidate[] = [];
  for (const partition of table.partitions.filter(({ isExtended }) => !isExtended))
    all.push(
      ...(await inPart(
        disk,
        partition,
        `partition ${partition.number}`,
        partUuidOf(table, partition),
        skipped,
        signal,
      )),
    );
  return all;
}

/** What the kernel calls PARTUUID: of an MBR the disk's signature and the number. */
function partUuidOf(table: PartitionTable, { uuid, number }: Partition): string {
  if (table.label === "gpt") return uuid;
  return `${table.id.replace(/^0x/, "")}-${number.toString(16).padStart(2, "0")}`;
}

/** The part itself, or the volumes in it that lie in one run. */
async function inPart(
  disk: TargetDisk,
  { startBytes, lengthBytes }: DiskPart,
  name: string,
  partUuid: string,
  skipped: string[],
  signal: AbortSignal,
): Promise<Candidate[]> {
  const place = { offsetBytes: startBytes, lengthBytes };
  const signature = await readSignature(disk.path, place, signal);
  if (signature.type !== "LVM2_member") return [{ part: { startBytes, lengthBytes }, name, signature, partUuid }];
  const view = await openReadOnlyView(disk.path, startBytes, lengthBytes);
  const volumes = await volumesOn(view.path, lengthBytes, signal).finally(() => view.close());
  if (typeof volumes === "string") {
    skipped.push(`${name} holds LVM that is not looked into (${volumes})`);
    return [];
  }
  const all: Candidate[] = [];
  for (const volume of volumes) {
    const inside = { offsetBytes: startBytes + volume.offsetBytes, lengthBytes: volume.lengthBytes };
    const part = { startBytes: inside.offsetBytes, lengthBytes: inside.lengthBytes };
    const signature = await readSignature(disk.path, inside, signal);
    all.push({ part, name: `${name}, volume ${volume.name}`, signature, partUuid: "" });
  }
  return all;
}

/** The roots in one filesystem: one, or with Btrfs several. */
async function lookInto(disk: TargetDisk, candidate: Candidate, skipped: string[]): Promise<Found[]> {
  const { signature, name } = candidate;
  const view = await openPart(disk, candidate.part);
  try {
    // The default subvolume first; then the top level, where the usual ones are folders.
    const attempts =
      signature.type === "btrfs"
        ? [
            { flags: [], folders: [""] },
            { flags: [BTRFS_TOP], folders: BTRFS_ROOTS },
          ]
        : [{ flags: [], folders: [""] }];
    for (const { flags, folders } of attempts) {
      const all = [...flagsOf(signature.type), ...flags];
      const mounted = await mountDetached(view.path, signature.type, ["ro", ...all]);
      if (typeof mounted === "string") {
        skipped.push(`${name} (${signature.type}) cannot be mounted: ${mounted}`);
        return [];
      }
      try {
        const found = folders.flatMap((folder) => foundIn(mounted.folder, folder, candidate, all));
        if (found.length > 0) return found;
      } finally {
        mounted.close();
      }
    }
    return [];
  } finally {
    view.close();
  }
}

/** The disk that the image was taken of may be mounted here as well: XFS has to be told. */
function flagsOf(type: string): string[] {
  return type === "xfs" ? ["nouuid"] : [];
}

function foundIn(mountFolder: string, folder: string, candidate: Candidate, flags: readonly string[]): Found[] {
  const root = new Rooted(folder === "" ? mountFolder : `${mountFolder}/${folder}`);
  if (
    !root.isFolder("etc") ||
    !["etc/os-release", "usr/lib/os-release", "etc/hostname"].some((path) => root.exists(path))
  )
    return [];
  const { part, signature, partUuid } = candidate;
  const name = folder === "" ? candidate.name : `${candidate.name}, subvolume ${folder}`;
  const device = rootDeviceOf(root.read("etc/fstab") ?? "");
  const names = [`UUID=${signature.uuid}`, `LABEL=${signature.label}`, `PARTUUID=${partUuid}`].filter(
    (text) => !text.endsWith("="),
  );
  const isOwnRoot = device !== null && names.some((text) => text.toLowerCase() === device.toLowerCase());
  return [{ place: { part, type: signature.type, flags, folder, name }, isOwnRoot }];
}

/** fstab(5): what is mounted on /, quotes taken off; null where nothing is. */
export function rootDeviceOf(fstab: string): string | null {
  for (const line of fstab.split("\n")) {
    const [device, folder] = line.trim().split(/\s+/);
    if (device !== undefined && !device.startsWith("#") && folder === "/") return device.replaceAll('"', "");
  }
  return null;
}
