/**
 * The two root folders of a node. The first is what the kernel unpacks into memory: busybox, what it takes to reach the
 * second, and the script that does so. The second is the read-only image with everything else.
 */
import { basename } from "node:path";
import type { FileTree } from "./file-tree.ts";
import type { Libraries } from "./libraries.ts";
import { SCRIPTS } from "./scripts.ts";

/**
 * Applets of busybox that get a name in /bin: what the scripts use, and what somebody at the console of a machine that
 * does not come up will type. Listed here since busybox itself may be for another machine and cannot be asked.
 */
const APPLETS =
  `ash awk basename blkdiscard blockdev cat chmod chown chroot clear cmp cp cut date dd df diff dirname dmesg
 du echo env expr false fdisk find free grep gunzip gzip halt head hexdump hostname id insmod ip kill less ln losetup ls
 lsmod lspci lsusb mkdir mkfifo mknod mktemp mkswap modinfo modprobe more mount mv nc nslookup od pidof ping ping6 poweroff printf ps
 pwd readlink realpath reboot reset rm rmdir rmmod route sed seq setsid sh sha256sum sleep sort stat strings stty
 swapoff swapon switch_root sync sysctl tail tar tee telnet test tftp time timeout top touch tr traceroute true tty udhcpc uevent umount uname uniq unshare
 unxz uptime usleep vconfig vi watch wc wget which xargs xxd xzcat yes zcat`.split(/\s+/);

/** Folders that something is mounted on, or that programs expect. */
const FOLDERS = ["proc", "sys", "dev", "run", "tmp", "mnt", "root", "etc", "var", "newroot"];

/** What both have. `busybox`: the static one of this machine. */
function addCommon(tree: FileTree, libraries: Libraries, busybox: string): void {
  for (const folder of FOLDERS) tree.folder(folder);
  libraries.addProgram(tree, busybox, "bin/busybox");
  tree.text("lib/diskswarm/common.sh", SCRIPTS.common);
  tree.text("lib/diskswarm/network.sh", SCRIPTS.network);
  tree.text("lib/diskswarm/udhcpc.sh", SCRIPTS.udhcpc, 0o755);
  // Where the kernel looks for a program that loads modules.
  tree.link("sbin/modprobe", "../bin/busybox");
  tree.link("etc/resolv.conf", "../run/diskswarm/resolv.conf");
  tree.link("etc/mtab", "../proc/self/mounts");
  tree.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
  tree.text("etc/group", "root:x:0:\n");
}

/** Links for the applets that no program of that name was put in for. */
function addApplets(tree: FileTree): void {
  for (const applet of APPLETS) if (!tree.has(`usr/bin/${applet}`)) tree.link(`bin/${applet}`, "busybox");
}

/** `imageSha256`: of the image that is fetched, for two stages; null where the image lies in the archive. */
export function fillFirstRoot(tree: FileTree, libraries: Libraries, busybox: string, imageSha256: string | null): void {
  addCommon(tree, libraries, busybox);
  addApplets(tree);
  tree.text("init", SCRIPTS.init, 0o755);
  // Open before anything is mounted: the kernel gives /init its console by this name.
  tree.device("dev/console", 0o600, 5, 1);
  tree.device("dev/null", 0o666, 1, 3);
  if (imageSha256 === null) return;
  tree.text("lib/diskswarm/attach.sh", SCRIPTS.attachImage);
  tree.text("lib/diskswarm/fetch.sh", SCRIPTS.fetchImage);
  tree.text("lib/diskswarm/root.sha256", `${imageSha256}\n`);
}

export interface SecondRootParts {
  readonly busybox: string;
  /** Further programs and files of the user's, as paths of this machine. */
  readonly extra: readonly string[];
}

/** The executable and the programs of others are put in before: busybox's applets give way to them. */
export function fillSecondRoot(tree: FileTree, libraries: Libraries, parts: SecondRootParts): void {
  for (const path of parts.extra) libraries.addProgram(tree, path, `usr/bin/${basename(path)}`);
  addCommon(tree, libraries, parts.busybox);
  addApplets(tree);
  tree.folder("usr/sbin");
  tree.text("lib/diskswarm/boot.sh", SCRIPTS.boot, 0o755);
  tree.text("lib/diskswarm/hotplug.sh", SCRIPTS.hotplug, 0o755);
}
