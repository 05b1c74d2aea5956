/** What tests of whole disks share: a disk is captured, deployed to another one, and compared part by part. */
import { expect } from "bun:test";
import { join } from "node:path";
import { type Event, type RunOptions, succeed } from "../harness/diskswarm.ts";
import type { Disk, DiskPartition } from "../harness/disks.ts";
import { digestsOf, filesystemOf, type TestFile } from "../harness/filesystems.ts";
import { deploy, loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, type LoopOptions, loopPart } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { Scope } from "../harness/scope.ts";

export interface Row {
  readonly name: string;
  readonly filesystem: string;
  readonly lengthBytes: number;
  readonly sentBytes: number;
  readonly unusedBytes: number;
  readonly why: string;
}

/** Captures the disk; the torrent and the rows that capture told, which are those that inspect tells. */
export async function captureDisk(scope: Scope, disk: Disk): Promise<{ torrent: string; rows: readonly Row[] }> {
  const torrent = join(scope.tempDir(), "disk.torrent");
  const done = await (await succeed(scope, ["capture", disk.path, "-o", torrent])).done();
  const [told] = (await succeed(scope, ["inspect", torrent])).events.filter(({ event }: Event) => event === "torrent");
  expect(told.areas).toEqual(done.areas);
  expect(told.filesystems).toEqual(disk.partitions.map(({ type }) => type));
  const { partitiontable } = JSON.parse(String(told.partitions)) as { partitiontable: { partitions: unknown[] } };
  expect(partitiontable.partitions).toHaveLength(disk.partitions.length);
  return { torrent, rows: done.areas as readonly Row[] };
}

export async function deployTo(
  scope: Scope,
  torrent: string,
  disk: Disk,
  lengthBytes: number,
  options: RunOptions & { flags?: readonly string[]; loop?: LoopOptions } = {},
): Promise<{ target: string; events: readonly Event[] }> {
  const { flags = [], loop = {} } = options;
  const target = loopDevice(scope, lengthBytes, { dirty: 4, ...loop }).path;
  const seeder = await loopbackSeeder(scope, torrent, disk.path);
  const { events } = await deploy(scope, torrent, target, [seeder.peer], ["--verify", ...flags], options);
  await seeder.run.child.stop();
  return { target, events };
}

export function expectSoundTable(disk: string): void {
  expect(run(["sfdisk", "--verify", disk])).toContain("No errors detected");
}

/** The table on a disk is what it should be, by the tools that others will look at it with. */
export function expectSoundGpt(disk: string): void {
  expectSoundTable(disk);
  expect(run(["sgdisk", "-v", disk])).toContain("No problems found");
}

/** What identifies a disk and its partitions to boot loaders and fstab. */
export function identifiers(disk: string): string[] {
  return [...run(["sfdisk", "--dump", disk]).matchAll(/\b(?:label-id: |uuid=)([\w-]+)/g)].map(([, id]) => id);
}

/** A partition's filesystem is whole and has the files that were put into it. */
export async function expectFiles(target: string, partition: DiskPartition, files: readonly TestFile[]): Promise<void> {
  const scope = new Scope();
  try {
    const device = loopPart(scope, target, partition);
    const filesystem = filesystemOf(partition.type);
    filesystem.check(device);
    const digests = await filesystem.digests(device);
    // Of some no driver is here: then the check of the filesystem has to do.
    if (digests !== null) expect(digests).toEqual(digestsOf(files));
  } finally {
    await scope.close();
  }
}
