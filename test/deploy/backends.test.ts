/** The same deployments where io_uring is denied, as container runtimes and old kernels do, and without it by choice. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { denyUring, type RunOptions } from "../harness/diskswarm.ts";
import { MIB, capturedImage, deploy, loopbackSeeder } from "../harness/fixture.ts";
import { scatteredExtents } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

const DISK_BYTES = 96 * MIB;
const EXTENTS = scatteredExtents(300, DISK_BYTES, [512, 4096], 21);

const WAYS: { name: string; flags: string[]; options: RunOptions }[] = [
  { name: "io_uring denied with EPERM", flags: [], options: { launcher: denyUring("EPERM") } },
  { name: "io_uring denied with ENOSYS", flags: [], options: { launcher: denyUring("ENOSYS") } },
  { name: "--io epoll", flags: ["--io", "epoll"], options: {} },
  { name: "--io uring", flags: ["--io", "uring"], options: {} },
];

describe.skipIf(!isRoot)("back ends", () => {
  for (const { name, flags, options } of WAYS) {
    scopedTest(`a sparse image to a dirty device: ${name}`, async (scope) => {
      const image = await capturedImage(scope, DISK_BYTES, { extents: EXTENTS });
      const target = loopDevice(scope, DISK_BYTES, { dirty: true });
      const seeder = await loopbackSeeder(scope, image.torrent, image.path, [], options);
      await deploy(scope, image.torrent, target.path, [seeder.peer], flags, options);
      expectSameBytes(target.path, image.path, DISK_BYTES);
    });
  }

  scopedTest("--io uring says so where io_uring is denied", async (scope) => {
    const image = await capturedImage(scope, MIB);
    const target = join(scope.ramDir(), "target");
    const seeder = await loopbackSeeder(scope, image.torrent, image.path);
    const failing = deploy(scope, image.torrent, target, [seeder.peer], ["--io", "uring"], {
      launcher: denyUring("EPERM"),
    });
    await expect(failing).rejects.toThrow(/io_uring/);
  });
});
