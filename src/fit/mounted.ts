/**
 * A filesystem of the disk, mounted where no path leads: as soon as it is mounted its folder is open here, and the mount is
 * detached from the tree. The kernel unmounts it when the last descriptor is closed, also when this process is killed.
 */
import { closeSync, mkdtempSync, openSync, readdirSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { reasonOf, runToolForText } from "../image/external-tool.ts";
import { change, MOUNT, UMOUNT } from "./tools.ts";

export interface Mounted {
  /** Leads to the filesystem's root, in this process alone. */
  readonly folder: string;
  /** Unmounts it. */
  close(): void;
}

/** Nothing of the image is run, and its device nodes are none. */
const SAFE = "nodev,nosuid,noexec";

/** Why it cannot be mounted, as words, is an answer: the kernel may have no driver for it. */
export async function mountDetached(
  devicePath: string,
  type: string,
  flags: readonly string[],
): Promise<Mounted | string> {
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-root-"));
  try {
    const options = [SAFE, ...flags].join(",");
    const run = await runToolForText(MOUNT, ["-t", type, "-o", options, devicePath, folder], null);
    if (run.exitCode !== 0) return reasonOf(run);
    const fd = openSync(folder, "r");
    try {
      await change(UMOUNT, ["-l", folder]);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return { folder: `/proc/self/fd/${fd}`, close: () => closeSync(fd) };
  } finally {
    // What could not be unmounted keeps its folder.
    if (readdirSync(folder).length === 0) rmdirSync(folder);
  }
}
