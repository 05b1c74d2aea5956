/** Two stages: a small initramfs that fetches the rest, and what it says where that does not go well. */
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
/** The image is packed lightly here so that it is made in a moment; it lies in memory. */
const MEMORY_MIB = 384;

async function buildBoot(scope: Scope): Promise<string> {
  const { vmlinuz, modules } = debianKernel("cloud-amd64");
  const folder = join(scope.tempDir(), "boot");
  const words = ["--kernel", vmlinuz, "--modules", modules, "--drivers", "minimal", "--compress", "lz4"];
  await succeed(scope, ["initramfs", "-o", folder, "--two-stage", ...words]);
  return folder;
}

async function serveImage(scope: Scope, machine: Machine, boot: string): Promise<string> {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 1);
  const words = ["--boot", boot, "--boot-args", "diskswarm.linger=0 diskswarm.after=poweroff"];
  await start(scope, ["serve", image, ...words], { machine }).event("start");
  return image;
}

function emptyDisk(scope: Scope): string {
  const path = join(scope.tempDir(), "disk");
  sparseFile(path, 64 * 1024 * 1024);
  return path;
}

describe.skipIf(!isRoot)("two stages", () => {
  scopedTest(
    "iPXE, the first stage, the image over HTTP, and a disk that is proven",
    async (scope) => {
      const network = new Network(scope);
      const admin = network.machine();
      const image = await serveImage(scope, admin, await buildBoot(scope));
      await startBootServer(scope, admin, { scriptUrl: `http://${admin.address}:6969/boot.ipxe` });
      const disk = emptyDisk(scope);
      const vm = await Vm.start(scope, "node", {
        memoryMiB: MEMORY_MIB,
        cable: plugIn(network, 1),
        disks: [{ path: disk }],
      });
      await vm.console.waitFor(/fetching http:\/\/[\d.]+:6969\/boot\/root\.squashfs/);
      await vm.console.waitFor(/done and flushed/);
      await vm.waitForPowerOff();
      expectSameBytes(disk, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "a cable that is out, a DHCP server that is not there yet, and an image of another build are told",
    async (scope) => {
      const network = new Network(scope);
      const admin = network.machine();
      const folder = await buildBoot(scope);
      const vm = await Vm.start(scope, "node", {
        memoryMiB: MEMORY_MIB,
        cable: plugIn(network, 1),
        kernel: {
          kernel: join(folder, "vmlinuz"),
          initrd: join(folder, "initrd.img"),
          commandLine: `console=ttyS0 ip=dhcp diskswarm.server=${admin.address} diskswarm.sha256=${"0".repeat(64)} rd.shell`,
        },
      });
      await vm.cableIn(false);
      await vm.console.waitFor(/no link on eth0 \(52:54:00:d5:00:01\); trying again in \d+ s/);
      await vm.cableIn(true);
      await vm.console.waitFor(/no DHCP server answered on eth0 \(52:54:00:d5:00:01\); trying again/);
      // Who asked for a shell gets one after some vain rounds, and goes on by leaving it.
      await vm.console.waitFor(/~ #|\/ #/);
      await startBootServer(scope, admin, { scriptUrl: "http://127.0.0.1:1/" });
      vm.console.type("exit\n");
      await vm.console.waitFor(/eth0 has [\d.]+\/24/);
      await vm.console.waitFor(/cannot use http:\S+: can't connect to remote host.*trying again in \d+ s/);
      await serveImage(scope, admin, folder);
      await vm.console.waitFor(/it has the SHA-256 [0-9a-f]{64} where 0{64} belongs to this initrd\.img/);
      await vm.cutPower();
    },
    TIMEOUT_MS,
  );
});
