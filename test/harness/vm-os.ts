/**
 * A small Debian as it stands on a teacher's machine: GPT, an EFI system partition and a BIOS boot partition, ext4,
 * systemd, a kernel with an initramfs of its own, GRUB for both firmwares, a login on the serial console. Made of
 * the packages of the mirror that this machine's apt is set to, and kept in `.cache/os` until they or the recipe change.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { kept } from "./cache.ts";
import { sparseFile, writeFully } from "./image.ts";
import { run } from "./process.ts";
import { needTools } from "./tools.ts";
import { PATIENCE } from "./vm.ts";

const MIB = 1024 * 1024;
const SECTOR_BYTES = 512;
/** What the system calls itself before it is told otherwise. */
export const OS_HOST_NAME = "golden";
export const ROOT_LABEL = "osroot";

const PACKAGES = ["busybox", "initramfs-tools", "iproute2", "kmod", "linux-image-cloud-amd64", "systemd-sysv", "udev"];
/** The drivers that the machines of these tests need before their root is mounted. */
const DRIVERS = ["virtio_pci", "virtio_blk", "ahci", "sd_mod", "ext4"];
const LAYOUT = { biosBoot: 1, esp: 2, root: 34 } as const;
const DISK_BYTES = 640 * MIB;
const ROOT_END = DISK_BYTES / MIB - 1;

const GRUB_MODULES = ["part_gpt", "ext2", "search", "search_label", "normal", "linux", "configfile", "echo", "test"];
const GRUB_BIOS = "/usr/lib/grub/i386-pc";

const KERNEL_WORDS = `root=LABEL=${ROOT_LABEL} ro console=ttyS0 net.ifnames=0 ${PATIENCE}`;
const GRUB_CONFIG = `
set timeout=0
menuentry "the deployed system" {
  linux /vmlinuz ${KERNEL_WORDS}
  initrd /initrd.img
}
`;
/** Finds the rest of itself wherever the disk is. */
const GRUB_START = `search --no-floppy --label ${ROOT_LABEL} --set root
configfile ($root)/boot/grub/grub.cfg
`;

/** Files of the installed system beside its packages'. */
const FILES: Readonly<Record<string, string>> = {
  "etc/hostname": `${OS_HOST_NAME}\n`,
  "etc/machine-id": `${"0123456789abcdef".repeat(2)}\n`,
  "etc/fstab": `LABEL=${ROOT_LABEL} / ext4 defaults 0 1\n`,
  "boot/grub/grub.cfg": GRUB_CONFIG,
};

