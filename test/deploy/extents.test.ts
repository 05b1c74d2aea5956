/** Every byte of an image ends where it belongs, and no other byte of the target changes. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { expectSame, expectSameBytes, gapsBetween } from "../harness/compare.ts";
import { MIB, PIECE_BYTES, capturedImage, deploy, loopbackSeeder } from "../harness/fixture.ts";
import { fillRandom, scatteredExtents, sparseFile, stampedImage, type Extent } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { extentTorrent, writeTorrent } from "../harness/torrents.ts";

const DISK_BYTES = 128 * MIB;
const DATA_EXTENTS = scatteredExtents(40, DISK_BYTES, [4096], 3);

/** Deploys extents to a device that was full of random bytes; what is between them must still be random. */
async function deployScattered(
  scope: Scope,
  extents: readonly Extent[],
  sectorBytes: 512 | 4096,
  flags: readonly string[] = [],
): Promise<void> {
  const folder = scope.ramDir();
  const image = stampedImage(join(folder, "image.raw"), DISK_BYTES, 11, extents);
  const { path: torrent } = writeTorrent(join(folder, "t.torrent"), extentTorrent(image, extents, PIECE_BYTES));
  const untouched = join(folder, "untouched");
  sparseFile(untouched, DISK_BYTES);
  fillRandom(untouched, DISK_BYTES);
  const target = loopDevice(scope, DISK_BYTES, { sectorBytes, dirty: true });
  const seeder = await loopbackSeeder(scope, torrent, image);
  await deploy(scope, torrent, target.path, [seeder.peer], flags);
  expectSame(target.path, image, extents);
  expectSame(target.path, untouched, gapsBetween(extents, DISK_BYTES));
}

describe.skipIf(!isRoot)("deploy to a block device", () => {
  for (const align of [[512], [1024], [4096], [512, 1024, 4096]]) {
    scopedTest(`5,000 scattered extents at multiples of ${align.join(", ")}`, async (scope) => {
      await deployScattered(scope, scatteredExtents(5000, DISK_BYTES, align, align.length + align[0]!), 512);
    });
  }

  scopedTest("extents at multiples of 512 on a device with sectors of 4,096", async (scope) => {
    await deployScattered(scope, scatteredExtents(500, DISK_BYTES, [512], 7), 4096);
  });

  for (const direct of ["on", "off"]) {
    scopedTest(`extents with --direct ${direct}`, async (scope) => {
      await deployScattered(scope, scatteredExtents(500, DISK_BYTES, [4096], 8), 512, ["--direct", direct]);
    });
  }

  scopedTest("a sparse image makes the whole device equal, zeros included", async (scope) => {
    const image = await capturedImage(scope, DISK_BYTES, { extents: DATA_EXTENTS });
    const target = loopDevice(scope, DISK_BYTES, { dirty: true });
    const seeder = await loopbackSeeder(scope, image.torrent, image.path);
    const run = await deploy(scope, image.torrent, target.path, [seeder.peer], ["--verify"]);
    expectSameBytes(target.path, image.path, DISK_BYTES);
    const done = await run.done();
    expect(done.verified).toBe(true);
    expect(done.bytesTotal).toBeLessThan(DISK_BYTES);
  });

  scopedTest("a device larger than the image keeps what lies behind it", async (scope) => {
    const image = await capturedImage(scope, 16 * MIB);
    const target = loopDevice(scope, 20 * MIB, { dirty: true });
    const untouched = join(scope.ramDir(), "untouched");
    sparseFile(untouched, 20 * MIB);
    fillRandom(untouched, 20 * MIB);
    const seeder = await loopbackSeeder(scope, image.torrent, image.path);
    await deploy(scope, image.torrent, target.path, [seeder.peer]);
    expectSameBytes(target.path, image.path, 16 * MIB);
    expectSame(target.path, untouched, [{ offsetBytes: 16 * MIB, lengthBytes: 4 * MIB }]);
  });
});

scopedTest("a sparse image to a file, and verify agrees", async (scope) => {
  const image = await capturedImage(scope, DISK_BYTES, { extents: DATA_EXTENTS });
  const target = join(scope.ramDir(), "target");
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  await deploy(scope, image.torrent, target, [seeder.peer]);
  expectSameBytes(target, image.path, DISK_BYTES);
});

scopedTest("an image of an odd number of bytes to a file", async (scope) => {
  const lengthBytes = 5 * MIB + 4321;
  const image = await capturedImage(scope, lengthBytes);
  const target = join(scope.ramDir(), "target");
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  await deploy(scope, image.torrent, target, [seeder.peer]);
  expectSameBytes(target, image.path, lengthBytes);
  expect(Bun.file(target).size).toBe(lengthBytes);
});
