/** Disks whose sectors have another size than the image's: refused, or converted where the filesystems allow it. */
import { describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { capture, fail } from "../harness/diskswarm.ts";
import { type Disk, makeDisk, partitionsOf } from "../harness/disks.ts";
import { digestsOf, filesystemOf } from "../harness/filesystems.ts";
import { loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { captureDisk, deployTo, expectSoundGpt, identifiers } from "./whole-disks.ts";

const MIB = 1024 * 1024;
const CONVERT = { flags: ["--convert-sectors"] };
const MAKE_4K = {
  ext4: ["mkfs.ext4", "-q", "-b", "4096", "-E", "nodiscard"],
  xfs: ["mkfs.xfs", "-q", "-K", "-s", "size=4096"],
};
const SCRIPT = ["label: gpt", 'size=128M, type=L, name="root"', "size=16M, type=S", "size=320M, type=L"];

function refuse(
  scope: Scope,
  torrent: string,
  flags: string[],
  lengthBytes: number,
  sectorBytes: 512 | 4096,
  reason: RegExp,
) {
  const { path } = loopDevice(scope, lengthBytes, { sectorBytes });
  return fail(scope, ["deploy", torrent, path, "--port", "0", "--peer", "127.0.0.9:9", ...flags], 4, reason);
}

/** Every partition at its byte, with the image's identifiers and files, in a table that this disk's tools read. */
async function expectConverted(target: string, disk: Disk, sectorBytes: 512 | 4096): Promise<void> {
  expectSoundGpt(target);
  expect(run(["sfdisk", "--dump", target])).toContain(`sector-size: ${sectorBytes}`);
  expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
  expect(identifiers(target)).toEqual(identifiers(disk.path));
  for (const partition of disk.partitions) {
    const scope = new Scope();
    try {
      const device = loopPart(scope, target, partition, sectorBytes);
      if (partition.type === "swap") {
        expectSame(target, disk.path, [{ offsetBytes: partition.offsetBytes, lengthBytes: 4096 }]);
        continue;
      }
      const filesystem = filesystemOf(partition.type);
      filesystem.check(device);
      expect(await filesystem.digests(device)).toEqual(digestsOf(disk.files));
    } finally {
      await scope.close();
    }
  }
}

describe.skipIf(!isRoot)("a disk with other sectors", () => {
  scopedTest("is refused, and with --convert-sectors gets a table of its own: 512 to 4096 and back", async (scope) => {
    const disk = await makeDisk(scope, 480 * MIB, SCRIPT, ["ext4", "swap", "xfs"], { make: MAKE_4K });
    const { torrent } = await captureDisk(scope, disk);
    const plain =
      /sectors have 4096 bytes, those of the image 512: .*convert it with --convert-sectors, or choose a disk/;
    await refuse(scope, torrent, [], disk.lengthBytes, 4096, plain);
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes, {
      ...CONVERT,
      loop: { sectorBytes: 4096 },
    });
    expect(events.filter(({ event }) => event === "table-rewritten")).toMatchObject([{ sectorBytes: 4096 }]);
    await expectConverted(target, disk, 4096);

    const converted = { ...disk, path: target };
    const back = await captureDisk(scope, converted);
    await refuse(scope, back.torrent, [], disk.lengthBytes, 512, /sectors have 512 bytes, those of the image 4096/);
    const larger = await deployTo(scope, back.torrent, converted, disk.lengthBytes + 32 * MIB, {
      flags: ["--convert-sectors", "--grow"],
    });
    expect(larger.events.filter(({ event }) => event === "grown")).toMatchObject([{ filesystem: "xfs" }]);
    expectSoundGpt(larger.target);
    expect(identifiers(larger.target)).toEqual(identifiers(disk.path));
    const grown = partitionsOf(larger.target);
    const partitions = disk.partitions.map((partition, i) => ({ ...partition, lengthBytes: grown[i].lengthBytes }));
    expect(grown.map(({ offsetBytes }) => offsetBytes)).toEqual(disk.partitions.map(({ offsetBytes }) => offsetBytes));
    await expectConverted(larger.target, { ...disk, path: larger.target, partitions }, 512);
  });

  const REFUSED: [string, string[], string[], RegExp][] = [
    [
      "FAT in small sectors",
      ["label: gpt", "size=64M, type=U"],
      ["vfat"],
      /partition 1 holds vfat in blocks of 512 bytes/,
    ],
    [
      "NTFS",
      ["label: gpt", "size=64M"],
      ["ntfs"],
      /partition 1 holds ntfs, which Windows reads on sectors of its own size/,
    ],
    ["an MBR", ["label: dos", "size=16M, type=82"], ["swap"], /only a GPT is, and its table is an MBR/],
  ];
  for (const [name, script, types, reason] of REFUSED) {
    scopedTest(`is refused for an image with ${name}, whatever was asked for`, async (scope) => {
      const disk = await makeDisk(scope, 80 * MIB, script, types);
      const { torrent } = await captureDisk(scope, disk);
      for (const flags of [[], CONVERT.flags]) await refuse(scope, torrent, flags, disk.lengthBytes, 4096, reason);
    });
  }

  scopedTest("is refused where the larger table does not fit behind the last partition", async (scope) => {
    const script = ["label: gpt", `start=2048, size=${32728 - 2048}, type=S`];
    const disk = await makeDisk(scope, 16 * MIB, script, ["swap"]);
    const { torrent } = await captureDisk(scope, disk);
    const needs =
      /has 16773120 bytes .*needs 16777216 .*its last partition ends at byte 16756736; choose a larger disk/;
    await refuse(scope, torrent, CONVERT.flags, disk.lengthBytes - 4096, 4096, needs);
  });

  scopedTest("gets an image that does not say what partitions it has, and a warning", async (scope) => {
    const disk = await makeDisk(scope, 16 * MIB, ["label: gpt", "size=8M, type=S"], ["swap"]);
    const name = disk.path.replace("/dev/", "");
    const file = readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").trim();
    const torrent = await capture(scope, file, join(scope.tempDir(), "file.torrent"));
    const { target, events } = await deployTo(scope, torrent, { ...disk, path: file }, disk.lengthBytes, {
      loop: { sectorBytes: 4096 },
    });
    const warnings = events.filter(({ event }) => event === "warning");
    expect(warnings).toMatchObject([{ code: "table-sectors" }]);
    expect(String(warnings[0].message)).toMatch(/counts in sectors of 512 bytes and the disk in 4096/);
    const seeder = await loopbackSeeder(scope, torrent, file);
    const flags = ["--port", "0", "--peer", seeder.peer, ...CONVERT.flags];
    await fail(
      scope,
      ["deploy", torrent, target, ...flags],
      1,
      /proven, but .*--extents partclone, which can be converted/,
    );
  });
});
