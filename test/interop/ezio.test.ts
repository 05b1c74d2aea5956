/**
 * EZIO's torrents: made by ours alike, from a device, an image and partclone's torrent.info, and one swarm with
 * libtorrent, which EZIO is but for where it writes; here it writes a file for each extent.
 */
import { describe, expect } from "bun:test";
import { mkdirSync, readdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CLIENT_PORT, startClient } from "../harness/clients.ts";
import { partcloneTo } from "../harness/clonezilla.ts";
import { expectSame } from "../harness/compare.ts";
import { fail, seed, start, succeed } from "../harness/diskswarm.ts";
import { gptDisk } from "../harness/disks.ts";
import { digestsOf, type Filesystem, filesystemOf, partcloneRuns, testFiles } from "../harness/filesystems.ts";
import { loopDevice } from "../harness/loop.ts";
import { Network } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools, PYTHON } from "../harness/tools.ts";

const MIB = 1024 * 1024;
/** More than one piece of 16 MiB. */
const FILES = testFiles(24, 2 * MIB);

async function filled(scope: Scope, filesystem: Filesystem): Promise<string> {
  const { path } = loopDevice(scope, filesystem.lengthBytes, { dirty: 5 });
  filesystem.make(path);
  await filesystem.fill(path, FILES);
  return path;
}

/** What partclone writes of a device (`clone`) or of its image (`restore`) for EZIO. */
function torrentInfo(scope: Scope, words: string[]): string {
  const folder = join(scope.ramDir(), "bt");
  mkdirSync(folder);
  run([...words, "-t", "-q", "-f", "0", "-L", "/dev/null", "-o", folder]);
  return join(folder, "torrent.info");
}

/** The reference: made by libtorrent as EZIO's tool does. */
function reference(info: string, name: string): { torrent: string; infoHash: string } {
  const torrent = join(info, "..", `${name}.torrent`);
  return { torrent, infoHash: run([PYTHON, join(import.meta.dir, "ezio_make.py"), info, name, torrent]).trim() };
}

async function infoHashOf(scope: Scope, source: string, ...flags: string[]): Promise<unknown> {
  const torrent = join(scope.ramDir(), "x.torrent");
  const done = await (await succeed(scope, ["capture", source, "-o", torrent, "--name", "sda1", ...flags])).done();
  expect(done.zeroBytes).toBe(0);
  return done.infoHash;
}

