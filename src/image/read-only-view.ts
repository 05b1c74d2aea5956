/**
 * A part of a disk or image as a device of its own that nobody can write to: a read-only loop device. Tools
 * that want a partition get one, whatever nodes the kernel made, also inside an image file, also of a partition
 * that is mounted read-only (partclone refuses a device that mount names); and a tool that opens what it
 * reads for writing, as partclone does for F2FS, cannot harm a source.
 *
 * The device is detached as soon as it is open here: the kernel then removes it with its last user, even where
 * this process is killed.
 */
import { closeSync, openSync } from "node:fs";
import { reasonOf, runToolForText, throwIfTooOld, type Tool, toolFailure } from "./external-tool.ts";

const LOSETUP: Tool = { program: "losetup", package: "mount" };

export interface ReadOnlyView {
  readonly path: string;
  close(): void;
}

/** Opens [offset, offset + length) of a disk or file. Throws Failure where there are no loop devices. */
export async function openReadOnlyView(path: string, offsetBytes: number, lengthBytes: number): Promise<ReadOnlyView> {
  const part = ["--offset", String(offsetBytes), "--sizelimit", String(lengthBytes)];
  // Not to be interrupted between making the device and knowing its name; it takes milliseconds.
  const made = await runToolForText(LOSETUP, ["--find", "--show", "--read-only", ...part, path], null);
  const device = made.stdout.trim();
  if (made.exitCode !== 0 || !/^\/dev\/\S+$/.test(device)) {
    throwIfTooOld(LOSETUP, made);
    throw toolFailure(
      "no-loop-device",
      `losetup cannot make a loop device of ${path} (${reasonOf(made)}): be root, load the kernel module loop`,
    );
  }
  const fd = openSync(device, "r");
  await runToolForText(LOSETUP, ["--detach", device], null);
  return { path: device, close: () => closeSync(fd) };
}
