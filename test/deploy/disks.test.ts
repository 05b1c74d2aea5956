/** Whole disks: table, boot code and every partition arrive; what no filesystem uses is neither sent nor touched. */
import { describe, expect } from "bun:test";
import { closeSync, openSync, readSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { fail, succeed } from "../harness/diskswarm.ts";
import { type Disk, expectSameDisk, gptDisk, mbrDisk, partitionsOf } from "../harness/disks.ts";
import { digestsOf, filesystemOf, testFiles } from "../harness/filesystems.ts";
import type { Extent } from "../harness/image.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { extentsAt, makeVolumes } from "../harness/lvm.ts";
import { run } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { captureDisk, deployTo, expectSoundGpt, expectSoundTable, identifiers } from "./whole-disks.ts";

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
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes);
    expect(events.filter(({ event }) => event === "backup-gpt")).toEqual([]);
    expectSoundGpt(target);
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
    const { target } = await deployTo(scope, torrent, disk, disk.lengthBytes);
    expectSoundTable(target);
    expect(run(["sfdisk", "--dump", target])).toMatch(/type=7, bootable/);
    await expectSameDisk(target, disk);
  });
});

/** GPT: header and entries of the primary, with the protective MBR before them. */
const TABLE_BYTES = 34 * 512;
const MIB = 1024 * 1024;

describe.skipIf(!isRoot)("a whole disk is deployed to", () => {
  scopedTest("a larger one, whose table then knows it; too small ones are refused with the sizes", async (scope) => {
    const disk = await gptDisk(scope);
    const { torrent } = await captureDisk(scope, disk);
    const largerBytes = disk.lengthBytes + 100 * MIB;
    const { target, events } = await deployTo(scope, torrent, disk, largerBytes);
    expect(events.filter(({ event }) => event === "backup-gpt")).toMatchObject([{ fromBytes: disk.lengthBytes - 512 }]);
    expectSoundGpt(target);
    const mbr = Buffer.alloc(512);
    const fd = openSync(target, "r");
    readSync(fd, mbr, 0, 512, 0);
    closeSync(fd);
    expect(mbr.readUInt32LE(446 + 12)).toBe(largerBytes / 512 - 1);
    expect(identifiers(target)).toEqual(identifiers(disk.path));
    expect(identifiers(target)).toHaveLength(5);
    await expectSameDisk(target, disk, TABLE_BYTES);

    const small = loopDevice(scope, disk.lengthBytes - 3 * MIB, { dirty: 4 });
    const needs = disk.lengthBytes - MIB;
    const sizes = new RegExp(`has ${disk.lengthBytes - 3 * MIB} bytes .*needs ${needs} .*holds data .*larger disk`);
    await fail(scope, ["deploy", torrent, small.path, "--peer", "127.0.0.9:9"], 4, sizes);
  });

  scopedTest("a larger one without sfdisk and sgdisk, which is said", async (scope) => {
    const source = loopDevice(scope, 16 * MIB);
    run(["sgdisk", "--new", "1:0:0", source.path]);
    const torrent = join(scope.tempDir(), "disk.torrent");
    await succeed(scope, ["capture", source.path, "-o", torrent]);
    const disk: Disk = { path: source.path, lengthBytes: 16 * MIB, partitions: [], files: [] };
    const { target, events } = await deployTo(scope, torrent, disk, 20 * MIB, { env: { PATH: scope.tempDir() } });
    const [warning] = events.filter(({ event }) => event === "warning");
    expect(warning).toMatchObject({ code: "backup-gpt" });
    expect(String(warning.message)).toMatch(/stays at byte 16776704.* install the package fdisk/);
    expectSame(target, source.path, [{ offsetBytes: 0, lengthBytes: 16 * MIB }]);
    // sgdisk alone does it as well.
    const tools = scope.tempDir();
    symlinkSync(Bun.which("sgdisk")!, join(tools, "sgdisk"));
    const again = await deployTo(scope, torrent, disk, 20 * MIB, { env: { PATH: tools } });
    expect(again.events.filter(({ event }) => event === "backup-gpt")).toHaveLength(1);
    expect(run(["sgdisk", "-v", again.target])).toContain("No problems found");
  });

  scopedTest("a larger one with its MBR as it is", async (scope) => {
    const disk = await mbrDisk(scope);
    const { torrent } = await captureDisk(scope, disk);
    const { target } = await deployTo(scope, torrent, disk, disk.lengthBytes + 32 * MIB);
    expectSoundTable(target);
    await expectSameDisk(target, disk);
  });
});

