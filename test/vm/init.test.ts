/** A node from its kernel's command line to the reset: `init` where the machine is its own. */
import { describe, expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { start, succeed } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { debianKernel } from "../harness/kernels.ts";
import { type Machine, Network } from "../harness/network.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { plugIn, startBootServer } from "../harness/vm-network.ts";
import { Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 8 * 60_000;
const IMAGE_BYTES = 20 * 1024 * 1024;
/** The image of one stage is unpacked into memory, packed lightly here so that it is made in a moment. */
const MEMORY_MIB = 512;
const DISK_BYTES = 64 * 1024 * 1024;

/** The initramfs of one stage, for virtual machines. */
async function buildBoot(scope: Scope): Promise<{ kernel: string; initrd: string }> {
  const { vmlinuz, modules } = debianKernel("cloud-amd64");
  const folder = join(scope.tempDir(), "boot");
  const words = ["--kernel", vmlinuz, "--modules", modules, "--drivers", "minimal", "--compress", "lz4"];
  await succeed(scope, ["initramfs", "-o", folder, ...words]);
  return { kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd.img") };
}

async function startServer(scope: Scope, machine: Machine, ...words: string[]) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 1);
  const run = start(scope, ["serve", image, ...words], { machine });
  await run.event("start");
  return { run, image };
}

function emptyDisk(scope: Scope, lengthBytes = DISK_BYTES): string {
  const path = join(scope.tempDir(), "disk");
  sparseFile(path, lengthBytes);
  return path;
}

/** A network with DHCP, and a node's cable into it. */
async function site(scope: Scope) {
  const network = new Network(scope);
  const admin = network.machine();
  await startBootServer(scope, admin, { scriptUrl: "http://127.0.0.1:1/" });
  return { admin, cable: plugIn(network, 1) };
}

describe.skipIf(!isRoot)("a node", () => {
  scopedTest(
    "that knows nothing finds its server, deploys to its one disk and resets",
    async (scope) => {
      const { admin, cable } = await site(scope);
      const { run: server, image } = await startServer(scope, admin);
      const disk = emptyDisk(scope);
      const kernel = { ...(await buildBoot(scope)), commandLine: "console=tty0 console=ttyS0 diskswarm.linger=0" };
      const disks = [{ path: disk, serial: "D1" }];
      const vm = await Vm.start(scope, "node", { memoryMiB: MEMORY_MIB, cable, disks, kernel });
      await vm.console.waitFor(/reboot follows/);
      await vm.waitForReset();
      await server.event("node", ({ phase, id }) => phase === "rebooting" && id === cable.mac);
      expectSameBytes(disk, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "with two disks alike writes to neither until the plan says which, and switches off as told",
    async (scope) => {
      const { admin, cable } = await site(scope);
      const first = await startServer(scope, admin);
      const [one, other] = [emptyDisk(scope), emptyDisk(scope)];
      const kernel = { ...(await buildBoot(scope)), commandLine: "console=ttyS0 diskswarm.linger=0" };
      const disks = [
        { path: one, serial: "D1" },
        { path: other, serial: "D2" },
      ];
      const vm = await Vm.start(scope, "node", { memoryMiB: MEMORY_MIB, cable, disks, kernel });
      await vm.console.waitFor(/several disks of this machine meet the target auto/);
      await vm.console.waitFor(/\/dev\/vdb +64.0 MiB +- +D2 +fits, and so does another/);
      const { message } = await first.run.event("node", ({ phase }) => phase === "failed");
      expect(message).toContain("/dev/vda fits, and so does another, /dev/vdb fits");
      first.run.child.signal("SIGTERM");
      await first.run.expectExit(130);
      const { image } = await startServer(scope, admin, "--target", "serial=D2", "--after", "poweroff");
      await vm.console.waitFor(/the plan has changed/);
      await vm.waitForPowerOff();
      expectSameBytes(other, image, IMAGE_BYTES);
      expect(readFileSync(one).every((byte) => byte === 0)).toBe(true);
    },
    TIMEOUT_MS,
  );
});