describe.skipIf(!isRoot)("a torrent for EZIO", () => {
  for (const type of ["ext4", "xfs", "ntfs", "vfat", "btrfs"]) {
    scopedTest(`of ${type} has the info hash that EZIO's tool gives, of a device and of an image`, async (scope) => {
      const filesystem = filesystemOf(type);
      needTools("partclone.restore");
      const device = await filled(scope, filesystem);
      const info = torrentInfo(scope, [filesystem.partclone, "-c", "-s", device]);
      const { infoHash } = reference(info, "sda1");
      expect(await infoHashOf(scope, device, "--compat", "ezio")).toBe(infoHash);
      expect(await infoHashOf(scope, `${info}=${device}`)).toBe(infoHash);
      const image = join(scope.ramDir(), "part.img");
      run(partcloneTo(image, filesystem.partclone, device).split(" "));
      const restored = torrentInfo(scope, ["partclone.restore", "-s", image]);
      const ofImage = reference(restored, "sda1").infoHash;
      const raw = join(scope.ramDir(), "part.raw");
      expect(await infoHashOf(scope, image, "--compat", "ezio", "--save", raw)).toBe(ofImage);
      expect(await infoHashOf(scope, `${restored}=${raw}`)).toBe(ofImage);
    });
  }

  scopedTest("is seeded by us to libtorrent, and by libtorrent to our node", async (scope) => {
    const filesystem = filesystemOf("ext4");
    const device = await filled(scope, filesystem);
    const info = torrentInfo(scope, [filesystem.partclone, "-c", "-s", device]);
    const { torrent } = reference(info, "sda1");
    const network = new Network(scope);
    const [ours, theirs, node] = [network.machine(), network.machine(), network.machine()];
    const seeder = await seed(scope, torrent, device, { host: ours.address, port: CLIENT_PORT }, [], { machine: ours });
    const folder = scope.ramDir();
    const client = startClient(scope, "libtorrent", theirs, { torrent, folder, seeds: false, peers: [seeder.peer] });
    await client.complete();
    const { runs } = partcloneRuns(filesystem, device);
    const names = readdirSync(join(folder, "sda1"));
    const sizes = names.map((name) => statSync(join(folder, "sda1", name)).size);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(
      runs.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0),
    );
    const joined = join(scope.ramDir(), "joined");
    for (const name of names)
      run([
        "dd",
        `if=${join(folder, "sda1", name)}`,
        `of=${joined}`,
        `seek=${Number(`0x${name}`)}`,
        "bs=1M",
        "oflag=seek_bytes",
        "conv=notrunc",
        "status=none",
      ]);
    expectSame(joined, device, runs);
    await seeder.run.child.stop();
    const target = loopDevice(scope, filesystem.lengthBytes, { dirty: 6 });
    const at = ["--listen", node.address, "--port", String(CLIENT_PORT), "--peer", `${theirs.address}:${CLIENT_PORT}`];
    const deployment = start(scope, ["deploy", torrent, target.path, "--verify", ...at], { machine: node });
    expect(await deployment.done()).toMatchObject({ flushed: true, verified: true });
    expectSame(target.path, device, runs);
    filesystem.check(target.path);
    expect(await filesystem.digests(target.path)).toEqual(digestsOf(FILES));
  });

  scopedTest("of a whole disk has its tables and its filesystems' used blocks, in every byte", async (scope) => {
    const disk = await gptDisk(scope);
    const folder = scope.ramDir();
    const [torrent, copy] = [join(folder, "disk.torrent"), join(folder, "disk.raw")];
    const words = ["capture", disk.path, "-o", torrent, "--compat", "ezio", "--save", copy];
    const done = await (await succeed(scope, words)).done();
    expect(done).toMatchObject({ zeroBytes: 0, pieceBytes: 16 * MIB });
    expect(Number(done.payloadBytes)).toBeLessThan(disk.lengthBytes / 2);
    await succeed(scope, ["verify", torrent, copy]);
    expectSame(copy, disk.path, [{ offsetBytes: 0, lengthBytes: 1 * MIB }]);
    const all = await succeed(scope, [...words.slice(0, 6), "--extents", "all"]);
    expect(await all.done()).toMatchObject({ payloadBytes: disk.lengthBytes, extentCount: 1 });
  });

  scopedTest("of another disk, of a text that is cut off or without its disk is refused in one line", async (scope) => {
    const filesystem = filesystemOf("ext4");
    const device = await filled(scope, filesystem);
    const info = torrentInfo(scope, [filesystem.partclone, "-c", "-s", device]);
    const folder = scope.ramDir();
    const refused = (source: string, exitCode: number, message: RegExp) =>
      fail(
        scope,
        ["capture", source, "-o", join(folder, "x.torrent"), "--save", join(folder, "x.raw")],
        exitCode,
        message,
      );
    const other = loopDevice(scope, filesystem.lengthBytes, { dirty: 8 }).path;
    await refused(`${info}=${other}`, 3, /\/dev\/loop\d+ is not what .*torrent\.info was made of: piece 0 differs/);
    await refused(`${info}=${loopDevice(scope, 1 * MIB).path}`, 1, /name the right disk/);
    await refused(info, 1, /is a torrent\.info of partclone: name the disk that it was made of as well/);
    truncateSync(info, 1000);
    await refused(`${info}=${device}`, 1, /torrent\.info is cut off: make it again with partclone/);
    writeFileSync(info, "block_size: 4096\nsome other text\n");
    await refused(`${info}=${device}`, 1, /torrent\.info has the line "some other text": make it again/);
    expect(readdirSync(folder)).toEqual([]);
  });
});
