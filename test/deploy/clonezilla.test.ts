/** Image folders of Clonezilla become the disk that was saved: used blocks, table, boot code, bit by bit. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { cpSync, readdirSync, readFileSync, renameSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { filesLike, saveClonezilla } from "../harness/clonezilla.ts";
import { start, succeed } from "../harness/diskswarm.ts";
import { type Disk, expectSamePartition, gptDisk, mbrDisk, partitionsOf, smallDisk } from "../harness/disks.ts";
import { deploy, loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { expectFailure, FAILED, overwrite, REFUSED, rowsOf, type Row, toolsWith, warningsOf } from "./surveying.ts";

interface Unpacked {
  readonly torrent: string;
  readonly raw: string;
  readonly rows: readonly Row[];
}

async function captureFolder(scope: Scope, folder: string): Promise<Unpacked> {
  const output = scope.ramDir();
  const [torrent, raw] = [join(output, "disk.torrent"), join(output, "disk.raw")];
  const capture = await succeed(scope, ["capture", folder, "-o", torrent, "--save", raw]);
  const done = await capture.done();
  expect(done).toMatchObject({
    sourcePath: folder,
    savedPath: raw,
    sourceFormat: "the disk sda in an image of Clonezilla",
  });
  expect(readdirSync(output).sort()).toEqual(["disk.raw", "disk.torrent"]);
  return { torrent, raw, rows: rowsOf(done) };
}

async function deployed(scope: Scope, { torrent, raw }: Unpacked, disk: Disk): Promise<string> {
  const target = loopDevice(scope, disk.lengthBytes, { dirty: 4 }).path;
  const seeder = await loopbackSeeder(scope, torrent, raw);
  await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
  await seeder.run.child.stop();
  return target;
}

/** The table and every partition; what lies between is not in such an image. */
async function expectSaved(path: string, disk: Disk): Promise<void> {
  expect(partitionsOf(path)).toEqual(partitionsOf(disk.path));
  for (const partition of disk.partitions.filter(({ type }) => type !== ""))
    await expectSamePartition(path, disk, partition);
}

/** Of the raw file and of a disk that it is deployed to. */
async function expectSavedGpt(scope: Scope, unpacked: Unpacked, disk: Disk): Promise<void> {
  const target = await deployed(scope, unpacked, disk);
  const tables = [
    { offsetBytes: 0, lengthBytes: 34 * 512 },
    { offsetBytes: disk.lengthBytes - 33 * 512, lengthBytes: 33 * 512 },
  ];
  for (const path of [unpacked.raw, target]) {
    expectSame(path, disk.path, tables);
    await expectSaved(path, disk);
  }
  expect(run(["sgdisk", "-v", target])).toContain("No problems found");
}

describe.skipIf(!isRoot)("a disk that Clonezilla saved is deployed:", () => {
  scopedTest("GPT, gzip, split, one partition by dd", async (scope) => {
    const disk = await gptDisk(scope);
    const folder = await saveClonezilla(disk, scope.ramDir(), { codec: "gz", split: "1M", raw: [1] });
    const unpacked = await captureFolder(scope, folder);
    expect(unpacked.rows.slice(1, 5).map(({ filesystem, why }) => `${filesystem}: ${why}`)).toEqual([
      "vfat: everything but zeros",
      "ext4: used blocks, by partclone",
      "xfs: used blocks, by partclone",
      "swap: its header, swap holds nothing to keep",
    ]);
    await expectSavedGpt(scope, unpacked, disk);
  });

  scopedTest("GPT, zstd, in whole files", async (scope) => {
    const disk = await smallDisk(scope);
    const unpacked = await captureFolder(scope, await saveClonezilla(disk, scope.ramDir(), { codec: "zst" }));
    expect(unpacked.rows[1]).toMatchObject({ filesystem: "vfat", why: "used blocks, by partclone" });
    await expectSavedGpt(scope, unpacked, disk);
  });

  scopedTest("MBR with boot code and an extended partition, not compressed, split", async (scope) => {
    const disk = await mbrDisk(scope);
    const folder = await saveClonezilla(disk, scope.ramDir(), { split: "20M" });
    const unpacked = await captureFolder(scope, folder);
    const target = await deployed(scope, unpacked, disk);
    const [first, extended, logical, last] = disk.partitions;
    const tables = [
      { offsetBytes: 0, lengthBytes: first.offsetBytes },
      { offsetBytes: extended.offsetBytes, lengthBytes: 512 },
      { offsetBytes: logical.offsetBytes + logical.lengthBytes, lengthBytes: 512 },
    ];
    expect(last.offsetBytes).toBeGreaterThan(tables[2].offsetBytes);
    for (const path of [unpacked.raw, target]) {
      expectSame(path, disk.path, tables);
      await expectSaved(path, disk);
    }
  });
});

