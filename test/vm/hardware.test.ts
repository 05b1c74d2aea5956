/** A machine without anything virtual in it, as far as QEMU has such: Debian's kernel for all hardware, and all drivers for it. */
import { describe } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand, bootFolder } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";

const TIMEOUT_MS = 9 * 60_000;
const MEMORY_MIB = 640;
const IMAGE_BYTES = 16 * 1024 * 1024;

bootBeforehand(["one-stage"], "lz4", "all");

describe.skipIf(!isRoot)("a machine with an Intel network card, a SATA disk and one of NVMe", () => {
  scopedTest(
    "gets its plan over the one, sees both others, and has the smaller one deployed",
    async (scope) => {
      const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 61);
      const room = await Room.open(scope, { images: [image], bootFolder: bootFolder("one-stage", "lz4", "all") });
      await room.serve();
      const disks = (["ahci", "nvme"] as const).map((bus, i) => {
        const path = join(scope.tempDir(), bus);
        sparseFile(path, (2 - i) * 2 * IMAGE_BYTES);
        return { path, bus, serial: bus.toUpperCase() };
      });
      const words = ["diskswarm.linger=0", "diskswarm.after=shell"];
      const vm = await room.switchOn("hardware", { memoryMiB: MEMORY_MIB, card: "e1000e", disks, words });
      await vm.console.waitFor(new RegExp(`${room.url} has a plan`));
      await vm.console.waitFor(/the target is \/dev\/nvme0n1 \(QEMU NVMe Ctrl, serial NVME, 32\.0 MiB\)/);
      await vm.console.waitFor(/done and flushed/);
      await vm.console.waitFor(/# $/);
      vm.console.type("for i in net/eth0 block/sda; do basename $(readlink -f /sys/class/$i/device/driver); done\n");
      await vm.console.waitFor(/^e1000e\nsd\n/m);
      expectSameBytes(disks[1]!.path, image, IMAGE_BYTES);
      await vm.cutPower();
    },
    TIMEOUT_MS,
  );
});
