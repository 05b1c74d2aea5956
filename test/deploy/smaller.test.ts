/** A disk that is smaller than the image's: written where the partitions fit, with a GPT of its own; else refused with the sizes. */
import { describe, expect } from "bun:test";
import { closeSync, openSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { fail, succeed } from "../harness/diskswarm.ts";
import {
  type Disk,
  expectSameDisk,
  expectSamePartition,
  gptDisk,
  makeDisk,
  mbrDisk,
  partitionsOf,
} from "../harness/disks.ts";
import { loopbackSeeder, startDeploy } from "../harness/fixture.ts";
import { randomBytes, writeFully } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { captureDisk, deployTo, expectSoundGpt, expectSoundTable, identifiers } from "./whole-disks.ts";

const MIB = 1024 * 1024;
/** Boot code stays, and so does what sfdisk has no say in. */
const BOOT_CODE = { offsetBytes: 0, lengthBytes: 440 };
/** Entries of partitions are what they were; the header before them tells of the smaller disk. */
const GPT_ENTRIES = { offsetBytes: 1024, lengthBytes: 128 * 128 };

function writeBootCode(disk: Disk): void {
  const fd = openSync(disk.path, "r+");
  writeFully(fd, randomBytes(440, 79), 0);
  closeSync(fd);
}

function refuse(scope: Scope, torrent: string, lengthBytes: number, reason: RegExp, env?: Record<string, string>) {
  const small = loopDevice(scope, lengthBytes, { dirty: 4 });
  return fail(scope, ["deploy", torrent, small.path, "--port", "0", "--peer", "127.0.0.9:9"], 4, reason, { env });
}

describe.skipIf(!isRoot)("a whole disk is deployed to a smaller one:", () => {
  scopedTest("GPT, which serves others all of the image; too small ones are refused", async (scope) => {
    const disk = await gptDisk(scope, { hasCleanEnd: true });
    writeBootCode(disk);
    const { torrent } = await captureDisk(scope, disk);
    const { offsetBytes, lengthBytes } = disk.partitions[3];
    const leastBytes = offsetBytes + lengthBytes + 33 * 512;

    const target = loopDevice(scope, leastBytes, { dirty: 4 }).path;
    const seeder = await loopbackSeeder(scope, torrent, disk.path);
    const flags = ["--verify", "--linger", "10m"];
    const first = await startDeploy(scope, torrent, target, [seeder.peer], flags);
    await first.done();
    await seeder.run.child.stop();
    // Another node gets everything from it, the bytes among them that have no place on it.
    const second = loopDevice(scope, disk.lengthBytes, { dirty: 5 }).path;
    const { port } = await first.event("start");
    const at = ["--listen", "127.0.0.4", "--port", "0", "--peer", `127.0.0.1:${port}`];
    await succeed(scope, ["deploy", torrent, second, ...at, "--verify"]);
    await expectSameDisk(second, disk);
    // Told to end, it ends lingering and makes the disk ready all the same.
    first.child.signal("SIGTERM");
    await first.expectExit(0);

    expect(first.events.filter(({ event }) => event === "table-rewritten")).toHaveLength(1);
    expectSoundGpt(target);
    expect(identifiers(target)).toEqual(identifiers(disk.path));
    expect(identifiers(target)).toHaveLength(5);
    expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
    expectSame(target, disk.path, [BOOT_CODE, GPT_ENTRIES]);
    for (const partition of disk.partitions) await expectSamePartition(target, disk, partition);

    const needs = `needs ${leastBytes} .*its last partition ends at byte ${offsetBytes + lengthBytes}; choose a larger disk`;
    await refuse(scope, torrent, leastBytes - 512, new RegExp(`has ${leastBytes - 512} bytes .*${needs}`));
  });

  scopedTest("names and attributes of partitions stay, and its own boot code", async (scope) => {
    const script = [
      "label: gpt",
      "table-length: 64",
      'size=16M, type=L, name="a\\x22b\\xc3\\xa4", attrs="RequiredPartition GUID:60"',
    ];
    const disk = await makeDisk(scope, 40 * MIB, script, [""], { hasCleanEnd: true });
    writeBootCode(disk);
    const { torrent } = await captureDisk(scope, disk);
    const { target } = await deployTo(scope, torrent, disk, 20 * MIB);
    expectSoundGpt(target);
    expectSame(target, disk.path, [BOOT_CODE, { ...GPT_ENTRIES, lengthBytes: 64 * 128 }]);
    const dump = (path: string) =>
      run(["sfdisk", "--dump", path])
        .replaceAll(path, "")
        .replace(/last-lba: \d+/, "");
    expect(dump(target)).toBe(dump(disk.path));
    // The image is on it and its table another: what differs is written again, and the table once more.
    const again = await startDeploy(scope, torrent, target, [(await loopbackSeeder(scope, torrent, disk.path)).peer]);
    await again.expectExit(0);
    expect((await again.done()).bytesReused).toBeGreaterThan(0);
    expect(dump(target)).toBe(dump(disk.path));
  });

  scopedTest("MBR", async (scope) => {
    const disk = await mbrDisk(scope, { hasCleanEnd: true });
    const { torrent } = await captureDisk(scope, disk);
    const endBytes = Math.max(...disk.partitions.map((part) => part.offsetBytes + part.lengthBytes));
    const { target } = await deployTo(scope, torrent, disk, endBytes);
    expectSoundTable(target);
    await expectSameDisk(target, { ...disk, lengthBytes: endBytes });
    await refuse(scope, torrent, endBytes - 4096, new RegExp(`needs ${endBytes} .*its last partition ends`));
  });

  scopedTest(
    "it is refused where its table could not be rewritten, and where there is data behind the partitions",
    async (scope) => {
      const disk = await makeDisk(scope, 40 * MIB, ["label: gpt", "size=16M, type=L"], [""], { hasCleanEnd: true });
      const { torrent } = await captureDisk(scope, disk);
      const tools = scope.tempDir();
      for (const tool of ["sgdisk"]) symlinkSync(Bun.which(tool)!, join(tools, tool));
      await refuse(scope, torrent, 20 * MIB, /its GPT has to be rewritten .*install the package fdisk/, {
        PATH: tools,
      });

      const full = await makeDisk(scope, 40 * MIB, ["label: gpt", "size=16M, type=L"], [""]);
      const { torrent: other } = await captureDisk(scope, full);
      await refuse(scope, other, 38 * MIB, /needs 40894464 .*behind its last partition, .*it holds data/);
    },
  );
});
