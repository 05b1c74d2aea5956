/** How each filesystem is made as large as the device that it is on, by its own tool. */
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Tool } from "../image/external-tool.ts";
import { change, MOUNT, needTools, UMOUNT, UNSHARE } from "./tools.ts";

/** Makes the filesystem on a device fill it. Throws Failure. */
export type Grower = (devicePath: string) => Promise<void>;

const E2FSCK: Tool = { program: "e2fsck", package: "e2fsprogs" };
const RESIZE2FS: Tool = { program: "resize2fs", package: "e2fsprogs" };
const XFS_GROWFS: Tool = { program: "xfs_growfs", package: "xfsprogs" };
const BTRFS: Tool = { program: "btrfs", package: "btrfs-progs" };
const NTFSRESIZE: Tool = { program: "ntfsresize", package: "ntfs-3g" };
const RESIZE_F2FS: Tool = { program: "resize.f2fs", package: "f2fs-tools" };
/** e2fsck(8): nothing was wrong; errors were corrected. */
const E2FSCK_GOOD = [0, 1];

interface Method {
  readonly tools: readonly Tool[];
  readonly grow: Grower;
}

const EXT: Method = {
  tools: [E2FSCK, RESIZE2FS],
  grow: async (device) => {
    // resize2fs insists on a check that is younger than the last mount.
    await change(E2FSCK, ["-f", "-p", device], { good: E2FSCK_GOOD });
    await change(RESIZE2FS, [device]);
  },
};

const METHODS: Readonly<Record<string, Method>> = {
  ext2: EXT,
  ext3: EXT,
  ext4: EXT,
  // nouuid: the disk that the image was taken of may be mounted here too.
  xfs: {
    tools: [XFS_GROWFS, MOUNT, UMOUNT, UNSHARE],
    grow: (device) => whileMounted(device, ["xfs", "nouuid"], [XFS_GROWFS.program]),
  },
  btrfs: {
    tools: [BTRFS, MOUNT, UMOUNT, UNSHARE],
    grow: (device) => whileMounted(device, ["btrfs", "rw"], [BTRFS.program, "filesystem", "resize", "max"]),
  },
  ntfs: {
    tools: [NTFSRESIZE],
    grow: async (device) => void (await change(NTFSRESIZE, ["--force", "--no-progress-bar", device])),
  },
  f2fs: { tools: [RESIZE_F2FS], grow: async (device) => void (await change(RESIZE_F2FS, [device])) },
};

const REASONS: Readonly<Record<string, string>> = {
  swap: "it is swap",
  LVM2_member: "it is a physical volume of LVM, whose volumes are grown from the running system (pvresize, lvextend)",
  crypto_LUKS: "it is encrypted, and what is in it can be grown only when it is open",
  BitLocker: "it is encrypted, and grown from the running Windows",
  vfat: "FAT cannot be grown by a tool that is to be relied on",
  exfat: "exFAT cannot be grown",
  "": "what it holds is not known",
};

/** How a filesystem of blkid's `type` is grown, or why it is not. */
export function growerOf(type: string): Grower | string {
  const method = Object.hasOwn(METHODS, type) ? METHODS[type] : undefined;
  if (!method) return (Object.hasOwn(REASONS, type) ? REASONS[type] : undefined) ?? `${type} cannot be grown`;
  needTools(method.tools, `growing ${type}`);
  return method.grow;
}

/** Throws Failure where what grows one of these types is missing. */
export function needGrowingTools(type: string): void {
  if (Object.hasOwn(METHODS, type)) needTools(METHODS[type].tools, `growing ${type}`);
}

/** Mounted in a namespace of its own, so that the mount is gone with the script, however that ends. */
const SCRIPT = `mount -t "$1" -o "$2,nodev,nosuid,noexec" "$3" "$4" || exit 1
folder=$4
shift 4
"$@" "$folder"
result=$?
umount "$folder" && exit $result`;

/** Runs `words` with the folder that the device is mounted on. */
async function whileMounted(
  device: string,
  [type, flags]: readonly [string, string],
  words: readonly string[],
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-grow-"));
  const alone = ["--mount", "--propagation", "private"];
  try {
    await change(UNSHARE, [...alone, "sh", "-c", SCRIPT, "sh", type, flags, device, folder, ...words]);
  } finally {
    rmdirSync(folder);
  }
}
