/** A node from its kernel's command line to the reset: `init` where the machine is its own. */
import { describe, expect } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { start, succeed } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { debianKernel } from "../harness/kernels.ts";
import { type Machine, Network } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { plugIn, startBootServer } from "../harness/vm-network.ts";
import { PATIENCE, Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 8 * 60_000;
const IMAGE_BYTES = 20 * 1024 * 1024;
/** The image of one stage is unpacked into memory, packed lightly here so that it is made in a moment. */
const MEMORY_MIB = 512;
const DISK_BYTES = 64 * 1024 * 1024;

/** What virtual machines boot; its root is in the initramfs, or (`--two-stage`) on the server. */
async function buildBoot(scope: Scope, ...more: string[]) {
  const { vmlinuz, modules } = debianKernel("cloud-amd64");
  const folder = join(scope.tempDir(), "boot");
  const words = ["--kernel", vmlinuz, "--modules", modules, "--drivers", "minimal", "--compress", "lz4", ...more];
  await succeed(scope, ["initramfs", "-o", folder, ...words]);
  return { folder, kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd.img") };
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

const EFIVARS = "/sys/firmware/efi/efivars";

/** A GPT with an EFI system partition that has no removable loader, and a root with a kernel that tells its command line. */
function bootableImage(scope: Scope): string {
  needTools("sfdisk", "mkfs.vfat", "mmd", "mkfs.ext4", "cpio", "busybox");
  const [folder, root, initrd] = [scope.tempDir(), scope.tempDir(), scope.tempDir()];
  const image = join(folder, "lab.raw");
  sparseFile(image, 120 * 1024 * 1024);
  const table = "label: gpt\nstart=2048, size=32768, type=uefi\nstart=34816, size=200000, type=linux\n";
  run(["sh", "-c", `printf '${table}' | sfdisk --quiet ${image}`]);
  const esp = `${image}@@1M`;
  run(["mkfs.vfat", "--offset", "2048", image, "16384"]);
  run(["mmd", "-i", esp, "::EFI", "::EFI/debian"]);
  run(["mcopy", "-i", esp, "/dev/null", "::EFI/debian/shimx64.efi"]);
  mkdirSync(join(root, "boot/grub"), { recursive: true });
  mkdirSync(join(initrd, "bin"));
  copyFileSync("/bin/busybox", join(initrd, "bin/busybox"));
  const init = "#!/bin/busybox sh\n/bin/busybox mkdir /proc\n/bin/busybox mount -t proc proc /proc\n";
  const last = 'echo "booted from the disk: $(/bin/busybox cat /proc/cmdline)"\nexec /bin/busybox sh\n';
  writeFileSync(join(initrd, "init"), init + last, { mode: 0o755 });
  run(["sh", "-c", `cd ${initrd} && find . | cpio --quiet -o -H newc > ${root}/boot/initrd.img`]);
  copyFileSync(debianKernel("cloud-amd64").vmlinuz, join(root, "boot/vmlinuz"));
  const entry = `linux /boot/vmlinuz console=ttyS0 ${PATIENCE} test.mark=7\n  initrd /boot/initrd.img`;
  writeFileSync(join(root, "boot/grub/grub.cfg"), `menuentry 'Test' {\n  ${entry}\n}\n`);
  run(["mkfs.ext4", "-q", "-d", root, "-E", `offset=${34816 * 512}`, image, "100000k"]);
  return image;
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

  scopedTest(
    "under UEFI makes the entry that the disk's loader needs, and goes to its kernel by kexec",
    async (scope) => {
      needTools("efibootmgr", "kexec");
      const { admin, cable } = await site(scope);
      const image = bootableImage(scope);
      // Firmware reads an initramfs that holds everything for minutes, where there is no KVM.
      const boot = await buildBoot(scope, "--two-stage");
      const server = start(scope, ["serve", image, "--after", "kexec", "--boot", boot.folder], { machine: admin });
      const { server: url } = await server.event("start");
      const disks = [{ path: emptyDisk(scope, 160 * 1024 * 1024), serial: "D1" }];
      const kernel = { ...boot, commandLine: `console=ttyS0 diskswarm.server=${url} diskswarm.linger=0` };
      const vm = await Vm.start(scope, "node", { firmware: "uefi", memoryMiB: MEMORY_MIB, cable, disks, kernel });
      await vm.console.waitFor(/UEFI has a new entry Boot[0-9A-F]{4} for \\EFI\\debian\\shimx64\.efi of \/dev\/vda/);
      await vm.console.waitFor(/starting boot\/vmlinuz of partition 2 \(boot\/grub\/grub\.cfg\)/);
      await server.event("node", ({ phase }) => phase === "kexec");
      await vm.console.waitFor(/booted from the disk: .*test\.mark=7/);
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "under UEFI whose variables are read-only says why the disk has no boot entry, and what to do",
    async (scope) => {
      needTools("efibootmgr");
      const { admin, cable } = await site(scope);
      const image = bootableImage(scope);
      const [torrent, key] = [join(scope.tempDir(), "lab.torrent"), join(scope.tempDir(), "key")];
      await succeed(scope, ["keygen", "-o", key]);
      await succeed(scope, ["capture", image, "-o", torrent, "--sign", key]);
      const boot = await buildBoot(scope, "--two-stage");
      const serve = (word: string) => start(scope, ["serve", word, "--boot", boot.folder], { machine: admin });
      const unsigned = serve(image);
      const { server: url } = await unsigned.event("start");
      const words = [`diskswarm.key=${readFileSync(`${key}.pub`, "utf8").trim()}`, "diskswarm.after=shell", "rd.shell"];
      const commandLine = ["console=ttyS0", `diskswarm.server=${url}`, "diskswarm.linger=0", ...words].join(" ");
      const disks = [{ path: emptyDisk(scope, 160 * 1024 * 1024), serial: "D1" }];
      const options = { memoryMiB: MEMORY_MIB, cable, disks, kernel: { ...boot, commandLine } };
      const vm = await Vm.start(scope, "node", { firmware: "uefi", ...options });
      // It is in a shell before it deploys: what it will find can be made there.
      await vm.console.waitFor(/is not signed[\s\S]*# $/);
      unsigned.child.signal("SIGTERM");
      await unsigned.expectExit(130);
      await serve(`${torrent}=${image}`).event("start");
      // Whoever leaves a shell at once is taken for a console that cannot be read.
      vm.console.type(`sleep 1; mount -o remount,ro ${EFIVARS}; exit\n`);
      await vm.console.waitFor(
        /UEFI has no boot entry for \\EFI\\debian\\shimx64\.efi .*: efibootmgr .*Read-only file system.*; choose/,
      );
    },
    TIMEOUT_MS,
  );
});
