/**
 * Is a disk that is to be captured being written to? A filesystem mounted read-write on it, on one of its
 * partitions or on a device above them (LVM, md, LUKS) makes a capture that no moment of the disk was like.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { refusedTarget } from "../errors.ts";

export interface Mount {
  /** `/dev/sda1` as /proc/self/mountinfo names it. */
  readonly device: string;
  readonly folder: string;
}

/** Throws Failure (exit 4) for a disk with a read-write mount; with `force` it is but warned of. */
export function refuseMounted(
  source: { readonly path: string; readonly deviceId: string },
  force: boolean,
  warn: (code: string, message: string) => void,
): void {
  const mount = readWriteMountOf(source.deviceId);
  if (mount === null) return;
  const what = `${source.path} is being written to: ${mount.device} is mounted read-write on ${mount.folder}`;
  if (!force)
    throw refusedTarget(
      "source-mounted",
      `${what}; unmount it, remount it read-only, or capture it as it is with --force`,
    );
  warn("source-mounted", `${what}; the image may be inconsistent`);
}

/** Is that partition of the disk (0: the disk itself) or what is built on it mounted read-write? */
export function isMountedReadWrite(deviceId: string, partition: number): boolean {
  if (partition === 0) return readWriteMountOf(deviceId) !== null;
  const folder = `/sys/dev/block/${deviceId}`;
  if (!existsSync(folder)) return false;
  const found = readdirSync(folder)
    .map((entry) => join(folder, entry))
    .find((path) => existsSync(join(path, "partition")) && numberIn(join(path, "partition")) === String(partition));
  return found !== undefined && readWriteMountOf(numberOf(found)) !== null;
}

/** The first read-write mount of the block device `deviceId` (`major:minor`) or of what is built on it, or null. */
export function readWriteMountOf(
  deviceId: string,
  mountinfo = readFileSync("/proc/self/mountinfo", "utf8"),
): Mount | null {
  const devices = new Set<string>();
  const names = new Set<string>();
  collect(deviceId, devices, names);
  for (const line of mountinfo.split("\n")) {
    const mount = parseLine(line);
    if (mount === null || !mount.isWritable) continue;
    // btrfs and others mount under a device number of their own; then the name tells.
    if (devices.has(mount.deviceId) || names.has(mount.device)) return { device: mount.device, folder: mount.folder };
  }
  return null;
}

/** The device itself, its partitions and its holders, and theirs. */
function collect(deviceId: string, devices: Set<string>, names: Set<string>): void {
  if (devices.has(deviceId)) return;
  devices.add(deviceId);
  const folder = `/sys/dev/block/${deviceId}`;
  if (!existsSync(folder)) return;
  names.add(`/dev/${nameOf(folder)}`);
  for (const entry of readdirSync(folder)) {
    if (existsSync(join(folder, entry, "partition"))) collect(numberOf(join(folder, entry)), devices, names);
  }
  const holders = join(folder, "holders");
  if (!existsSync(holders)) return;
  for (const holder of readdirSync(holders)) collect(numberOf(join(holders, holder)), devices, names);
}

/** `major:minor`. */
function numberOf(folder: string): string {
  return numberIn(join(folder, "dev"));
}

function numberIn(path: string): string {
  return readFileSync(path, "utf8").trim();
}

function nameOf(folder: string): string {
  return /^DEVNAME=(.+)$/m.exec(readFileSync(join(folder, "uevent"), "utf8"))?.[1] ?? "";
}

/** proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options, optional fields, `-`, type, source, super options. */
function parseLine(line: string): (Mount & { deviceId: string; isWritable: boolean }) | null {
  const [before, after] = line.split(" - ");
  const fields = before.split(" ");
  if (after === undefined || fields.length < 6) return null;
  const [, device, superOptions] = after.split(" ");
  // A read-only bind mount of a writable filesystem is writable: the superblock's option counts.
  const isWritable = superOptions.split(",").includes("rw");
  return { deviceId: fields[2], folder: unescapeOctal(fields[4]), device: unescapeOctal(device), isWritable };
}

/** Blanks in paths are written as `\040`. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
