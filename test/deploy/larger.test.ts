/** `deploy --grow`: the last partition and its filesystem take the space that a larger disk has. */
import { describe, expect } from "bun:test";
import { existsSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Event, fail, start, succeed } from "../harness/diskswarm.ts";
import { type Disk, expectSamePartition, makeDisk, partitionsOf } from "../harness/disks.ts";
import { filesystemOf } from "../harness/filesystems.ts";
import { loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { run, until } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { captureDisk, deployTo, expectFiles, expectSoundGpt, expectSoundTable, identifiers } from "./whole-disks.ts";

const MIB = 1024 * 1024;
const GROW = { flags: ["--grow"] };

function grownOf(events: readonly Event[]): Event[] {
  return events.filter(({ event }) => event === "grown");
}

/** How large the filesystem says that it is. */
function filesystemBytes(scope: Scope, target: string, number: number, type: string): number {
  const part = partitionsOf(target).find((partition) => partition.number === number)!;
  const device = loopPart(scope, target, part);
  const words: Record<string, [string[], RegExp, number?]> = {
    ext4: [["dumpe2fs", "-h", device], /Block count:\s+(\d+)[\s\S]*Block size:\s+(\d+)/],
    xfs: [["xfs_db", "-r", "-c", "sb 0", "-c", "p dblocks blocksize", device], /dblocks = (\d+)\s+blocksize = (\d+)/],
    btrfs: [["btrfs", "inspect-internal", "dump-super", device], /dev_item\.total_bytes\s+(\d+)()/],
    f2fs: [["fsck.f2fs", "--dry-run", device], /total FS sectors = (\d+)()/, 512],
    ntfs: [["ntfsresize", "--info", "--force", device], /Current volume size: (\d+)()/],
  };
  const [argv, pattern, unitBytes = 1] = words[type];
  const [, count, unit] = pattern.exec(run(argv))!;
  return Number(count) * Number(unit || unitBytes);
}

describe.skipIf(!isRoot)("--grow on a larger disk", () => {
  scopedTest("grows the XFS at the end of a GPT; the other partitions are the image's", async (scope) => {
    needTools("xfs_growfs");
    const script = ["label: gpt", "size=64M, type=U", "size=32M, type=S", "size=128M, type=L"];
    script.push('size=320M, type=L, name="root of \\xc3\\xa4 clone", attrs="LegacyBIOSBootable"');
    const disk = await makeDisk(scope, 600 * MIB, script, ["vfat", "swap", "ext4", "xfs"]);
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, 800 * MIB, GROW);
    expect(grownOf(events)).toMatchObject([{ partition: 4, filesystem: "xfs", fromBytes: 320 * MIB }]);
    expectSoundGpt(target);
    expect(identifiers(target)).toEqual(identifiers(disk.path));
    const [esp, swap, ext4, xfs] = disk.partitions;
    for (const partition of [esp, swap, ext4]) await expectSamePartition(target, disk, partition);
    const grown = partitionsOf(target)[3];
    expect(grown.offsetBytes + grown.lengthBytes).toBe(799 * MIB);
    await expectFiles(target, { ...grown, type: xfs.type }, disk.files);
    expect(filesystemBytes(scope, target, 4, "xfs")).toBe(grown.lengthBytes);
    expect(run(["sfdisk", "--dump", target])).toContain(
      String.raw`name="root of \xc3\xa4 clone", attrs="LegacyBIOSBootable"`,
    );
  });

  scopedTest("grows an extended partition with the logical one at its end", async (scope) => {
    const script = ["label: dos", "1: size=64M, type=7, bootable", "2: size=150M, type=f"];
    script.push("5: size=40M, type=82", "6: size=96M, type=83");
    const disk = await makeDisk(scope, 240 * MIB, script, ["ntfs", "", "swap", "ext4"]);
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, 400 * MIB, GROW);
    expect(grownOf(events)).toMatchObject([{ partition: 6, filesystem: "ext4", fromBytes: 96 * MIB }]);
    expectSoundTable(target);
    const [ntfs, , swap] = disk.partitions;
    for (const partition of [ntfs, swap]) await expectSamePartition(target, disk, partition);
    const [, extended, , logical] = partitionsOf(target);
    for (const { offsetBytes, lengthBytes } of [extended, logical]) expect(offsetBytes + lengthBytes).toBe(400 * MIB);
    await expectFiles(target, { ...logical, type: "ext4" }, disk.files);
    expect(filesystemBytes(scope, target, 6, "ext4")).toBe(logical.lengthBytes);
    expect(run(["sfdisk", "--dump", target])).toMatch(/type=7, bootable/);
    expect(identifiers(target)).toEqual(identifiers(disk.path));
  });

  for (const type of ["btrfs", "ntfs", "f2fs"]) {
    scopedTest(`grows ${type}`, async (scope) => {
      const size = filesystemOf(type).lengthBytes;
      const disk = await makeDisk(scope, size + 2 * MIB, ["label: gpt", `size=${size / MIB}M`], [type]);
      const { torrent } = await captureDisk(scope, disk);
      const { target, events } = await deployTo(scope, torrent, disk, size + 130 * MIB, GROW);
      expect(grownOf(events)).toMatchObject([{ partition: 1, filesystem: type, toBytes: size + 128 * MIB }]);
      expectSoundGpt(target);
      const [grown] = partitionsOf(target);
      await expectFiles(target, { ...grown, type }, disk.files);
      const missing = grown.lengthBytes - filesystemBytes(scope, target, 1, type);
      // NTFS keeps its last sector outside of the volume; the others are made of whole blocks.
      expect(missing).toBeGreaterThanOrEqual(0);
      expect(missing).toBeLessThan(64 * 1024);
    });
  }

  scopedTest("grows a filesystem that has a disk for itself", async (scope) => {
    const filesystem = filesystemOf("ext4");
    const source = loopDevice(scope, 128 * MIB).path;
    filesystem.make(source);
    const disk: Disk = { path: source, lengthBytes: 128 * MIB, partitions: [], files: [] };
    const torrent = join(scope.tempDir(), "disk.torrent");
    await succeed(scope, ["capture", source, "-o", torrent]);
    const { target, events } = await deployTo(scope, torrent, disk, 200 * MIB, GROW);
    expect(grownOf(events)).toMatchObject([{ partition: 0, filesystem: "ext4", toBytes: 200 * MIB }]);
    filesystem.check(target);
    expect(run(["dumpe2fs", "-h", target])).toMatch(/Block count:\s+204800/);
  });

  scopedTest("says what it cannot grow, and leaves a sound disk", async (scope) => {
    const disk = await makeDisk(scope, 100 * MIB, ["label: gpt", "size=64M", "size=32M, type=S"], ["ext4", "swap"]);
    const { torrent } = await captureDisk(scope, disk);
    const target = loopDevice(scope, disk.lengthBytes + 64 * MIB, { dirty: 4 }).path;
    const seeder = await loopbackSeeder(scope, torrent, disk.path);
    const message = /is on \/dev\/loop\d+ and proven, but it was not grown: the last partition .*, 2, .* it is swap\n$/;
    await fail(scope, ["deploy", torrent, target, "--port", "0", "--peer", seeder.peer, "--grow"], 1, message);
    expectSoundGpt(target);
    expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
    for (const partition of disk.partitions) await expectSamePartition(target, disk, partition);
  });

  scopedTest("finds nothing to grow where there is no free space, whatever the filesystem", async (scope) => {
    const disk = await makeDisk(scope, 130 * MIB, ["label: gpt", "size=128M, type=S"], ["swap"]);
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes, GROW);
    expect(grownOf(events)).toEqual([]);
    expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
  });

  scopedTest("goes on to its end when Ctrl-C reaches the whole terminal meanwhile", async (scope) => {
    const disk = await makeDisk(scope, 70 * MIB, ["label: gpt", "size=64M"], ["ext4"]);
    const { torrent } = await captureDisk(scope, disk);
    const target = loopDevice(scope, 140 * MIB, { dirty: 4 }).path;
    const seeder = await loopbackSeeder(scope, torrent, disk.path);
    // A resize2fs that takes its time, and says when it began.
    const tools = scope.tempDir();
    const began = join(tools, "began");
    const slow = `#!/bin/sh\n: > ${began}\nsleep 2\nexec ${Bun.which("resize2fs")} "$@"\n`;
    writeFileSync(join(tools, "resize2fs"), slow, { mode: 0o755 });
    const flags = ["--port", "0", "--peer", seeder.peer, "--grow"];
    const env = { PATH: `${tools}:${process.env.PATH}` };
    const deployment = start(scope, ["deploy", torrent, target, ...flags], { env, prefix: ["setsid"] });
    await until("resize2fs runs", () => existsSync(began));
    process.kill(-deployment.child.pid, "SIGINT");
    await deployment.expectExit(0);
    const [grown] = partitionsOf(target);
    expect(grown.lengthBytes).toBe(138 * MIB);
    await expectFiles(target, { ...grown, type: "ext4" }, disk.files);
    expect(filesystemBytes(scope, target, 1, "ext4")).toBe(grown.lengthBytes);
  });

  scopedTest("names the package of a missing tool before anything is written", async (scope) => {
    const disk = await makeDisk(scope, 140 * MIB, ["label: gpt", "size=128M"], ["ext4"]);
    const { torrent } = await captureDisk(scope, disk);
    const target = loopDevice(scope, 200 * MIB, { dirty: 4 }).path;
    const before = run(["sha1sum", target]);
    const tools = scope.tempDir();
    for (const tool of ["sfdisk", "blkid", "losetup", "e2fsck"]) symlinkSync(Bun.which(tool)!, join(tools, tool));
    const flags = ["--port", "0", "--peer", "127.0.0.9:9", "--grow"];
    const message = /resize2fs is not installed, for growing ext4: install the package e2fsprogs\n$/;
    await fail(scope, ["deploy", torrent, target, ...flags], 1, message, { env: { PATH: tools } });
    expect(run(["sha1sum", target])).toBe(before);
  });
});