/** What may be wrong with a folder of `smallDisk` that was saved with gzip, in parts of 256 KiB. */
const PROBLEMS: Record<string, { message: RegExp; exitCode?: number; spoil(folder: string): void }> = {
  "a part in the middle is missing": {
    message: /sda2\.ext4-ptcl-img\.gz\.ac is missing, a part of the image of sda2/,
    spoil: (folder) => unlinkSync(join(folder, "sda2.ext4-ptcl-img.gz.ac")),
  },
  "the first part is missing": {
    message: /sda2\.ext4-ptcl-img\.gz\.aa is missing/,
    spoil: (folder) => unlinkSync(join(folder, "sda2.ext4-ptcl-img.gz.aa")),
  },
  "the last part is missing": {
    message: /cannot unpack .*sda2\.ext4-ptcl-img\.gz\.aa and its \d+ other parts: gzip says: .*unexpected end of file/,
    spoil: (folder) => unlinkSync(filesLike(folder, "sda2.").at(-1)!),
  },
  "a part has a wrong bit": {
    message: /cannot unpack .*sda2\.ext4-ptcl-img\.gz\.aa .*: (gzip|partclone\.restore) says: /,
    spoil: (folder) => overwrite(join(folder, "sda2.ext4-ptcl-img.gz.ab"), 1024, (bytes) => bytes.reverse()),
  },
  "an image is missing": {
    message: /the image of sda2, which its file parts names, is missing/,
    spoil: (folder) => {
      for (const path of filesLike(folder, "sda2.")) unlinkSync(path);
    },
  },
  "two images of a partition": {
    message: /several images of sda2/,
    spoil: (folder) => writeFileSync(join(folder, "sda2.xfs-ptcl-img.zst"), ""),
  },
  "its table is missing": {
    message: /its file sda-gpt-1st is missing/,
    spoil: (folder) => unlinkSync(join(folder, "sda-gpt-1st")),
  },
  "its table is damaged": {
    message: /primary GPT .* wrong checksum/,
    exitCode: REFUSED,
    spoil: (folder) => overwrite(join(folder, "sda-gpt-1st"), 512, (bytes) => void bytes.writeUInt8(bytes[60] ^ 1, 60)),
  },
  "the size of the disk is missing": {
    message: /its file sda-pt\.parted is missing/,
    spoil: (folder) => unlinkSync(join(folder, "sda-pt.parted")),
  },
  "sectors of 4096 bytes": {
    message: /its disk has sectors of 4096 bytes/,
    spoil: (folder) => {
      const path = join(folder, "sda-pt.parted");
      writeFileSync(path, readFileSync(path, "utf8").replace("512B/", "4096B/"));
    },
  },
  LVM: {
    message: /it holds LVM volumes \(lvm_vg_dev\.list\); restore it with Clonezilla/,
    spoil: (folder) => writeFileSync(join(folder, "lvm_vg_dev.list"), "vg /dev/sda2 abc\n"),
  },
  "two disks": {
    message: /it holds 2 disks \(sda sdb\)/,
    spoil: (folder) => writeFileSync(join(folder, "disk"), "sda sdb\n"),
  },
  "partitions only": {
    message: /it holds partitions and no disk; capture one of them by its file, such as .*sda1\.vfat-ptcl-img\.gz\.aa/,
    spoil: (folder) => unlinkSync(join(folder, "disk")),
  },
};

describe.skipIf(!isRoot)("a folder of Clonezilla is refused in one line:", () => {
  const shared = new Scope();
  let saved = "";
  beforeAll(async () => {
    saved = await saveClonezilla(await smallDisk(shared), shared.ramDir(), { codec: "gz", split: "256K" });
  }, 60_000);
  afterAll(() => shared.close());

  for (const [name, { message, exitCode, spoil }] of Object.entries(PROBLEMS)) {
    scopedTest(name, async (scope) => {
      const folder = join(scope.ramDir(), "img");
      cpSync(saved, folder, { recursive: true });
      spoil(folder);
      await expectFailure(scope, folder, exitCode ?? FAILED, message);
    });
  }

  scopedTest("a raw partition that is cut off, tools that are missing, and no file to save to", async (scope) => {
    const folder = await saveClonezilla(await smallDisk(scope), scope.ramDir(), { raw: [2] });
    const env = toolsWith(scope, { sfdisk: null }, ["head", "mkfifo", "dd", "partclone.restore"]);
    await expectFailure(scope, folder, FAILED, /sfdisk is not installed: install the package fdisk$/m, [], env);
    truncateSync(join(folder, "sda2.dd-img"), 32 * 1024 * 1024);
    await expectFailure(scope, folder, FAILED, /sda2\.dd-img holds 33554432 bytes, and sda2 in .* has 67108864/);
    const failed = await start(scope, ["capture", folder, "-o", join(scope.ramDir(), "x.torrent")]).expectExit(FAILED);
    expect(failed.stderr).toMatch(/has to be unpacked to be served: capture it with --save FILE/);
  });

  scopedTest("but not for a partition that nobody saved: it is zero, with a warning", async (scope) => {
    const disk = await smallDisk(scope);
    const folder = await saveClonezilla(disk, scope.ramDir(), { codec: "zst" });
    const other = join(scope.ramDir(), "other");
    renameSync(join(folder, "sda1.vfat-ptcl-img.zst"), other);
    writeFileSync(join(folder, "parts"), "sda2\n");
    const output = scope.ramDir();
    const words = ["capture", folder, "-o", join(output, "x.torrent"), "--save", join(output, "x.raw")];
    const capture = await succeed(scope, words);
    expect(warningsOf(capture)).toEqual(["not-saved"]);
    const [, first] = rowsOf(await capture.done());
    expect(first).toMatchObject({ filesystem: "", sentBytes: 0, unusedBytes: 0 });
  });
});
