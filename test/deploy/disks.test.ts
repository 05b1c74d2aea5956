/** Whole disks: table, boot code and every partition arrive; what no filesystem uses is neither sent nor touched. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { expectSame, gapsBetween } from "../harness/compare.ts";
import { type Event, succeed } from "../harness/diskswarm.ts";
import { type Disk, type DiskPartition, gptDisk, mbrDisk, partitionsOf } from "../harness/disks.ts";
import { digestsOf, filesystemOf, partcloneRuns } from "../harness/filesystems.ts";
import { deploy, loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

interface Row {
  readonly name: string;
  readonly filesystem: string;
  readonly lengthBytes: number;
  readonly sentBytes: number;
  readonly unusedBytes: number;
  readonly why: string;
}

/** Captures the disk; the torrent and the rows that capture told, which are those that inspect tells. */
async function captureDisk(scope: Scope, disk: Disk): Promise<{ torrent: string; rows: readonly Row[] }> {
  const torrent = join(scope.tempDir(), "disk.torrent");
  const done = await (await succeed(scope, ["capture", disk.path, "-o", torrent])).done();
  const [told] = (await succeed(scope, ["inspect", torrent])).events.filter(({ event }: Event) => event === "torrent");
  expect(told.areas).toEqual(done.areas);
  expect(told.filesystems).toEqual(disk.partitions.map(({ type }) => type));
  const { partitiontable } = JSON.parse(String(told.partitions)) as { partitiontable: { partitions: unknown[] } };
  expect(partitiontable.partitions).toHaveLength(disk.partitions.length);
  return { torrent, rows: done.areas as readonly Row[] };
}

async function deployTo(scope: Scope, torrent: string, disk: Disk, lengthBytes: number): Promise<string> {
  const target = loopDevice(scope, lengthBytes, { dirty: 4 }).path;
  const seeder = await loopbackSeeder(scope, torrent, disk.path);
  await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
  await seeder.run.child.stop();
  return target;
}

/** Everything outside of partitions, and of each partition what it holds. */
async function expectSameDisk(target: string, disk: Disk): Promise<void> {
  const contents = disk.partitions.filter(({ type }) => type !== "");
  expectSame(target, disk.path, gapsBetween(contents, disk.lengthBytes));
  expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
  for (const partition of contents) await expectSamePartition(target, disk, partition);
}

async function expectSamePartition(target: string, disk: Disk, partition: DiskPartition): Promise<void> {
  const scope = new Scope();
  try {
    const device = loopPart(scope, target, partition);
    if (partition.type === "swap") {
      expectSame(target, disk.path, [{ offsetBytes: partition.offsetBytes, lengthBytes: 4096 }]);
      expect(run(["blkid", "-p", "-o", "value", "-s", "TYPE", device]).trim()).toBe("swap");
      return;
    }
    const filesystem = filesystemOf(partition.type);
    const original = loopPart(scope, disk.path, partition);
    expectSame(device, original, partcloneRuns(filesystem, original).runs);
    filesystem.check(device);
    expect(await filesystem.digests(device)).toEqual(digestsOf(disk.files));
  } finally {
    await scope.close();
  }
}

function expectSoundTable(disk: string): void {
  expect(run(["sfdisk", "--verify", disk])).toContain("No errors detected");
}

describe.skipIf(!isRoot)("a whole disk is deployed to an equal one:", () => {
  scopedTest("GPT with ESP, ext4, XFS and swap", async (scope) => {
    const disk = await gptDisk(scope);
    const { torrent, rows } = await captureDisk(scope, disk);
    expect(rows.map(({ name, filesystem }) => `${name} ${filesystem}`)).toEqual([
      "before partition 1 ",
      "partition 1 vfat",
      "partition 2 ext4",
      "partition 3 xfs",
      "partition 4 swap",
      "after partition 4 ",
    ]);
    const [before, , , , swap, after] = rows;
    expect(before).toMatchObject({ unusedBytes: 0, why: "boot code and partition table" });
    expect(swap.sentBytes).toBeLessThanOrEqual(65536);
    expect(after.sentBytes).toBe(after.lengthBytes);
    const target = await deployTo(scope, torrent, disk, disk.lengthBytes);
    expectSoundTable(target);
    expect(run(["sgdisk", "-v", target])).toContain("No problems found");
    await expectSameDisk(target, disk);
  });

  scopedTest("MBR with a bootable NTFS and an extended partition", async (scope) => {
    const disk = await mbrDisk(scope);
    const { torrent, rows } = await captureDisk(scope, disk);
    expect(rows.map(({ name, filesystem }) => `${name} ${filesystem}`)).toEqual([
      "before partition 1 ",
      "partition 1 ntfs",
      "between 1 and 5 ",
      "partition 5 ext4",
      "between 5 and 6 ",
      "partition 6 swap",
      "after partition 6 ",
    ]);
    const target = await deployTo(scope, torrent, disk, disk.lengthBytes);
    expectSoundTable(target);
    expect(run(["sfdisk", "--dump", target])).toMatch(/type=7, bootable/);
    await expectSameDisk(target, disk);
  });
});
