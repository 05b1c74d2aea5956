/** What happens to machines in a real room: power cuts, pulled cables, disks that fail. */
import { describe, expect } from "bun:test";
import { closeSync, copyFileSync, openSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage, writeFully } from "../harness/image.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";
import type { Vm, VmDisk } from "../harness/vm.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 9 * 60_000;
const MEMORY_MIB = 256;
/** Slow enough for a test to act in the middle of a deployment. */
const MEGABITS = 60;
const IMAGE_BYTES = 192 * MIB;

async function roomWithImage(scope: Scope, imageBytes: number) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), imageBytes, 21);
  const room = await Room.open(scope, { images: [image], flags: ["--after", "poweroff"] });
  return { room, image, server: await room.serve() };
}

function emptyDisk(scope: Scope, lengthBytes: number): VmDisk {
  const path = join(scope.tempDir(), "disk");
  sparseFile(path, lengthBytes);
  return { path, serial: "D1" };
}

/** A copy of an image with other bytes at its start and in its middle. */
function changed(scope: Scope, image: string): string {
  const path = join(scope.tempDir(), "lab.raw");
  copyFileSync(image, path);
  const fd = openSync(path, "r+");
  for (const atMiB of [0, 40]) writeFully(fd, Buffer.alloc(4 * MIB, "another image "), atMiB * MIB);
  closeSync(fd);
  return path;
}

/** Resolves when a line of progress says at least so many percent. */
async function progressed(vm: Vm, percent: number): Promise<void> {
  for (;;) {
    const [, value] = await vm.console.waitFor(/^ +(\d+\.\d)% /m, { unless: /done and flushed|Kernel panic/ });
    if (Number(value) >= percent) return;
  }
}

bootBeforehand(["one-stage"]);

describe.skipIf(!isRoot)("a machine in the middle of a deployment", () => {
  scopedTest(
    "goes on when its cable is back, and after a power cut fetches only what its disk does not have",
    async (scope) => {
      const { room, image } = await roomWithImage(scope, IMAGE_BYTES);
      const disk = emptyDisk(scope, IMAGE_BYTES);
      const node = { memoryMiB: MEMORY_MIB, disks: [disk], words: ["diskswarm.linger=0"] };
      room.server.shape(MEGABITS);
      const first = await room.switchOn("first", node);
      await progressed(first, 10);
      await first.cableIn(false);
      await first.console.waitFor(/% .* 0 B\/s /);
      await first.cableIn(true);
      await progressed(first, 50);
      await first.cutPower();
      room.server.unshape();
      const second = await room.switchOn("second", node);
      const [, reused] = await second.console.waitFor(/done and flushed, .* ([\d.]+) MiB were there already/);
      await second.waitForPowerOff();
      expectSameBytes(disk.path, image, IMAGE_BYTES);
      // Half was there when the power went; what was in flight then is small beside it.
      expect(Number(reused)).toBeGreaterThan(IMAGE_BYTES / MIB / 4);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "that comes back from a power cut to another image ends with that; without a kernel on it, it is reset and not left by kexec",
    async (scope) => {
      const { room, image, server } = await roomWithImage(scope, IMAGE_BYTES / 2);
      const other = changed(scope, image);
      const disk = emptyDisk(scope, IMAGE_BYTES / 2);
      const node = { memoryMiB: MEMORY_MIB, disks: [disk], words: ["diskswarm.linger=0", "diskswarm.after=kexec"] };
      room.server.shape(MEGABITS);
      const first = await room.switchOn("first", node);
      await progressed(first, 50);
      await first.cutPower();
      server.child.signal("SIGTERM");
      await server.expectExit(130);
      room.server.unshape();
      await room.serveImages([other]);
      const second = await room.switchOn("second", node);
      await second.console.waitFor(/done and flushed, .* MiB were there already/);
      await second.console.waitFor(/no kexec, but a reboot: no kernel of \/dev\/vda can be started/);
      await second.waitForReset();
      expectSameBytes(disk.path, other, IMAGE_BYTES / 2);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "whose disk does not take a sector, or fails to flush, says so here and at the server, and stays on",
    async (scope) => {
      const { room, server } = await roomWithImage(scope, 32 * MIB);
      const failures = [{ access: "write", sector: (20 * MIB) / 512 }, { access: "flush" }] as const;
      const machines = failures.map(async (failing) => {
        const disk = { ...emptyDisk(scope, 32 * MIB), failing };
        const node = { memoryMiB: MEMORY_MIB, disks: [disk], words: ["diskswarm.linger=0"] };
        const vm = await room.switchOn(`fails to ${failing.access}`, node);
        const [, line] = await vm.console.waitFor(/^diskswarm: (.*\/dev\/vda.*)\n/m, { unless: /done and flushed/ });
        await vm.console.waitFor(/this machine waits until the plan or its disks change/);
        return { vm, line };
      });
      const ended = await Promise.all(machines);
      for (const [i, { vm, line }] of ended.entries()) {
        expect(line).toMatch(/I\/O error|Input\/output error|EIO/i);
        const mac = Room.macOf(i + 1);
        await server.event("node", ({ phase, id }) => phase === "failed" && id === mac);
        const state = room.nodes().get(mac)!;
        expect(state.phase).toBe("failed");
        expect(state.message).toBe(line!);
        expect(vm.child.running).toBe(true);
        expect(vm.qmp.events.map(({ event }) => event)).not.toContain("RESET");
      }
    },
    TIMEOUT_MS,
  );
});
