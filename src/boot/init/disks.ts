/**
 * The disks of this machine as the kernel lists them in /sys/block. What is no disk of its own (loop devices, RAM
 * disks, optical drives, arrays and mappings over other disks) is left out.
 *
 * Every attribute may be missing: virtio disks have no model, SCSI ones keep their serial in a page of VPD.
 */
import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { useOfDevice } from "../../disk/in-use.ts";
import { stat } from "../../kernel/libc.ts";
import { imageOfSubsystem } from "../image-name.ts";
import { plainText, plainWwn } from "./target-rule.ts";

export interface Disk {
  /** Such as `/dev/nvme0n1`. */
  readonly path: string;
  /** 0: a card reader without a card. */
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  /** Empty where the disk does not tell. */
  readonly model: string;
  readonly serial: string;
  readonly wwn: string;
  readonly readOnly: boolean;
  /** A stick, a card or whatever hangs on USB. */
  readonly removable: boolean;
  readonly rotational: boolean;
  /** Who uses it (mounted, LVM, swap), as a sentence; null for nobody. */
  readonly use: string | null;
}

/** Names of block devices that are no disks, or disks only together with others. */
const NOT_A_DISK = /^(loop|ram|zram|sr|fd|md|dm-|nbd|drbd|rbd|zd|bcache|mtdblock|ubiblock)\d*|^mmcblk\d+(boot|rpmb|gp)/;
/** A SCSI VPD page is at most this long. */
const VPD_BYTES_MAX = 4096;
const VPD_HEADER_BYTES = 4;
/** The unit of `size`, whatever the disk's sectors are (block/genhd.c). */
const SIZE_UNIT_BYTES = 512;

/** All disks, by name. `use` tells who uses the device of that path. */
export function readDisks(sys = "/sys", use: (path: string) => string | null = useOfPath): Disk[] {
  return names(join(sys, "block"))
    .filter((name) => !NOT_A_DISK.test(name))
    .map((name) => readDisk(join(sys, "block", name), name, use))
    .filter((disk) => disk !== null);
}

function readDisk(folder: string, name: string, use: (path: string) => string | null): Disk | null {
  // A path of an NVMe disk that the kernel shows by another name.
  if (attribute(folder, "hidden") === "1") return null;
  // What this very system is read from.
  if (imageOfSubsystem(attribute(folder, "device/subsysnqn")) !== null) return null;
  // `!` stands for a slash: cciss!c0d0.
  const path = `/dev/${name.replaceAll("!", "/")}`;
  const sizeBytes = Number(attribute(folder, "size") || "0") * SIZE_UNIT_BYTES;
  const isCard = attribute(folder, "device/type") === "SD";
  return {
    path,
    sizeBytes,
    sectorBytes: Number(attribute(folder, "queue/logical_block_size") || "512"),
    model: attribute(folder, "device/model") || (name.startsWith("mmcblk") ? attribute(folder, "device/name") : ""),
    serial: attribute(folder, "device/serial") || attribute(folder, "serial") || unitSerial(folder),
    wwn: plainWwn(attribute(folder, "wwid") || attribute(folder, "device/wwid")),
    readOnly: attribute(folder, "ro") === "1",
    removable: attribute(folder, "removable") === "1" || isCard || isOnUsb(folder),
    rotational: attribute(folder, "queue/rotational") === "1",
    use: sizeBytes === 0 ? null : use(path),
  };
}

/** VPD page 80h (SPC-4): four bytes, then the unit's serial number. */
function unitSerial(folder: string): string {
  const page = read(join(folder, "device/vpd_pg80"));
  if (page === null || page.length > VPD_BYTES_MAX) return "";
  return printable(page.subarray(VPD_HEADER_BYTES).toString("latin1"));
}

function isOnUsb(folder: string): boolean {
  try {
    return /\/usb\d+\//.test(`${realpathSync(folder)}/`);
  } catch {
    // It went away between two looks.
    return false;
  }
}

function useOfPath(path: string): string | null {
  const found = stat(path);
  return typeof found === "number" ? null : (useOfDevice(found)?.text ?? null);
}

function attribute(folder: string, name: string): string {
  return printable(read(join(folder, name))?.toString("latin1") ?? "");
}

/** A disk's words go to consoles: nothing but printable ASCII. */
function printable(text: string): string {
  return plainText(text.replaceAll(/[^\x20-\x7e]/g, " "));
}

function read(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    // The attribute is not there, or the disk is gone: it is as if it said nothing.
    return null;
  }
}

function names(path: string): string[] {
  try {
    return readdirSync(path).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  } catch {
    // Without sysfs no disk can be told from another; whoever asks says so.
    return [];
  }
}
