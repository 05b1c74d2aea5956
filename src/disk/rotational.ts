/**
 * Whether a disk has a head that seeks, by the kernel's word (Documentation/ABI/stable/sysfs-block, queue/rotational).
 *
 * The kernel carries the answer through what lies between: a partition shares its disk's queue, a loop device, md and
 * dm say what their backing says. A disk that a hypervisor or a RAID controller shows often says yes whatever is
 * behind it, so yes must cost a fast disk next to nothing (decision 0015). Where nobody tells, the answer is no.
 */
import { readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import type { FileStat } from "../kernel/libc.ts";
import { isBlock } from "./open-disk.ts";

/** True where `stat`, of a block device or of a file on one, is of a disk that says it rotates. */
export function isRotational(stat: FileStat, sys = "/sys"): boolean {
  const [major, minor] = isBlock(stat) ? [stat.rdevMajor, stat.rdevMinor] : [stat.deviceMajor, stat.deviceMinor];
  let device: string;
  try {
    device = realpathSync(join(sys, `dev/block/${major}:${minor}`));
  } catch {
    // A filesystem without a device of its own (tmpfs, NFS, Btrfs), or no sysfs.
    return false;
  }
  return saysYes(join(device, "queue/rotational")) ?? saysYes(join(device, "../queue/rotational")) ?? false;
}

/** Null where there is no such file: a partition has no queue of its own. */
function saysYes(path: string): boolean | null {
  try {
    return readFileSync(path, "latin1").trim() === "1";
  } catch {
    return null;
  }
}
