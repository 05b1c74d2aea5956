/** Little memory: the image is many times what the machine has, and is on its disk byte for byte in the end. */
import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand, bootFolder } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 15 * 60_000;
/** What machines get by with, packed as admins get it (docs/decisions/0020, 0023, 0025). */
const MACHINES = [
  { stages: "one-stage", memoryMiB: 192, imageMiB: 2048 },
  { stages: "two-stage", memoryMiB: 160, imageMiB: 128 },
  { stages: "two-stage", memoryMiB: 128, imageMiB: 512 },
] as const;
/** Which of them have no room for the image that they run on. */
const IMAGE_MEMORY_MIB = 144;
/** What such a machine says. */
const STAYS = "the image stays at the server";
/** What one stage may be on a stick or a TFTP server, in bytes. */
const INITRD_BYTES_MAX = 45e6;

bootBeforehand(["one-stage", "two-stage"], "xz");

describe.skipIf(!isRoot)("a machine with little memory", () => {
  test("boots in one stage from a small file", () => {
    expect(statSync(join(bootFolder("one-stage", "xz"), "initrd.img")).size).toBeLessThanOrEqual(INITRD_BYTES_MAX);
  });

  for (const { stages, memoryMiB, imageMiB } of MACHINES)
    scopedTest(
      `of ${memoryMiB} MB and ${stages} deploys an image of ${imageMiB} MiB to a proof`,
      async (scope) => {
        const imageBytes = imageMiB * MIB;
        const image = stampedImage(join(scope.tempDir(), "lab.raw"), imageBytes, 11);
        const disk = join(scope.tempDir(), "disk");
        sparseFile(disk, imageBytes);
        const flags = ["--after", "poweroff"];
        const room = await Room.open(scope, { images: [image], bootFolder: bootFolder(stages, "xz"), flags });
        const server = await room.serve();
        const disks = [{ path: disk, serial: "D1" }];
        const vm = await room.switchOn("small", { memoryMiB, disks, words: [] });
        const staysAtServer = memoryMiB < IMAGE_MEMORY_MIB;
        if (staysAtServer) {
          await vm.console.waitFor(/^ +[1-9]\d?\.\d% /m, { timeoutMs: TIMEOUT_MS });
          // What it runs on is gone for as long as that takes.
          await server.child.kill();
          await room.serve();
        }
        const [, peak] = await vm.console.waitFor(/done and flushed, .* peak memory ([\d.]+ MiB)/, {
          timeoutMs: TIMEOUT_MS,
        });
        await vm.waitForPowerOff();
        expectSameBytes(disk, image, imageBytes);
        expect(vm.console.text.includes(STAYS)).toBe(staysAtServer);
        console.log(`${imageMiB} MiB after ${vm.console.seconds.toFixed(0)} s; the program's peak: ${peak}`);
      },
      TIMEOUT_MS,
    );
});
