/** Every filesystem that Debian makes: only its used blocks are sent, and what arrives on a dirty disk is the same. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { succeed } from "../harness/diskswarm.ts";
import { deploy, loopbackSeeder, MIB } from "../harness/fixture.ts";
import { digestsOf, FILESYSTEMS, filesystemOf, partcloneRuns, testFiles } from "../harness/filesystems.ts";
import { loopDevice } from "../harness/loop.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

/** 48 MiB of which 24 are deleted: what a filesystem keeps about them is small beside it. */
const FILES = testFiles(24, 2 * MIB);

describe.skipIf(!isRoot)("of a filesystem used blocks alone are deployed:", () => {
  for (const { type } of FILESYSTEMS) {
    scopedTest(type, async (scope) => {
      const filesystem = filesystemOf(type);
      const { lengthBytes } = filesystem;
      const source = loopDevice(scope, lengthBytes, { dirty: 1 }).path;
      filesystem.make(source);
      await filesystem.fill(source, FILES);
      const { runs, usedBytes } = partcloneRuns(filesystem, source);

      const torrent = join(scope.tempDir(), "image.torrent");
      const capture = await succeed(scope, ["capture", source, "-o", torrent]);
      const done = await capture.done();
      expect(done.areas).toMatchObject([{ name: "all of it", filesystem: type, lengthBytes }]);
      const takenBytes = done.bytesTotal + Number(done.zeroBytes);
      expect(done.bytesTotal).toBeLessThanOrEqual(usedBytes * 1.05);
      expect(takenBytes).toBeGreaterThanOrEqual(usedBytes * 0.95);
      expect(takenBytes).toBeLessThanOrEqual(usedBytes * 1.05);

      const target = loopDevice(scope, lengthBytes, { dirty: 2 }).path;
      const seeder = await loopbackSeeder(scope, torrent, source);
      await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
      await seeder.run.child.stop();
      filesystem.check(target);
      expectSame(target, source, runs);
      expect([null, digestsOf(FILES)]).toContainEqual(await filesystem.digests(target));
      await succeed(scope, ["verify", torrent, source]);
    });
  }
});
