/** A node from its kernel's command line to the reset: `init` where the machine is its own. */
import { describe } from "bun:test";
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
const DISK_BYTES = 64 * 1024 * 1024;

/** The initramfs of one stage, for virtual machines. */
async function buildBoot(scope: Scope): Promise<{ kernel: string; initrd: string }> {
  const { vmlinuz, modules } = debianKernel("cloud-amd64");
  const folder = join(scope.tempDir(), "boot");
  const words = ["--kernel", vmlinuz, "--modules", modules, "--drivers", "minimal", "--compress", "zstd"];
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

describe.skipIf(!isRoot)("a node", () => {
  scopedTest(
    "that knows nothing finds its server, deploys to its one disk and resets",
    async (scope) => {
      const boot = await buildBoot(scope);
      const network = new Network(scope);
      const admin = network.machine();
      await startBootServer(scope, admin, { scriptUrl: "http://127.0.0.1:1/" });
      const { run: server, image } = await startServer(scope, admin);
      const disk = emptyDisk(scope);
      const cable = plugIn(network, 1);
      const kernel = { ...boot, commandLine: "console=tty0 console=ttyS0 diskswarm.linger=0" };
      const vm = await Vm.start(scope, "node", {
        memoryMiB: 512,
        cable,
        disks: [{ path: disk, serial: "D1" }],
        kernel,
      });
      await vm.console.waitFor(/reboot follows/, { timeoutMs: 200_000 });
      await vm.waitForReset(60_000);
      await server.event("node", ({ phase, id }) => phase === "rebooting" && id === cable.mac);
      expectSameBytes(disk, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );
});
