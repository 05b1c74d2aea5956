/** capture of disks in every state: what is refused and why, what --force makes of it, and that nothing is left behind. */
import { describe, expect } from "bun:test";
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { succeed } from "../harness/diskswarm.ts";
import { filesystemOf, testFiles } from "../harness/filesystems.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { mountDevice, undoLater } from "../harness/mounts.ts";
import { run } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import {
  MIB,
  DISK_BYTES,
  REFUSED,
  FAILED,
  rowsOf,
  warningsOf,
  expectFailure,
  captured,
  ext4Device,
  partitioned,
  overwrite,
} from "./surveying.ts";

describe.skipIf(!isRoot)("a disk is captured", () => {
  scopedTest("while a filesystem of it is mounted read-only, by its used blocks", async (scope) => {
    const { path } = ext4Device(scope);
    const folder = mountDevice(scope, path);
    run(["mount", "-o", "remount,ro", folder]);
    const { done, run: capture } = await captured(scope, path);
    expect(warningsOf(capture)).toEqual([]);
    expect(done.unusedBytes).toBeGreaterThan(DISK_BYTES / 2);
  });

  scopedTest("while it is mounted read-write only by force, and then without a map", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=20M", "size=20M");
    for (const number of [1, 2]) {
      const [start, size] = run(["partx", "-n", String(number), "-g", "-o", "START,SECTORS", disk])
        .trim()
        .split(/\s+/);
      run(["addpart", disk, String(number), start, size]);
      scope.defer(() => void Bun.spawnSync(["delpart", disk, String(number)]));
      filesystemOf("ext4").make(`${disk}p${number}`);
    }
    mountDevice(scope, `${disk}p2`);
    await expectFailure(scope, disk, REFUSED, /p2 is mounted read-write on .*--force/);
    const { done, run: capture } = await captured(scope, disk, "--force");
    expect(warningsOf(capture)).toContain("source-mounted");
    const rows = rowsOf(done);
    expect(rows[1]).toMatchObject({ name: "partition 1", filesystem: "ext4" });
    expect(rows[1].unusedBytes).toBeGreaterThan(0);
    expect(rows[2]).toMatchObject({ name: "partition 2", filesystem: "ext4", unusedBytes: 0 });
  });

  scopedTest("with LUKS and unknown partitions as data, without losing a byte", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=16M", "size=16M");
    overwrite(disk, 1 * MIB, (bytes) => bytes.fill(0).write("LUKS\xba\xbe\x00\x01", "latin1"), 1024);
    const { done } = await captured(scope, disk);
    expect(rowsOf(done).map(({ filesystem, unusedBytes }) => [filesystem, unusedBytes])).toEqual([
      ["", 0],
      ["crypto_LUKS", 0],
      ["", 0],
      ["", 0],
    ]);
    expect(done.unusedBytes).toBe(0);
    expect(rowsOf(done)[1].why).toContain("encrypted");
  });

  scopedTest("in full where a partition table and a filesystem claim it both", async (scope) => {
    const { path } = ext4Device(scope);
    const made = Bun.spawnSync(["sfdisk", "--quiet", "--wipe", "never", path], {
      stdin: Buffer.from("label: dos\nsize=8M\n"),
    });
    expect(made.exitCode).toBe(0);
    const { done, run: capture } = await captured(scope, path);
    expect(warningsOf(capture)).toEqual(["several-signatures"]);
    expect(done.unusedBytes).toBe(0);
  });

  scopedTest("without a filesystem or table: as data, but not where maps were asked for", async (scope) => {
    const { path } = loopDevice(scope, 8 * MIB, { dirty: 7 });
    expect((await captured(scope, path)).done).toMatchObject({ bytesTotal: 8 * MIB, unusedBytes: 0 });
    await expectFailure(scope, path, FAILED, /no filesystem that partclone knows/, ["--extents", "partclone"]);
  });

  scopedTest("and so is an image file whose filesystems are asked for", async (scope) => {
    const { backingPath } = ext4Device(scope);
    const { done } = await captured(scope, backingPath, "--extents", "partclone");
    expect(done.unusedBytes).toBeGreaterThan(DISK_BYTES / 2);
    expect((await captured(scope, backingPath)).done).toMatchObject({ unusedBytes: 0, areas: [] });
  });

  scopedTest("with what lies between its filesystem's end and its own", async (scope) => {
    const { path } = ext4Device(scope);
    run(["e2fsck", "-fy", path]);
    run(["resize2fs", path, "32M"]);
    const { done } = await captured(scope, path);
    // Its random bytes are no zeros, and no map speaks of them.
    expect(done.bytesTotal).toBeGreaterThanOrEqual(32 * MIB);
    expect(done.unusedBytes).toBeGreaterThan(16 * MIB);
    expect(Number(done.unusedBytes)).toBeLessThan(32 * MIB);
  });

  scopedTest("into a copy as well, at any merge gap; both are what the torrent says", async (scope) => {
    const { path } = ext4Device(scope);
    await filesystemOf("ext4").fill(path, testFiles(40, 100_000));
    const folder = scope.ramDir();
    const [torrent, copy] = [join(folder, "image.torrent"), join(folder, "copy.raw")];
    const unused: number[] = [];
    for (const gap of ["0", "64K", "4M"]) {
      const words = ["capture", path, "-o", torrent, "--save", copy, "--merge-gap", gap];
      unused.push(Number((await (await succeed(scope, words)).done()).unusedBytes));
      for (const held of [path, copy]) await succeed(scope, ["verify", torrent, held]);
      run(["e2fsck", "-fn", copy]);
    }
    // What a wider gap joins is no longer left alone.
    expect(unused).toEqual([...unused].sort((a, b) => b - a));
    expect(unused[2]).toBeLessThan(unused[0]);
  });

  scopedTest("a partition node like a disk of its own", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "start=2048, size=40M");
    run(["addpart", disk, "1", "2048", String((40 * MIB) / 512)]);
    undoLater(scope, ["delpart", disk, "1"]);
    filesystemOf("ext4").make(`${disk}p1`);
    const { done } = await captured(scope, `${disk}p1`);
    expect(done).toMatchObject({ kind: "partition", diskBytes: 40 * MIB });
    expect(rowsOf(done)).toMatchObject([{ name: "all of it", filesystem: "ext4" }]);
    expect(done.unusedBytes).toBeGreaterThan(10 * MIB);
  });
});

