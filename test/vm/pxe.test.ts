import { mkdirSync, copyFileSync, writeFileSync } from "node:fs";
import { describe } from "bun:test";
import { join } from "node:path";
import { sparseFile } from "../harness/image.ts";
import { debianKernel } from "../harness/kernels.ts";
import { Network } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { plugIn, startBootServer } from "../harness/vm-network.ts";
import { type Firmware, Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 8 * 60_000;
const HTTP_PORT = 8000;

const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec setsid cttyhack sh
`;

/** A folder with a kernel, a shell in an initramfs, and the script that starts them. */
function bootFolder(scope: Scope): string {
  needTools("cpio", "busybox");
  const [folder, root] = [scope.tempDir(), scope.tempDir()];
  copyFileSync(debianKernel("cloud-amd64").vmlinuz, join(folder, "vmlinuz"));
  for (const name of ["bin", "proc", "dev"]) mkdirSync(join(root, name));
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  writeFileSync(join(root, "init"), INIT, { mode: 0o755 });
  run(["sh", "-c", `cd ${root} && find . | cpio --quiet -o -H newc > ${folder}/initrd.img`]);
  const script = "#!ipxe\nkernel vmlinuz initrd=initrd.img console=ttyS0\ninitrd initrd.img\nboot\n";
  writeFileSync(join(folder, "boot.ipxe"), script);
  return folder;
}

/** The harness by itself: what the other tests here stand on. */
describe.skipIf(!isRoot)("a machine with an empty disk", () => {
  for (const firmware of ["bios", "uefi"] satisfies Firmware[]) {
    scopedTest(
      `${firmware}: DHCP, TFTP, iPXE and HTTP bring it to a shell on its serial console`,
      async (scope) => {
        const network = new Network(scope);
        const server = network.machine();
        const http = ["busybox", "httpd", "-f", "-p", String(HTTP_PORT), "-h", bootFolder(scope)];
        server.spawn(scope, http);
        await startBootServer(scope, server, { scriptUrl: `http://${server.address}:${HTTP_PORT}/boot.ipxe` });
        const disk = join(scope.tempDir(), "disk");
        sparseFile(disk, 64 * 1024 * 1024);
        const cable = plugIn(network, 1);
        const vm = await Vm.start(scope, "lab-1", { firmware, memoryMiB: 256, cable, disks: [{ path: disk }] });
        await vm.console.waitFor(/\/ #/);
        vm.console.type("cat /sys/block/vda/size; echo six times seven: $((6 * 7))\n");
        await vm.console.waitFor(/six times seven: 42/);
        vm.console.type("poweroff -f\n");
        await vm.waitForPowerOff();
      },
      TIMEOUT_MS,
    );
  }
});
