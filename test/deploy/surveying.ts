/** What the tests of surveys share: disks in every state, captures that fail in one line, tools that are replaced. */
import { expect } from "bun:test";
import { closeSync, mkdirSync, openSync, readdirSync, readSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DoneEvent, fail, type Run, succeed } from "../harness/diskswarm.ts";
import { filesystemOf } from "../harness/filesystems.ts";
import { writeFully } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { run, until } from "../harness/process.ts";
import type { Scope } from "../harness/scope.ts";

export const MIB = 1024 * 1024;
export const DISK_BYTES = 64 * MIB;
export const REFUSED = 4;
export const FAILED = 1;

export interface Row {
  readonly name: string;
  readonly filesystem: string;
  readonly sentBytes: number;
  readonly unusedBytes: number;
  readonly why: string;
}

export function rowsOf(done: DoneEvent): readonly Row[] {
  return done.areas as readonly Row[];
}

export function warningsOf(run: Run): string[] {
  return run.events.filter(({ event }) => event === "warning").map(({ code }) => String(code));
}

/** Loop devices over a disk or file, as the survey makes them. */
export function viewsOf(source: string): string {
  return run(["losetup", "--associated", source]).trim();
}

/** The capture must fail in one line, and leave neither files nor loop devices. */
export async function expectFailure(
  scope: Scope,
  source: string,
  exitCode: number,
  message: RegExp,
  flags: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<void> {
  const [folder, temporary] = [scope.ramDir(), scope.ramDir()];
  const words = ["capture", source, "-o", join(folder, "image.torrent"), "--save", join(folder, "copy.raw"), ...flags];
  const before = viewsOf(source);
  const { stderr } = await fail(scope, words, exitCode, message, { env: { TMPDIR: temporary, ...env } });
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect([...readdirSync(folder), ...readdirSync(temporary)]).toEqual([]);
  await until("no loop device is left", () => viewsOf(source) === before);
}

export async function captured(
  scope: Scope,
  source: string,
  ...flags: string[]
): Promise<{ done: DoneEvent; run: Run }> {
  const run = await succeed(scope, ["capture", source, "-o", join(scope.ramDir(), "image.torrent"), ...flags]);
  return { done: await run.done(), run };
}

/** A dirty device with an ext4 filesystem. */
export function ext4Device(scope: Scope): { path: string; backingPath: string } {
  const device = loopDevice(scope, DISK_BYTES, { dirty: 5 });
  filesystemOf("ext4").make(device.path);
  return device;
}

export function partitioned(scope: Scope, lengthBytes: number, ...script: string[]): string {
  const { path } = loopDevice(scope, lengthBytes, { dirty: 6 });
  const made = Bun.spawnSync(["sfdisk", "--quiet", "--wipe", "always", path], {
    stdin: Buffer.from(script.join("\n")),
  });
  expect(made.exitCode).toBe(0);
  return path;
}

export function overwrite(path: string, offsetBytes: number, change: (bytes: Buffer) => void, lengthBytes = 512): void {
  const fd = openSync(path, "r+");
  const bytes = Buffer.alloc(lengthBytes);
  readSync(fd, bytes, 0, lengthBytes, offsetBytes);
  change(bytes);
  writeFully(fd, bytes, offsetBytes);
  closeSync(fd);
}

/** What a survey needs. */
const SURVEY_TOOLS = "blkid losetup sfdisk partclone.ext4 partclone.xfs xfs_logprint cat sleep".split(" ");

/** A PATH with the tools that a survey needs, and others, but for those that are replaced by a script, or by nothing. */
export function toolsWith(
  scope: Scope,
  replaced: Record<string, string | null>,
  others: readonly string[] = [],
): Record<string, string> {
  const folder = join(scope.ramDir(), "tools");
  mkdirSync(folder);
  for (const name of [...SURVEY_TOOLS, ...others]) {
    if (!(name in replaced)) symlinkSync(Bun.which(name)!, join(folder, name));
  }
  for (const [name, script] of Object.entries(replaced)) {
    if (script !== null) writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  return { PATH: folder };
}
