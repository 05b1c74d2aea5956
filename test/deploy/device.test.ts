/** From disk to disk, as users do it: a device with a filesystem is captured, deployed and used. */
import { describe, expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, seed, start, succeed } from "../harness/diskswarm.ts";
import { MIB, NODE_HOST, deploy, loopbackSeeder } from "../harness/fixture.ts";
import { randomBytes, stampedImage } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { mountDevice } from "../harness/mounts.ts";
import { Network } from "../harness/network.ts";
import { freePort } from "../harness/ports.ts";
import { run } from "../harness/process.ts";
import { scopedTest, Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

const DISK_BYTES = 64 * MIB;

/** A device with an ext4 filesystem that holds a few files. */
async function filledDevice(scope: Scope): Promise<string> {
  const device = loopDevice(scope, DISK_BYTES).path;
  run(["mkfs.ext4", "-q", "-L", "room", device]);
  const filling = new Scope();
  try {
    const folder = mountDevice(filling, device);
    mkdirSync(join(folder, "home"));
    for (let i = 0; i < 40; i++) writeFileSync(join(folder, "home", `file-${i}`), randomBytes(1 + i * 20_011, i));
  } finally {
    await filling.close();
  }
  return device;
}

describe.skipIf(!isRoot)("a device with a filesystem", () => {
  scopedTest("is captured, deployed to a dirty device, and mounts there", async (scope) => {
    const source = await filledDevice(scope);
    const torrent = await capture(scope, source, join(scope.tempDir(), "room.torrent"), "--extents", "data");
    const seeder = await loopbackSeeder(scope, torrent, source);
    const target = loopDevice(scope, DISK_BYTES, { dirty: true }).path;
    await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
    expectSameBytes(target, source, DISK_BYTES);
    await seeder.run.child.stop();
    run(["e2fsck", "-fn", target]);
    const folder = mountDevice(scope, target);
    expect((await Bun.file(join(folder, "home", "file-39")).bytes()).length).toBe(1 + 39 * 20_011);
    await succeed(scope, ["verify", torrent, source]);
  });

  scopedTest("is imaged again after a small change by fetching that change alone", async (scope) => {
    const source = await filledDevice(scope);
    const torrent = await capture(
      scope,
      source,
      join(scope.tempDir(), "room.torrent"),
      "--piece-size",
      "256K",
      "--extents",
      "data",
    );
    const target = loopDevice(scope, DISK_BYTES).path;
    const seeder = await loopbackSeeder(scope, torrent, source);
    await deploy(scope, torrent, target, [seeder.peer]);
    run([
      "dd",
      "if=/dev/urandom",
      `of=${target}`,
      "bs=4096",
      "seek=3000",
      "count=1",
      "conv=notrunc,fsync",
      "status=none",
    ]);
    const again = await deploy(scope, torrent, target, [seeder.peer]);
    const done = await again.done();
    expect(done.bytesFetched).toBeLessThanOrEqual(2 * 256 * 1024);
    expect(done.bytesReused + done.bytesFetched).toBeGreaterThanOrEqual(done.bytesTotal);
    expectSameBytes(target, source, DISK_BYTES);
  });

  scopedTest("is deployed to a disk that rotates, in little memory, and half of it when interrupted", async (scope) => {
    const source = await filledDevice(scope);
    const torrent = await capture(scope, source, join(scope.tempDir(), "room.torrent"), "--extents", "all");
    const network = new Network(scope);
    const [seederMachine, machine] = [network.machine(), network.machine()];
    const at = { host: seederMachine.address, port: 6881 };
    const seeder = await seed(scope, torrent, source, at, [], { machine: seederMachine });
    const target = loopDevice(scope, DISK_BYTES, { dirty: true }).path;
    writeFileSync(`/sys/block/${basename(target)}/queue/rotational`, "1");
    machine.shape(100);
    const words = ["deploy", torrent, target, "--delta", "always", "--memory", "16M", "--peer", seeder.peer];
    const interrupted = start(scope, words, { machine });
    await interrupted.event("progress", (e) => e.phase === "fetch" && Number(e.bytesDone) >= 0.3 * DISK_BYTES);
    interrupted.child.signal("SIGINT");
    await interrupted.expectExit(130);
    machine.unshape();
    const again = start(scope, words, { machine });
    await again.expectExit(0);
    expect((await again.done()).bytesReused).toBeGreaterThan(DISK_BYTES / 5);
    expectSameBytes(target, source, DISK_BYTES);
  });

  scopedTest("that was only half written is no filesystem, neither the new nor the old one", async (scope) => {
    const source = await filledDevice(scope);
    const torrent = await capture(scope, source, join(scope.tempDir(), "room.torrent"), "--extents", "all");
    const target = loopDevice(scope, DISK_BYTES).path;
    run(["mkfs.ext4", "-q", "-L", "old", target]);
    const network = new Network(scope);
    const [seederMachine, machine] = [network.machine(), network.machine()];
    const seeder = await seed(scope, torrent, source, { host: seederMachine.address, port: 6881 }, [], {
      machine: seederMachine,
    });
    machine.shape(100);
    const words = ["deploy", torrent, target, "--delta", "never", "--peer", seeder.peer];
    const deployment = start(scope, words, { machine });
    await deployment.progressed(0.3);
    await deployment.child.kill();
    const NOTHING_FOUND = 2;
    expect(Bun.spawnSync(["blkid", "-p", target]).exitCode).toBe(NOTHING_FOUND);
    machine.unshape();
    await start(scope, words, { machine }).expectExit(0);
    expect(run(["blkid", "-p", "-o", "value", "-s", "LABEL", target]).trim()).toBe("room");
  });
});

scopedTest("a deployed file is seeded on, and deployed back", async (scope) => {
  const folder = scope.ramDir();
  const lengthBytes = 7 * MIB + 777;
  const image = stampedImage(join(folder, "image.raw"), lengthBytes, 81);
  const torrent = await capture(scope, image, join(folder, "image.torrent"));
  const first = await loopbackSeeder(scope, torrent, image);
  const copy = join(folder, "copy");
  await deploy(scope, torrent, copy, [first.peer]);
  await first.run.child.stop();
  const second = await loopbackSeeder(scope, torrent, copy);
  const back = join(folder, "back");
  await deploy(scope, torrent, back, [second.peer]);
  expectSameBytes(back, image, lengthBytes);
});

scopedTest("a magnet link is enough where a peer is named", async (scope) => {
  const folder = scope.ramDir();
  const image = stampedImage(join(folder, "image.raw"), 4 * MIB, 82);
  const torrent = await capture(scope, image, join(folder, "image.torrent"));
  const seeder = await loopbackSeeder(scope, torrent, image);
  const inspection = await succeed(scope, ["inspect", torrent]);
  const infoHash = /"infoHash":"([0-9a-f]{40})"/.exec(inspection.child.stdout)![1];
  const target = join(folder, "target");
  const at = ["--listen", NODE_HOST, "--port", String(await freePort())];
  const magnet = `magnet:?xt=urn:btih:${infoHash}`;
  await start(scope, ["deploy", magnet, target, "--force", "--peer", seeder.peer, ...at]).expectExit(0);
  expectSameBytes(target, image, 4 * MIB);
});
