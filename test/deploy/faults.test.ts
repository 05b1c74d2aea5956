/** Disks that fail, disks that fill up and sources that change: each is named, and nothing is called done. */
import { describe, expect } from "bun:test";
import { statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { start } from "../harness/diskswarm.ts";
import { MIB, capturedImage, loopbackSeeder, startDeploy } from "../harness/fixture.ts";
import { sparseFile, writeStamped } from "../harness/image.ts";
import { mountDevice, smallTmpfs } from "../harness/mounts.ts";
import { run } from "../harness/process.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { loopDevice } from "../harness/loop.ts";

const IMAGE_BYTES = 32 * MIB;
const ROOM_BYTES = 20 * MIB;

/** A loop device whose backing file runs out of room: a write beyond it fails with EIO, as on a dying disk. */
function failingDevice(scope: Scope): string {
  const backing = join(smallTmpfs(scope, ROOM_BYTES), "backing");
  sparseFile(backing, IMAGE_BYTES);
  const path = run(["losetup", "--find", "--show", backing]).trim();
  scope.defer(() => void run(["losetup", "--detach", path]));
  return path;
}

async function expectDiskFault(scope: Scope, target: string, flags: readonly string[]): Promise<void> {
  const image = await capturedImage(scope, IMAGE_BYTES);
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  const deployment = await startDeploy(scope, image.torrent, target, [seeder.peer], flags);
  const { stderr } = await deployment.expectExit(1);
  expect(stderr).toContain(target);
  expect(stderr).toMatch(/byte \d+/);
  expect(deployment.events.some(({ event }) => event === "done")).toBe(false);
}

describe.skipIf(!isRoot)("in the middle of a deployment", () => {
  for (const flags of [
    ["--direct", "auto"],
    ["--direct", "off"],
    ["--io", "epoll"],
  ]) {
    scopedTest(`EIO of the device ends it, naming device and offset: ${flags.join(" ")}`, async (scope) => {
      await expectDiskFault(scope, failingDevice(scope), flags);
    });

    scopedTest(`a full disk ends it, naming file and offset: ${flags.join(" ")}`, async (scope) => {
      const target = join(smallTmpfs(scope, ROOM_BYTES), "target");
      sparseFile(target, IMAGE_BYTES);
      await expectDiskFault(scope, target, flags);
    });
  }

  scopedTest("a filesystem's own full disk", async (scope) => {
    const device = loopDevice(scope, ROOM_BYTES);
    run(["mkfs.ext4", "-q", device.path]);
    const target = join(mountDevice(scope, device.path), "target");
    sparseFile(target, IMAGE_BYTES);
    await expectDiskFault(scope, target, []);
  });
});

scopedTest("a seeder whose source shrank refuses to start", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  truncateSync(image.path, IMAGE_BYTES - 4096);
  const seeder = start(scope, ["seed", image.torrent, image.path, "--port", "0"]);
  const { exitCode, stderr } = await seeder.ended;
  expect([1, 3, 4]).toContain(exitCode);
  expect(stderr).toContain(image.path);
});

scopedTest("a seeder whose source changed says so under --check", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  writeStamped(image.path, [{ offsetBytes: 9 * MIB, lengthBytes: 512 }], 99);
  const seeder = start(scope, ["seed", image.torrent, image.path, "--port", "0", "--check"]);
  const { stderr } = await seeder.expectExit(3);
  expect(stderr).toContain(image.path);
});

scopedTest("a source that changed after its capture never becomes a proof", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  writeStamped(image.path, [{ offsetBytes: 9 * MIB, lengthBytes: 512 }], 99);
  const target = join(scope.ramDir(), "target");
  const deployment = await startDeploy(scope, image.torrent, target, [seeder.peer], ["--timeout", "5s"]);
  // Wrong data is met (3), or the seeder notices first that its source changed and ends, and nobody is left (5).
  const { exitCode } = await deployment.ended;
  expect([3, 5]).toContain(exitCode);
  if (exitCode === 5) await seeder.run.expectExit(3);
  expect(deployment.events.some(({ event }) => event === "done")).toBe(false);
});

scopedTest("a source that shrinks under the seeder is reported by it", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  truncateSync(image.path, 4 * MIB);
  const target = join(scope.ramDir(), "target");
  const deployment = await startDeploy(scope, image.torrent, target, [seeder.peer], ["--timeout", "5s"]);
  await seeder.run.child.waitForLine((line) => line.includes(image.path) && /bytes?\b/.test(line));
  const { exitCode } = await deployment.ended;
  expect([1, 3, 5]).toContain(exitCode);
});

scopedTest("verify finds each bad piece and its place on the disk", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  const good = start(scope, ["verify", image.torrent, image.path]);
  await good.expectExit(0);
  writeStamped(
    image.path,
    [
      { offsetBytes: 9 * MIB, lengthBytes: 512 },
      { offsetBytes: 20 * MIB, lengthBytes: 512 },
    ],
    99,
  );
  const bad = start(scope, ["verify", image.torrent, image.path]);
  const { stdout, stderr } = await bad.expectExit(3);
  for (const piece of [36, 80]) expect(stdout + stderr).toMatch(new RegExp(`\\b${piece}\\b`));
  expect(statSync(image.path).size).toBe(IMAGE_BYTES);
});
