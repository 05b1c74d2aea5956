/** capture with tools that are missing, too old, broken or slow, and of a disk that fails: one line, nothing left behind. */
import { describe, expect } from "bun:test";
import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { start, succeed } from "../harness/diskswarm.ts";
import { filesystemOf, testFiles } from "../harness/filesystems.ts";
import { until } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import {
  MIB,
  DISK_BYTES,
  REFUSED,
  FAILED,
  viewsOf,
  expectFailure,
  ext4Device,
  partitioned,
  toolsWith,
} from "./surveying.ts";

describe.skipIf(!isRoot)("a tool that", () => {
  const GOOD_HEAD = "printf '0x04000000 ?\\n0x00000000 0x00100000 +\\n'";
  const CASES: Record<string, { tools: Record<string, string | null>; exitCode: number; message: RegExp }> = {
    "is missing, partclone,": {
      tools: { "partclone.ext4": null },
      exitCode: FAILED,
      message: /partclone\.ext4 is not installed: install the package partclone, or .*--extents data/,
    },
    "is missing, blkid,": { tools: { blkid: null }, exitCode: FAILED, message: /install the package util-linux/ },
    "is missing, losetup,": { tools: { losetup: null }, exitCode: FAILED, message: /install the package mount/ },
    "does not know an option, partclone,": {
      tools: { "partclone.ext4": `echo "partclone.ext4: invalid option -- 'D'" >&2` },
      exitCode: FAILED,
      message: /install a newer package partclone/,
    },
    "does not know an option, blkid,": {
      tools: { blkid: `echo "blkid: unrecognized option '-p'" >&2; exit 4` },
      exitCode: FAILED,
      message: /install a newer package util-linux/,
    },
    "fails without a word": {
      tools: { "partclone.ext4": "exit 3" },
      exitCode: REFUSED,
      message: /ended with 3 and without a word/,
    },
    "is killed": { tools: { "partclone.ext4": "kill -9 $$" }, exitCode: REFUSED, message: /ended with 1\d\d/ },
    "says nothing": { tools: { "partclone.ext4": "exit 0" }, exitCode: REFUSED, message: /broken: it is empty/ },
    "stops in mid-map": { tools: { "partclone.ext4": GOOD_HEAD }, exitCode: REFUSED, message: /broken: it ends at/ },
    "tells of a larger filesystem than the partition": {
      tools: { "partclone.ext4": "printf '0x08000000 ?\\n0x00000000 0x08000000 +\\n'" },
      exitCode: REFUSED,
      message: /has 134217728 bytes and its partition 67108864/,
    },
    "rambles, and fails,": {
      tools: { "partclone.ext4": "printf 'a\\033[2Jb\\r\\nlast word\\n' >&2; exit 1" },
      exitCode: REFUSED,
      message: /partclone\.ext4 says: last word; /,
    },
  };
  for (const [name, { tools, exitCode, message }] of Object.entries(CASES)) {
    scopedTest(`${name} ends the capture in one line`, async (scope) => {
      const { path } = ext4Device(scope);
      await expectFailure(scope, path, exitCode, message, [], toolsWith(scope, tools));
    });
  }

  scopedTest("reads no partition tables (sfdisk without --json) ends the capture", async (scope) => {
    const disk = partitioned(scope, DISK_BYTES, "label: gpt", "size=20M");
    const old = toolsWith(scope, { sfdisk: `echo "sfdisk: unrecognized option '--json'" >&2; exit 1` });
    await expectFailure(scope, disk, FAILED, /install a newer package fdisk/, [], old);
    await expectFailure(scope, disk, FAILED, /install the package fdisk/, [], toolsWith(scope, { sfdisk: null }));
    const nothing = toolsWith(scope, { sfdisk: null, blkid: null, losetup: null, "partclone.ext4": null });
    const words = ["capture", disk, "-o", join(scope.ramDir(), "x.torrent"), "--extents", "data"];
    await succeed(scope, words, { env: nothing });
  });

  scopedTest("takes long is ended with the capture", async (scope) => {
    const { path } = ext4Device(scope);
    const folder = scope.ramDir();
    const started = join(folder, "started");
    const env = toolsWith(scope, { "partclone.ext4": `echo $$ > ${started}; exec sleep 1000` });
    const torrent = join(folder, "image.torrent");
    const capture = start(scope, ["capture", path, "-o", torrent], { env });
    await until("partclone runs", () => readdirSync(folder).length > 0);
    capture.child.signal("SIGINT");
    await capture.expectExit(130);
    expect(readdirSync(folder)).toEqual(["started"]);
    await until("no loop device is left", () => viewsOf(path) === "");
  });

  scopedTest("is killed with the capture leaves no loop device", async (scope) => {
    const { path } = ext4Device(scope);
    const folder = scope.ramDir();
    const env = toolsWith(scope, { "partclone.ext4": `echo $$ > ${join(folder, "started")}; exec sleep 2` });
    const capture = start(scope, ["capture", path, "-o", join(folder, "image.torrent")], { env });
    await until("partclone runs", () => readdirSync(folder).length > 0);
    expect(viewsOf(path)).not.toBe("");
    await capture.child.kill();
    await until("the loop device is gone", () => viewsOf(path) === "");
  });
});

describe.skipIf(!isRoot)("a disk that fails", () => {
  scopedTest("in mid-capture ends it with the place, and nothing is left behind", async (scope) => {
    const { path, backingPath } = ext4Device(scope);
    await filesystemOf("ext4").fill(path, testFiles(80, 0.5 * MIB));
    // Reading beyond what is left of the backing file is an I/O error of the device.
    truncateSync(backingPath, 24 * MIB);
    await expectFailure(scope, path, FAILED, /read \/dev\/loop\d+ at byte \d+: .*(I\/O|EIO)/);
  });
});
