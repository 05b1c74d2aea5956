/** The arm64 executable and the initramfs that is made for it, under Debian's arm64 kernel on an emulated machine. */
import { describe } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { programArgv, REPOSITORY } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { debianKernel } from "../harness/kernels.ts";
import { Network } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { debianSysroot } from "../harness/sysroot.ts";
import { isRoot } from "../harness/tools.ts";
import { plugIn, startBootServer } from "../harness/vm-network.ts";
import { Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 10 * 60_000;
const IMAGE_BYTES = 16 * 1024 * 1024;
const isBuilt = process.env.DISKSWARM_BINARY !== undefined;

/** vmlinuz and initrd.img, made on this machine of what is another's. */
function bootFolder(scope: Scope): string {
  const folder = scope.tempDir();
  const kernel = debianKernel("cloud-arm64");
  const sysroot = debianSysroot("arm64", ["libc6", "busybox-static"]);
  const binary = join(folder, "diskswarm-arm64");
  const target = ["--target", "linux-arm64", "--sysroot", sysroot, "--outfile", binary];
  run([process.execPath, "build.ts", ...target], ["env", "-C", REPOSITORY]);
  const inputs = ["--kernel", kernel.vmlinuz, "--modules", kernel.modules, "--sysroot", sysroot, "--binary", binary];
  const quick = ["--drivers", "minimal", "--compress", "lz4"];
  run([programArgv()[0]!, "initramfs", "-o", folder, ...inputs, ...quick]);
  return folder;
}

describe.skipIf(!isRoot || !isBuilt)("an arm64 machine", () => {
  scopedTest(
    "boots, deploys to its disk and switches itself off",
    async (scope) => {
      const boot = bootFolder(scope);
      const network = new Network(scope);
      const server = network.machine();
      const image = stampedImage(join(scope.tempDir(), "classroom.raw"), IMAGE_BYTES, 64);
      const serve = server.spawn(scope, [programArgv()[0]!, "serve", image, "--listen", server.address, "--json"]);
      await serve.waitForLine(/"event":"start"/);
      await startBootServer(scope, server, { scriptUrl: "http://192.0.2.1/none" });
      const disk = join(scope.tempDir(), "disk");
      sparseFile(disk, 2 * IMAGE_BYTES);
      const words = ["console=ttyAMA0", `diskswarm.server=http://${server.address}:6969`, "diskswarm.after=poweroff"];
      const kernel = { kernel: join(boot, "vmlinuz"), initrd: join(boot, "initrd.img"), commandLine: words.join(" ") };
      const disks = [{ path: disk, serial: "lab-1" }];
      const vm = await Vm.start(scope, "board-1", {
        machine: "arm64",
        memoryMiB: 512,
        cable: plugIn(network, 1),
        disks,
        kernel,
      });
      await vm.console.waitFor(/done and flushed|proven/, { timeoutMs: TIMEOUT_MS });
      await vm.waitForPowerOff();
      expectSameBytes(disk, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );
});
