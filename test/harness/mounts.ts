/** Filesystems of a test, mounted for as long as its scope. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { run, until } from "./process.ts";
import type { Scope } from "./scope.ts";

/** Mounts a device on a new folder; returns the folder. */
export function mountDevice(scope: Scope, device: string): string {
  return mountWith(scope, ["mount", device]);
}

/** A filesystem in memory that is full after `lengthBytes`. */
export function smallTmpfs(scope: Scope, lengthBytes: number): string {
  return mountWith(scope, ["mount", "-t", "tmpfs", "-o", `size=${lengthBytes}`, "tmpfs"]);
}

/** Mounts by that command, to which a new folder is added; returns the folder. */
export function mountWith(scope: Scope, command: readonly string[]): string {
  const folder = join(scope.tempDir(), "mount");
  mkdirSync(folder);
  run([...command, folder]);
  scope.defer(() => unmount(folder));
  return folder;
}

/** The kernel lets go of a killed process's io_uring, and of a detached loop device, a moment later. */
async function unmount(folder: string): Promise<void> {
  await until(`${folder} is unmounted`, () => Bun.spawnSync(["umount", folder], { stderr: "ignore" }).exitCode === 0);
}
