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
  undoLater(scope, ["umount", folder]);
  return folder;
}

/**
 * Runs a command at the end of the scope, again and again until it succeeds: the kernel lets go of a killed process's
 * io_uring, and of a detached loop device, a moment later.
 */
export function undoLater(scope: Scope, argv: readonly string[]): void {
  scope.defer(() => until(argv.join(" "), () => Bun.spawnSync([...argv], { stderr: "ignore" }).exitCode === 0));
}
