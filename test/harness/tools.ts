/** Which tools a test needs, and what to install where one is missing. */

/** May this process make namespaces and loop devices? Tests that need it are skipped for an ordinary user. */
export const isRoot = process.getuid?.() === 0;

const PACKAGES: Record<string, string> = {
  aria2c: "aria2",
  "transmission-cli": "transmission-cli",
  opentracker: "opentracker",
  iperf3: "iperf3",
  ip: "iproute2",
  tc: "iproute2",
  "udp-sender": "udpcast",
  "udp-receiver": "udpcast",
  curl: "curl",
  busybox: "busybox-static",
  dnsmasq: "dnsmasq-base",
  "grub-mkimage": "grub-common",
  mke2fs: "e2fsprogs",
  "qemu-system-aarch64": "qemu-system-arm",
  "qemu-system-x86_64": "qemu-system-x86",
  losetup: "mount",
  depmod: "kmod",
  modprobe: "kmod",
  mksquashfs: "squashfs-tools",
  sfdisk: "fdisk",
  "qemu-img": "qemu-utils",
  "qemu-storage-daemon": "qemu-system-common",
  split: "coreutils",
  xz: "xz-utils",
  pvs: "lvm2",
  pvcreate: "lvm2",
  vgcfgrestore: "lvm2",
  sgdisk: "gdisk",
  mcopy: "mtools",
  mmd: "mtools",
  mdel: "mtools",
  "mkfs.xfs": "xfsprogs",
  "mkfs.btrfs": "btrfs-progs",
  btrfs: "btrfs-progs",
  "mkfs.f2fs": "f2fs-tools",
  "sload.f2fs": "f2fs-tools",
  "mkfs.ntfs": "ntfs-3g",
  "mkfs.fat": "dosfstools",
  "mkfs.vfat": "dosfstools",
  kexec: "kexec-tools",
  "mkfs.exfat": "exfatprogs",
  "mount.exfat-fuse": "exfat-fuse",
};

/** Fails with the package's name where a tool is missing. */
export function needTools(...names: string[]): void {
  for (const name of names) {
    if (!Bun.which(name)) throw new Error(`${name} is not installed: apt-get install ${packageOf(name)}`);
  }
}

function packageOf(name: string): string {
  return PACKAGES[name] ?? (name.startsWith("partclone.") ? "partclone" : name);
}

/** The system's Python, which is the one that Debian's python3-libtorrent belongs to. */
export const PYTHON = "/usr/bin/python3";
