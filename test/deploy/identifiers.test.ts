/** `deploy --new-uuids`, and what the kernel and the user see of a disk that was deployed. */
import { describe, expect } from "bun:test";
import { readdirSync } from "node:fs";
import { fail } from "../harness/diskswarm.ts";
import { type Disk, expectSamePartition, smallDisk, makeDisk, mbrDisk, partitionsOf } from "../harness/disks.ts";
import { run } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { captureDisk, deployTo, expectSoundGpt, expectSoundTable, identifiers } from "./whole-disks.ts";

const MIB = 1024 * 1024;
const NEW = { flags: ["--new-uuids"] };

/** Identifiers of filesystems, which fstab names. */
function filesystemIds(disk: Disk, path: string): string[] {
  return disk.partitions.map(({ offsetBytes, lengthBytes, type }) =>
    type === ""
      ? ""
      : run(["blkid", "-p", "-o", "value", "-s", "UUID", "-O", String(offsetBytes), "-S", String(lengthBytes), path]),
  );
}

describe.skipIf(!isRoot)("--new-uuids", () => {
  scopedTest("gives a GPT disk and its partitions new ones, and nothing else", async (scope) => {
    const disk = await smallDisk(scope);
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes + 16 * MIB, NEW);
    expectSoundGpt(target);
    const [before, after] = [identifiers(disk.path), identifiers(target)];
    expect(after).toHaveLength(3);
    expect(new Set([...before, ...after]).size).toBe(6);
    expect(partitionsOf(target)).toEqual(partitionsOf(disk.path));
    expect(filesystemIds(disk, target)).toEqual(filesystemIds(disk, disk.path));
    for (const partition of disk.partitions) await expectSamePartition(target, disk, partition);
    expect(events.filter(({ event }) => event === "new-uuids")).toMatchObject([{ from: before[0], to: after[0] }]);
    const [warning] = events.filter(({ event }) => event === "warning");
    expect(String(warning.message)).toMatch(/PARTUUID=/);
  });

  scopedTest("gives an MBR disk a new signature", async (scope) => {
    const disk = await mbrDisk(scope);
    const { torrent } = await captureDisk(scope, disk);
    const { target } = await deployTo(scope, torrent, disk, disk.lengthBytes, NEW);
    expectSoundTable(target);
    const [[before], [after]] = [identifiers(disk.path), identifiers(target)];
    expect(after).toMatch(/^0x[0-9a-f]{8}$/);
    expect(after).not.toBe(before);
    for (const partition of disk.partitions.filter(({ type }) => type !== ""))
      await expectSamePartition(target, disk, partition);
  });

  scopedTest("is refused for a file before anything is written", async (scope) => {
    const disk = await makeDisk(scope, 20 * MIB, ["label: gpt", "size=16M"], [""]);
    const { torrent } = await captureDisk(scope, disk);
    const file = `${scope.tempDir()}/file`;
    run(["truncate", "-s", "1M", file]);
    await fail(
      scope,
      ["deploy", torrent, file, "--force", ...NEW.flags],
      2,
      /--new-uuids needs a disk or partition as target/,
    );
  });
});

describe.skipIf(!isRoot)("after a deployment", () => {
  scopedTest("the kernel knows the disk's partitions", async (scope) => {
    const disk = await makeDisk(scope, 40 * MIB, ["label: gpt", "size=16M", "size=8M"], ["", ""]);
    const { torrent } = await captureDisk(scope, disk);
    const { target } = await deployTo(scope, torrent, disk, disk.lengthBytes, { loop: { partitions: true } });
    const name = target.replace("/dev/", "");
    const seen = readdirSync(`/sys/block/${name}`).filter((entry) => entry.startsWith(name));
    expect(seen.sort()).toEqual([`${name}p1`, `${name}p2`]);
  });

  scopedTest("and --grow works through the kernel's nodes of them", async (scope) => {
    const disk = await makeDisk(scope, 140 * MIB, ["label: gpt", "size=128M"], ["ext4"]);
    const { torrent } = await captureDisk(scope, disk);
    const loop = { partitions: true };
    const { target } = await deployTo(scope, torrent, disk, 200 * MIB, { flags: ["--grow"], loop });
    expectSoundGpt(target);
    expect(run(["e2fsck", "-fn", `${target}p1`])).toContain("files");
    expect(run(["dumpe2fs", "-h", `${target}p1`])).toMatch(/Block count:\s+202752/);
  });
});