/** How a filesystem looks after the power went, by one field each. */
const UNCLEAN: Record<string, { type: string; message: RegExp; spoil(device: string): void }> = {
  "Btrfs with a log tree": {
    type: "btrfs",
    message: /btrfs .* log tree .* --force/,
    spoil: (device) => overwrite(device, 65536, (bytes) => bytes.writeBigUInt64LE(0x1234000n, 0x60)),
  },
  "Btrfs over two devices": {
    type: "btrfs",
    message: /btrfs .* 2 devices/,
    spoil: (device) => overwrite(device, 65536, (bytes) => bytes.writeBigUInt64LE(2n, 0x88)),
  },
  "exFAT that is marked": {
    type: "exfat",
    message: /exfat .* dirty/,
    spoil: (device) => overwrite(device, 0, (bytes) => bytes.writeUInt16LE(2, 106)),
  },
  "FAT by partclone's word": {
    type: "vfat",
    message: /vfat .* partclone\.vfat says: .*valid state/,
    // FAT[1] of FAT32: bit 27 is cleared while the volume is in use.
    spoil: (device) =>
      overwrite(device, 0, (boot) => {
        const fat = boot.readUInt16LE(14) * 512;
        overwrite(device, fat, (bytes) => bytes.writeUInt32LE((bytes.readUInt32LE(4) & ~0x08000000) >>> 0, 4));
      }),
  },
  "HFS+ by partclone's word": {
    type: "hfsplus",
    message: /hfsplus .* partclone\.hfsplus says: /,
    spoil: (device) => overwrite(device, 1024, (header) => void header.writeUInt32BE(0, 4)),
  },
  "NTFS by partclone's word": {
    type: "ntfs",
    message: /ntfs .* partclone\.ntfs says: NTFS Volume .* is scheduled for a check .* boot Windows or fix it by fsck/,
    spoil: (device) =>
      overwrite(device, 0, (boot) => {
        const clusterBytes = boot.readUInt16LE(11) * boot[13];
        // $Volume is the fourth record, also in the copy of the first four.
        for (const table of [48, 56]) {
          const record = Number(boot.readBigUInt64LE(table)) * clusterBytes + 3 * 1024;
          overwrite(device, record, markNtfsDirty, 1024);
        }
      }),
  },
  "F2FS that was not unmounted": {
    type: "f2fs",
    message: /f2fs .* not unmounted/,
    spoil: (device) =>
      overwrite(device, 1024, (superblock) => {
        const first = superblock.readUInt32LE(76) * 4096;
        for (const pack of [first, first + 512 * 4096])
          overwrite(device, pack, (bytes) => void bytes.writeUInt32LE((bytes.readUInt32LE(132) & ~1) >>> 0, 132));
      }),
  },
};

/** Sets the flag in the attribute VOLUME_INFORMATION (0x70) of the record of $Volume. */
function markNtfsDirty(record: Buffer): void {
  let at = record.readUInt16LE(20);
  while (record.readUInt32LE(at) !== 0x70) at += record.readUInt32LE(at + 4);
  const flags = at + record.readUInt16LE(at + 20) + 10;
  record.writeUInt16LE(record.readUInt16LE(flags) | 1, flags);
}

