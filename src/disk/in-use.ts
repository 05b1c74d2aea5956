/**
 * Who else uses a disk or file: mounts, swap, LVM, md and dm holders, loop devices. Reads procfs and sysfs.
 *
 * A missing /sys or /proc file tells nothing; the exclusive open of target.ts is the second net, which also
 * sees users in other mount namespaces.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { type FileStat, stat } from "../kernel/libc.ts";
import { isBlock, isSame } from "./open-disk.ts";

/** Why a target is in use: a short stable word, and what to say. */
export interface Use {
  readonly code: "target-mounted" | "target-held";
  /** A sentence that names the user and what to do. */
  readonly text: string;
}

/** A block device by its number, with its kernel name where sysfs tells. */
interface Device {
  readonly number: string;
  readonly name: string;
  readonly sysfs: string;
}

/** Where the kernel's file systems are mounted. */
export interface KernelPaths {
  readonly proc: string;
  readonly sys: string;
}

const KERNEL_PATHS: KernelPaths = { proc: "/proc", sys: "/sys" };

/** Who uses the block device or one of its partitions, or null. */
export function useOfDevice(target: FileStat, paths = KERNEL_PATHS): Use | null {
  const devices = withPartitions(deviceAt(`${target.rdevMajor}:${target.rdevMinor}`, paths));
  const whole = wholeDisk(devices[0], paths);
  return (
    mountOf(devices, whole, paths) ?? swapOn(devices, paths) ?? holderOf(devices, paths) ?? loopOver(target, paths)
  );
}

/** Who uses the regular file, or null. */
export function useOfFile(target: FileStat, paths = KERNEL_PATHS): Use | null {
  return swapFile(target, paths) ?? loopOver(target, paths);
}

function deviceAt(number: string, paths: KernelPaths): Device {
  const link = `${paths.sys}/dev/block/${number}`;
  const sysfs = existsSync(link) ? realpathSync(link) : link;
  return { number, name: existsSync(sysfs) ? basename(sysfs) : number, sysfs };
}

/** The device and, where it is a whole disk, its partitions. */
function withPartitions(device: Device): Device[] {
  const partitions = list(device.sysfs)
    .map((name) => join(device.sysfs, name))
    .filter((path) => existsSync(join(path, "partition")))
    .map((path) => ({ number: readText(join(path, "dev")).trim(), name: basename(path), sysfs: path }));
  return [device, ...partitions];
}

/** The disk that a partition is of, or null: a file system on the whole disk covers its partitions too. */
function wholeDisk(device: Device, paths: KernelPaths): Device | null {
  if (!existsSync(join(device.sysfs, "partition"))) return null;
  const number = readText(join(device.sysfs, "..", "dev")).trim();
  return number === "" ? null : deviceAt(number, paths);
}

/** proc(5) mountinfo: the number of the mounted device, or its path where the file system has an anonymous number (btrfs). */
function mountOf(devices: Device[], whole: Device | null, paths: KernelPaths): Use | null {
  const all = whole === null ? devices : [...devices, whole];
  for (const line of readText(`${paths.proc}/self/mountinfo`).split("\n")) {
    const [before, after] = line.split(" - ");
    if (after === undefined) continue;
    const fields = before.split(" ");
    const source = unescapeOctal(after.split(" ")[1] ?? "");
    const mounted = all.find(
      (device) => device.number === fields[2] || (fields[2].startsWith("0:") && isDevice(source, device)),
    );
    if (!mounted) continue;
    const point = unescapeOctal(fields[4]);
    const what = mounted === devices[0] ? "it is" : `/dev/${mounted.name} is`;
    return {
      code: "target-mounted",
      text: `${what} mounted on ${point}; unmount it (umount ${point}) or choose another disk`,
    };
  }
  return null;
}

function swapOn(devices: Device[], paths: KernelPaths): Use | null {
  for (const path of swapPaths(paths)) {
    const used = devices.find((device) => isDevice(path, device));
    if (used) return swapUse(path);
  }
  return null;
}

function swapFile(target: FileStat, paths: KernelPaths): Use | null {
  for (const path of swapPaths(paths)) {
    const other = stat(path);
    if (typeof other !== "number" && isSame(other, target)) return swapUse(path);
  }
  return null;
}

function swapUse(path: string): Use {
  return { code: "target-held", text: `${path} is in use as swap; end that (swapoff ${path}) or choose another disk` };
}

function swapPaths(paths: KernelPaths): string[] {
  const lines = readText(`${paths.proc}/swaps`).split("\n").slice(1);
  return lines.filter((line) => line !== "").map((line) => unescapeOctal(line.split(/\s+/)[0]));
}

/** LVM, md, dm-crypt and multipath show as holders. */
function holderOf(devices: Device[], paths: KernelPaths): Use | null {
  for (const device of devices) {
    const holders = list(join(device.sysfs, "holders"));
    if (holders.length === 0) continue;
    const what = device === devices[0] ? "it is" : `/dev/${device.name} is`;
    const names = holders.map((name) => holderName(name, paths)).join(", ");
    return {
      code: "target-held",
      text: `${what} held by ${names} (LVM, RAID or device mapper); deactivate that or choose another disk`,
    };
  }
  return null;
}

function holderName(name: string, paths: KernelPaths): string {
  const mapped = readText(`${paths.sys}/class/block/${name}/dm/name`).trim();
  return mapped === "" ? `/dev/${name}` : `/dev/mapper/${mapped}`;
}

/** A loop device over the target would show old and new bytes mixed. */
function loopOver(target: FileStat, paths: KernelPaths): Use | null {
  for (const name of list(`${paths.sys}/block`)) {
    if (!name.startsWith("loop")) continue;
    const backing = readText(`${paths.sys}/block/${name}/loop/backing_file`).trimEnd();
    if (backing === "") continue;
    const other = stat(backing);
    if (typeof other === "number" || !isSame(other, target)) continue;
    return {
      code: "target-held",
      text: `it is the backing of /dev/${name}; detach that (losetup -d /dev/${name}) or write to /dev/${name}`,
    };
  }
  return null;
}

function isDevice(path: string, device: Device): boolean {
  if (!path.startsWith("/")) return false;
  const found = stat(path);
  return typeof found !== "number" && isBlock(found) && `${found.rdevMajor}:${found.rdevMinor}` === device.number;
}

/** `\040` and the like, proc(5). */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** A text file, or nothing where the kernel does not offer it. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
