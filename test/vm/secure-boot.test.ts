/**
 * Secure Boot with the keys that machines are sold with: firmware loads Debian's shim, that GRUB, that Debian's kernel, each
 * signed; our initramfs need not be. From the network as well as from a USB stick.
 */
import { describe, expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { bootBeforehand, bootFolder } from "../harness/vm-boot.ts";
import { Room } from "../harness/vm-room.ts";
import { PATIENCE, type Vm } from "../harness/vm.ts";

const MIB = 1024 * 1024;
const TIMEOUT_MS = 9 * 60_000;
const MEMORY_MIB = 512;
const IMAGE_BYTES = 16 * MIB;
const SHIM = "/usr/lib/shim/shimx64.efi.signed";
const SIGNED_GRUB = "/usr/lib/grub/x86_64-efi-signed";

/** The menu of initramfs/README.md. The kernel says whether Secure Boot is on, so it is not quiet. */
function menu(scope: Scope, server: string): string {
  const path = join(scope.tempDir(), "grub.cfg");
  const text = `set timeout=1
menuentry "Image this machine" {
  linux /vmlinuz diskswarm.server=${server} ip=dhcp rootfstype=ramfs console=ttyS0 ${PATIENCE}
  initrd /initrd.img
}
`;
  writeFileSync(path, text);
  return path;
}

async function expectDeployed(vm: Vm, disk: string, image: string): Promise<void> {
  await vm.console.waitFor(/secureboot: Secure boot enabled/);
  await vm.waitForPowerOff();
  expectSameBytes(disk, image, IMAGE_BYTES);
}

function imageAndDisk(scope: Scope, seed: number) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, seed);
  const disk = join(scope.tempDir(), "disk");
  sparseFile(disk, IMAGE_BYTES);
  return { image, disk, flags: ["--after", "poweroff"] };
}

bootBeforehand(["one-stage", "two-stage"]);

describe.skipIf(!isRoot)("with Secure Boot on", () => {
  scopedTest(
    "shim, GRUB and the kernel come by TFTP, and the machine is deployed",
    async (scope) => {
      const { image, disk, flags } = imageAndDisk(scope, 41);
      const boot = bootFolder("two-stage");
      const uefiLoaders = {
        "shimx64.efi": SHIM,
        "grubx64.efi": join(SIGNED_GRUB, "grubnetx64.efi.signed"),
        "grub/grub.cfg": menu(scope, "http://10.77.0.1:6969"),
        vmlinuz: join(boot, "vmlinuz"),
        "initrd.img": join(boot, "initrd.img"),
      };
      const room = await Room.open(scope, { images: [image], stages: "two-stage", flags, loaders: { uefiLoaders } });
      expect(room.url).toBe("http://10.77.0.1:6969");
      await room.serve();
      const vm = await room.switchOn("signed", {
        firmware: "secure-boot",
        memoryMiB: MEMORY_MIB,
        disks: [{ path: disk, serial: "D1" }],
      });
      await expectDeployed(vm, disk, image);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "a USB stick with the same files starts a machine, and is not taken for its disk",
    async (scope) => {
      needTools("mkfs.fat", "mmd", "mcopy");
      const { image, disk, flags } = imageAndDisk(scope, 42);
      const room = await Room.open(scope, { images: [image], flags });
      await room.serve();
      const stick = usbStick(scope, room);
      const vm = await room.switchOn("from a stick", {
        firmware: "secure-boot",
        memoryMiB: MEMORY_MIB,
        disks: [
          { path: stick, serial: "STICK", isUsbStick: true },
          { path: disk, serial: "D1" },
        ],
      });
      await expectDeployed(vm, disk, image);
    },
    TIMEOUT_MS,
  );
});

/** One FAT filesystem without a partition table, as firmware takes it too. */
function usbStick(scope: Scope, room: Room): string {
  const stick = join(scope.tempDir(), "stick");
  sparseFile(stick, 128 * MIB);
  run(["mkfs.fat", "-F", "32", "-n", "IMAGING", stick]);
  run(["mmd", "-i", stick, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"]);
  const files = {
    "::/EFI/BOOT/BOOTX64.EFI": SHIM,
    "::/EFI/BOOT/grubx64.efi": join(SIGNED_GRUB, "grubx64.efi.signed"),
    // Where Debian's signed GRUB looks for its menu.
    "::/EFI/debian/grub.cfg": menu(scope, room.url),
    "::/vmlinuz": join(room.bootFolder, "vmlinuz"),
    "::/initrd.img": join(room.bootFolder, "initrd.img"),
  };
  for (const [name, path] of Object.entries(files)) run(["mcopy", "-i", stick, path, name]);
  return stick;
}
