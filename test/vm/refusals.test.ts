/** What a person at the console reads where a machine cannot go on: what, where and what to do, and nothing is written. */
import { describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, programArgv, type Run } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { run } from "../harness/process.ts";
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

/** Somebody at the console asks the shell something. */
async function askShell({ console }: Vm): Promise<void> {
  await console.waitFor(/# $/);
  // Whoever leaves a shell at once is taken for a console that cannot be read.
  console.type("sleep 1; echo $((6 * 7)) says process $(cat /proc/1/comm)\n");
  await console.waitFor(/^42 says process boot\.sh$/m);
}

function keyPair(scope: Scope): { path: string; publicKey: string } {
  const path = join(scope.tempDir(), "key");
  run([...programArgv(), "keygen", "-o", path]);
  return { path, publicKey: readFileSync(`${path}.pub`, "utf8").trim() };
}

/** As words for `serve`. */
async function signed(scope: Scope, image: string, key: string): Promise<string> {
  return `${await capture(scope, image, join(scope.tempDir(), "lab.torrent"), "--sign", key)}=${image}`;
}

async function stop(server: Run): Promise<void> {
  server.child.signal("SIGTERM");
  await server.expectExit(130);
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
          words: ["diskswarm.target=biggest", "diskswarm.taget=auto", "rd.emergency=reboot"],
        }),
        room.switchOn("small disk", { memoryMiB: MEMORY_MIB, disks: [small], words: [] }),
        room.switchOn("no disk", { memoryMiB: MEMORY_MIB, words: ["rd.emergency=poweroff"] }),
        room.switchOn("a slip of the pen", { memoryMiB: MEMORY_MIB, words: ["ip=dchp", "rd.shell"] }),
      ];
      const [words, little, none, network] = (await Promise.all(others)) as [Vm, Vm, Vm, Vm];
      await waiting.waitForPowerOff();
      expectSameBytes(late.path, image, IMAGE_BYTES);

      await words.console.waitFor(/diskswarm\.target.*biggest.*diskswarm\.taget/);
      await little.console.waitFor(/no disk of this machine can be the target auto/);
      await little.console.waitFor(/\/dev\/vda +8\.00 MiB +- +D1 +it has 8388608 bytes .*, the image needs 16777216 /);
      await none.console.waitFor(/there is no disk at all/);
      await network.console.waitFor(/the kernel command line has ip=dchp: "dchp" is neither an address nor dhcp/);
      for (const index of [2, 3, 4]) {
        const mac = Room.macOf(index);
        await server.event("node", ({ phase, id }) => phase === "failed" && id === mac);
      }
      expectUntouched(wrong);
      expectUntouched(small);

      // What follows where nobody waits beside it, and where somebody does.
      await words.console.waitFor(/reboot follows in 15 s because of rd\.emergency/);
      await words.waitForReset();
      await none.console.waitFor(/poweroff follows in 15 s because of rd\.emergency/);
      await none.waitForPowerOff();
      await little.console.waitFor(/this machine waits until the plan or its disks change/);
      await little.press("ctrl-alt-delete");
      await little.waitForReset();
      await askShell(network);
      network.console.type("exit\n");
      await network.console.waitFor(/"dchp" is neither .* rd\.emergency=reboot starts again by itself/);
      await askShell(network);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "where a torrent is signed by nobody or somebody else; leaving the shell tries again, and the disk's own ends with a reset",
    async (scope) => {
      const [trusted, other] = [keyPair(scope), keyPair(scope)];
      const { room, image } = await openRoom(scope);
      const disk = emptyDisk(scope, IMAGE_BYTES);
      const words = [`diskswarm.key=${trusted.publicKey}`, "diskswarm.after=shell", "diskswarm.linger=0", "rd.shell"];
      const unsigned = await room.serve();
      const vm = await room.switchOn("trusts one key", { memoryMiB: MEMORY_MIB, disks: [disk], words });
      await vm.console.waitFor(/is not signed: nothing was written; make it with capture --sign KEYFILE/);
      await vm.console.waitFor(/a shell follows because of rd\.shell; leave it \(exit\) to try again/);
      await askShell(vm);
      await unsigned.event("node", ({ phase }) => phase === "failed");
      await stop(unsigned);

      const wrong = await room.serveImages([await signed(scope, image, other.path)]);
      vm.console.type("exit\n");
      const [, by, instead] = await vm.console.waitFor(
        /is not signed by the trusted key: nothing was written; it is signed by (\S+), trusted is (\S+)$/m,
      );
      expect([by, instead]).toEqual([other.publicKey, trusted.publicKey]);
      await askShell(vm);
      expectUntouched(disk);
      await stop(wrong);

      await room.serveImages([await signed(scope, image, trusted.path)]);
      vm.console.type("exit\n");
      await vm.console.waitFor(/done and flushed/);
      await vm.console.waitFor(/the disk is done; leave this shell \(exit\) to reboot/);
      await askShell(vm);
      vm.console.type("exit\n");
      await vm.console.waitFor(/reboot follows/);
      await vm.waitForReset();
      expectSameBytes(disk.path, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );
});