describe.skipIf(!isRoot)("LVM on a disk", () => {
  scopedTest("is deployed by the used blocks of its volumes", async (scope) => {
    needTools("pvcreate", "pvs", "vgcfgrestore", "sgdisk");
    const lengthBytes = 320 * MIB;
    const { path } = loopDevice(scope, lengthBytes, { dirty: 3 });
    run(["sgdisk", "--new", "1:2048:0", path]);
    const [{ offsetBytes: pvOffset, lengthBytes: pvLength }] = partitionsOf(path);
    const [root, swap, split, free] = [extentsAt(0, 35), extentsAt(35, 5), extentsAt(40, 10), extentsAt(50, 20)];
    const inDisk = ({ offsetBytes, lengthBytes }: Extent) => ({ offsetBytes: pvOffset + offsetBytes, lengthBytes });
    const filesystem = filesystemOf("ext4");
    const files = testFiles(12, 1 * MIB);
    const making = new Scope();
    makeVolumes(making, loopPart(making, path, { offsetBytes: pvOffset, lengthBytes: pvLength }), [
      {
        name: "root",
        runs: [
          { at: 0, count: 25 },
          { at: 25, count: 10 },
        ],
      },
      { name: "swap", runs: [{ at: 35, count: 5 }] },
      {
        name: "split",
        runs: [
          { at: 45, count: 5 },
          { at: 40, count: 5 },
        ],
      },
    ]);
    const device = loopPart(making, path, inDisk(root));
    filesystem.make(device);
    await filesystem.fill(device, files);
    run(["mkswap", loopPart(making, path, inDisk(swap))]);
    await making.close();

    const disk: Disk = {
      path,
      lengthBytes,
      partitions: [{ number: 1, offsetBytes: pvOffset, lengthBytes: pvLength, type: "LVM2_member" }],
      files,
    };
    const { torrent, rows } = await captureDisk(scope, disk);
    expect(rows[1]).toMatchObject({ filesystem: "LVM2_member", why: "LVM: used blocks of its volumes, by partclone" });
    expect(rows[1].unusedBytes).toBeGreaterThan(100 * MIB);
    const { target } = await deployTo(scope, torrent, disk, lengthBytes);
    const kept = [{ offsetBytes: 0, lengthBytes: pvOffset + MIB }, inDisk(split), inDisk(free)];
    expectSame(target, path, kept);
    const arrived = loopPart(scope, target, inDisk(root));
    filesystem.check(arrived);
    expect(await filesystem.digests(arrived)).toEqual(digestsOf(files));
    const pv = loopPart(scope, target, { offsetBytes: pvOffset, lengthBytes: pvLength });
    expect(run(["pvs", "--devices", pv, "--nohints", "--segments", "--noheadings", "-o", "lv_name"])).toMatch(
      /root\s+swap/,
    );

    const noLvm = scope.tempDir();
    for (const tool of ["blkid", "losetup", "sfdisk"]) symlinkSync(Bun.which(tool)!, join(noLvm, tool));
    const again = await succeed(scope, ["capture", path, "-o", torrent], { env: { PATH: noLvm } });
    expect(again.events.find(({ event }) => event === "warning")).toMatchObject({ code: "lvm" });
    expect((await again.done()).unusedBytes).toBe(0);
  });
});