/** What nobody at these machines needs, and what costs an emulated processor half of its time to the login. */
const MASKED_UNITS = [
  ...["dev-hugepages.mount", "dev-mqueue.mount", "getty-static.service", "getty@tty1.service"],
  ...["modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service"],
  ...["modprobe@fuse.service", "modprobe@loop.service", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount"],
  ...["sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-binfmt.service", "systemd-pstore.service"],
];

/** The raw disk image of it, made on the first call. Root is needed, mounts and loop devices are not. */
export function debianDisk(): string {
  needTools("mmdebstrap", "sfdisk", "mke2fs", "mkfs.fat", "mmd", "mcopy", "grub-mkimage");
  return kept("os", `debian-${recipeKey()}.raw`, (made, work) => {
    const root = join(work, "root");
    installPackages(root);
    for (const [name, text] of Object.entries(FILES)) {
      fs.mkdirSync(dirname(join(root, name)), { recursive: true });
      fs.writeFileSync(join(root, name), text);
    }
    for (const unit of MASKED_UNITS) fs.symlinkSync("/dev/null", join(root, "etc/systemd/system", unit));
    makeDisk(work, root, made);
  });
}

/** Changes with this file and with the packages of the day. */
function recipeKey(): string {
  const versions = run(["apt-cache", "show", "--no-all-versions", ...PACKAGES]).match(
    /^(Package|Version|Depends):.*/gm,
  );
  const hash = createHash("sha256").update(fs.readFileSync(import.meta.path));
  return hash.update(JSON.stringify(versions)).digest("hex").slice(0, 16);
}

interface Source {
  readonly uri: string;
  readonly suite: string;
  readonly component: string;
}

/** Where apt gets Debian's own packages from on this machine. */
function debianSources(): Source[] {
  const format = "$(ORIGIN)|$(ARCHITECTURE)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
  const lines = run(["apt-get", "indextargets", "--format", format, "Created-By: Packages"]).trim().split("\n");
  const rows = [...new Set(lines)].map((line) => line.split("|"));
  const sources = rows
    .filter(([origin, architecture]) => origin === "Debian" && architecture === "amd64")
    .map(([, , uri = "", suite = "", component = ""]) => ({ uri, suite, component }));
  if (sources.length === 0) throw new Error("apt knows no packages of Debian for amd64: run apt-get update");
  return sources;
}

function installPackages(root: string): void {
  const sources = debianSources();
  // Updates and security have longer names than the release that they belong to.
  const suite = sources.map((source) => source.suite).sort((a, b) => a.length - b.length)[0]!;
  const initramfs = `MODULES=list\nCOMPRESS=gzip\n`;
  run([
    // What it mounts goes with it, however it ends.
    ...["unshare", "--mount", "--propagation", "private"],
    ...["mmdebstrap", "--mode=root", "--variant=essential", `--include=${PACKAGES.join(",")}`],
    ...["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"],
    ...["--dpkgopt=path-exclude=/usr/share/man/*", '--aptopt=APT::Install-Recommends "false"'],
    "--aptopt=Acquire::Retries 3",
    `--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"`,
    `--essential-hook=printf '${initramfs.replaceAll("\n", "\\n")}' > "$1/etc/initramfs-tools/conf.d/small"`,
    `--essential-hook=printf '${DRIVERS.join("\\n")}\\n' > "$1/usr/share/initramfs-tools/modules.d/drivers"`,
    // Whoever sits at the console is let in.
    `--customize-hook=chroot "$1" passwd -d root`,
    ...[suite, root],
    ...sources.map(({ uri, suite: of, component }) => `deb ${uri} ${of} ${component}`),
  ]);
}

function makeDisk(work: string, root: string, disk: string): void {
  sparseFile(disk, DISK_BYTES);
  const table = [
    "label: gpt",
    `start=${LAYOUT.biosBoot}MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios`,
    `start=${LAYOUT.esp}MiB, size=32MiB, type=U, name=esp`,
    `start=${LAYOUT.root}MiB, size=${ROOT_END - LAYOUT.root}MiB, type=L, name=root`,
  ];
  const made = Bun.spawnSync(["sfdisk", "--quiet", disk], { stdin: Buffer.from(table.join("\n")) });
  if (made.exitCode !== 0) throw new Error(`sfdisk: ${made.stderr.toString()}`);
  const start = join(work, "start.cfg");
  fs.writeFileSync(start, GRUB_START);
  installForUefi(work, start, disk);
  installForBios(work, start, disk);
  const at = `offset=${LAYOUT.root * MIB}`;
  const size = `${ROOT_END - LAYOUT.root}M`;
  run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", ROOT_LABEL, "-E", at, "-d", root, disk, size]);
}

/** The path that firmware looks at when nothing else is set up. */
function installForUefi(work: string, start: string, disk: string): void {
  const loader = join(work, "BOOTX64.EFI");
  run(["grub-mkimage", "-O", "x86_64-efi", "-p", "/EFI/BOOT", "-c", start, "-o", loader, "fat", ...GRUB_MODULES]);
  const at = LAYOUT.esp * MIB;
  run(["mkfs.fat", "-F", "16", "-n", "ESP", "--offset", String(at / SECTOR_BYTES), disk, String(32 * 1024)]);
  const esp = `${disk}@@${at}`;
  run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"]);
  run(["mcopy", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI"]);
}

/**
 * What grub-bios-setup does, which asks for a mounted disk: GRUB's first sector goes into the MBR around the partition
 * table and is told where the rest begins; the rest goes into the BIOS boot partition and is told where it goes on.
 * Positions are those of GRUB's include/grub/i386/pc/boot.h.
 */
function installForBios(work: string, start: string, disk: string): void {
  const corePath = join(work, "core.img");
  run(["grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", start, "-o", corePath, "biosdisk", ...GRUB_MODULES]);
  const core = fs.readFileSync(corePath);
  const coreSector = (LAYOUT.biosBoot * MIB) / SECTOR_BYTES;
  const boot = fs.readFileSync(join(GRUB_BIOS, "boot.img"));
  boot.writeBigUInt64LE(BigInt(coreSector), 0x5c);
  // On a hard disk the drive's number is taken as the BIOS gives it: two instructions do nothing instead of a check.
  boot.fill(0x90, 0x66, 0x68);
  core.writeBigUInt64LE(BigInt(coreSector + 1), SECTOR_BYTES - 12);
  const fd = fs.openSync(disk, "r+");
  writeFully(fd, boot.subarray(0, 440), 0);
  writeFully(fd, core, coreSector * SECTOR_BYTES);
  fs.closeSync(fd);
}
