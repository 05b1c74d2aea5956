/** What a person at the console reads where a machine cannot go on: what, where and what to do, and nothing is written. */
import { describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";
import type { Vm, VmDisk } from "../harness/vm.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 9 * 60_000;
const MEMORY_MIB = 256;
const IMAGE_BYTES = 16 * MIB;

async function openRoom(scope: Scope) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 31);
  return { image, room: await Room.open(scope, { images: [image], flags: ["--after", "poweroff"] }) };
}

function emptyDisk(scope: Scope, lengthBytes: number): VmDisk {
  const path = join(scope.tempDir(), "disk");
  sparseFile(path, lengthBytes);
  return { path, serial: "D1" };
}

function expectUntouched({ path }: VmDisk): void {
  expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
}

bootBeforehand(["one-stage"]);

describe.skipIf(!isRoot)("the console says it", () => {
  scopedTest(
    "where the command line is wrong, the disk too small or missing; a server that starts late is waited for",
    async (scope) => {
      const { room, image } = await openRoom(scope);
      const [wrong, small, late] = [MIB * 64, MIB * 8, MIB * 64].map((bytes) => emptyDisk(scope, bytes)) as [
        VmDisk,
        VmDisk,
        VmDisk,
      ];
      const waiting = await room.switchOn("late server", { memoryMiB: MEMORY_MIB, disks: [late], words: [] });
      await waiting.console.waitFor(new RegExp(`${room.url}: connection refused`));
      const server = await room.serve();
      const others = [
        room.switchOn("wrong words", {
          memoryMiB: MEMORY_MIB,
          disks: [wrong],
          words: ["diskswarm.target=biggest", "diskswarm.taget=auto"],
        }),
        room.switchOn("small disk", { memoryMiB: MEMORY_MIB, disks: [small], words: [] }),
        room.switchOn("no disk", { memoryMiB: MEMORY_MIB, words: [] }),
      ];
      const [words, little, none] = (await Promise.all(others)) as [Vm, Vm, Vm];
      await waiting.waitForPowerOff();
      expectSameBytes(late.path, image, IMAGE_BYTES);

      await words.console.waitFor(/diskswarm\.target.*biggest.*diskswarm\.taget/);
      await little.console.waitFor(/no disk of this machine can be the target auto/);
      await little.console.waitFor(/\/dev\/vda +8\.00 MiB +- +D1 +it has 8388608 bytes .*, the image needs 16777216 /);
      await none.console.waitFor(/there is no disk at all/);
      for (const index of [2, 3, 4]) {
        const mac = Room.macOf(index);
        await server.event("node", ({ phase, id }) => phase === "failed" && id === mac);
      }
      expectUntouched(wrong);
      expectUntouched(small);
    },
    TIMEOUT_MS,
  );
});
