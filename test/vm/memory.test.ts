/** Little memory: the image is ten times what the machine has, and is on its disk byte for byte in the end. */
import { describe } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand, bootFolder } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 15 * 60_000;
/** What a machine gets by with that boots in one stage, packed as admins get it (docs/decisions/0020). */
const MEMORY_MIB = 192;
const IMAGE_BYTES = 2048 * MIB;

bootBeforehand(["one-stage"], "xz");

describe.skipIf(!isRoot)("a machine of 192 MB", () => {
  scopedTest(
    "deploys an image of 2 GiB to a proof",
    async (scope) => {
      const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 11);
      const disk = join(scope.tempDir(), "disk");
      sparseFile(disk, IMAGE_BYTES);
      const flags = ["--after", "poweroff"];
      const room = await Room.open(scope, { images: [image], bootFolder: bootFolder("one-stage", "xz"), flags });
      await room.serve();
      const disks = [{ path: disk, serial: "D1" }];
      const vm = await room.switchOn("small", { memoryMiB: MEMORY_MIB, disks, words: [] });
      const [, peak] = await vm.console.waitFor(/done and flushed, .* peak memory ([\d.]+ MiB)/, {
        timeoutMs: TIMEOUT_MS,
      });
      await vm.waitForPowerOff();
      expectSameBytes(disk, image, IMAGE_BYTES);
      console.log(`2 GiB after ${vm.console.seconds.toFixed(0)} s; the program's peak: ${peak}`);
    },
    TIMEOUT_MS,
  );
});