describe.skipIf(!isRoot)("a filesystem that was not left in order is refused:", () => {
  for (const [name, { type, message, spoil }] of Object.entries(UNCLEAN)) {
    scopedTest(name, async (scope) => {
      const filesystem = filesystemOf(type);
      const { path } = loopDevice(scope, filesystem.lengthBytes);
      filesystem.make(path);
      spoil(path);
      await expectFailure(scope, path, REFUSED, message);
      const { done, run: capture } = await captured(scope, path, "--force");
      expect(warningsOf(capture)).toEqual(["filesystem-unclean"]);
      expect(done.unusedBytes).toBe(0);
    });
  }

  for (const type of ["ext4", "xfs"]) {
    scopedTest(`${type} as the power leaves it`, async (scope) => {
      const filesystem = filesystemOf(type);
      const { path, backingPath } = loopDevice(scope, filesystem.lengthBytes);
      filesystem.make(path);
      const mount = mountDevice(scope, path);
      for (const { name, bytes } of testFiles(4, 1 * MIB)) writeFileSync(join(mount, name), bytes);
      run(["sync", "--file-system", mount]);
      run(["blockdev", "--flushbufs", path]);
      const after = join(scope.ramDir(), "crashed");
      copyFileSync(backingPath, after);
      await expectFailure(scope, after, REFUSED, new RegExp(`${type} .* not replayed`), ["--extents", "partclone"]);
      const crashed = loopPart(scope, after, { offsetBytes: 0, lengthBytes: filesystem.lengthBytes });
      const { done } = await captured(scope, crashed, "--force");
      expect(done.unusedBytes).toBe(0);
    });
  }
});

describe.skipIf(!isRoot)("a partition table that is damaged is refused:", () => {
  const LAST_LBA = DISK_BYTES / 512 - 1;
  const DAMAGE: Record<string, { lba: number; message: RegExp; change(bytes: Buffer): void }> = {
    "a primary header that is gone": { lba: 1, message: /primary GPT .* is missing/, change: (bytes) => bytes.fill(0) },
    "a primary header with a flipped bit": {
      lba: 1,
      message: /primary GPT .* checksum/,
      change: (bytes) => void bytes.writeUInt8(bytes[60] ^ 1, 60),
    },
    "primary entries with a flipped bit": {
      lba: 2,
      message: /primary GPT .* entries with a wrong checksum/,
      change: (bytes) => void bytes.writeUInt8(bytes[20] ^ 1, 20),
    },
    "a backup header that is gone": {
      lba: LAST_LBA,
      message: /backup GPT .* is missing/,
      change: (bytes) => bytes.fill(0),
    },
  };
  for (const [name, { lba, message, change }] of Object.entries(DAMAGE)) {
    scopedTest(name, async (scope) => {
      const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=20M", "size=20M");
      overwrite(disk, lba * 512, change);
      await expectFailure(scope, disk, REFUSED, message);
      const { done, run: capture } = await captured(scope, disk, "--force");
      expect(warningsOf(capture)).toEqual(["gpt-damaged"]);
      expect(rowsOf(done).map(({ name }) => name)).toContain("partition 2");
      // What the message advises.
      run(["sgdisk", "--move-second-header", disk]);
      expect(warningsOf((await captured(scope, disk)).run)).toEqual([]);
    });
  }

  scopedTest("both copies of a GPT", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=20M");
    for (const lba of [1, LAST_LBA]) overwrite(disk, lba * 512, (bytes) => bytes.fill(0));
    await expectFailure(scope, disk, REFUSED, /primary GPT .* backup is damaged too/);
    const { done } = await captured(scope, disk, "--force");
    expect(done.unusedBytes).toBe(0);
  });

  const partitionEntry = (number: number) => 446 + (number - 1) * 16;
  scopedTest("partitions that overlap", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: dos", "size=20M", "size=20M");
    overwrite(disk, 0, (mbr) => mbr.writeUInt32LE(30_000, partitionEntry(2) + 8));
    await expectFailure(scope, disk, REFUSED, /partition 2 overlaps 1/);
    const { done, run: capture } = await captured(scope, disk, "--force");
    expect(warningsOf(capture)).toEqual(["partition-table"]);
    expect(done.unusedBytes).toBe(0);
  });

  scopedTest("a partition beyond the end", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: dos", "size=20M", "size=20M");
    overwrite(disk, 0, (mbr) => mbr.writeUInt32LE(1_000_000, partitionEntry(2) + 12));
    await expectFailure(scope, disk, REFUSED, /partition 2 ends beyond the disk/);
  });

  scopedTest("but a hybrid MBR is none, and stays what it is", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=20M", "size=20M");
    run(["sgdisk", "--hybrid", "1:2", disk]);
    const { done, run: capture } = await captured(scope, disk);
    expect(warningsOf(capture)).toEqual([]);
    expect(rowsOf(done).map(({ name }) => name)).toContain("partition 2");
  });
});
