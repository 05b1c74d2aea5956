/**
 * Was a filesystem left in order? Its map on the disk is the truth only then: after a crash the last changes
 * stand in its journal, and blocks that they refer to still look unused. A clone that lacked them would replay
 * the journal and find garbage, long after the deployment was called done. partclone asks some filesystems for
 * this (FAT, NTFS, HFS+) and trusts the others; these are the others, each by one field of its superblock.
 *
 * XFS alone needs its whole log walked, which is left to xfs_logprint.
 */
import { KiB } from "../units.ts";
import type { ReadDisk } from "./disk-reader.ts";
import { reasonOf, runToolForText, type Tool, toolFailure } from "./external-tool.ts";

const XFS_LOGPRINT: Tool = { program: "xfs_logprint", package: "xfsprogs" };

/** struct ext4_super_block: at byte 1024, s_feature_incompat at 0x60, INCOMPAT_RECOVER. */
const EXT_FEATURES_OFFSET = 1024 + 0x60;
const EXT_NEEDS_RECOVERY = 0x4;
/** struct btrfs_super_block: at 64 KiB, log_root at 0x60 is 0 unless something waits to be replayed; num_devices. */
const BTRFS_LOG_ROOT_OFFSET = 64 * KiB + 0x60;
const BTRFS_DEVICES_OFFSET = 64 * KiB + 0x88;
/** exFAT 1.00, 3.1.13: VolumeFlags at byte 106, VolumeDirty is bit 1. */
const EXFAT_FLAGS_OFFSET = 106;
const EXFAT_DIRTY = 0x2;
const F2FS_SUPERBLOCK_OFFSET = 1024;
const F2FS_BLOCK_BYTES = 4 * KiB;
/** struct f2fs_checkpoint: version at 0, ckpt_flags at 132, CP_UMOUNT_FLAG. */
const F2FS_FLAGS_OFFSET = 132;
const F2FS_UNMOUNTED = 0x1;

/**
 * Why the map of a filesystem of that type cannot be trusted (blkid's word), as words that follow its name, or null.
 * `read` reads from the filesystem's first byte.
 */
export function uncleanState(type: string, read: ReadDisk): string | null {
  if (type === "ext3" || type === "ext4") {
    return (field(read, EXT_FEATURES_OFFSET, 4).readUInt32LE() & EXT_NEEDS_RECOVERY) === 0
      ? null
      : "has changes in its journal that were not replayed";
  }
  if (type === "btrfs") return btrfsState(read);
  if (type === "exfat")
    return (field(read, EXFAT_FLAGS_OFFSET, 2).readUInt16LE() & EXFAT_DIRTY) === 0 ? null : "is marked as dirty";
  if (type === "f2fs") return f2fsWasUnmounted(read) ? null : "was not unmounted cleanly";
  return null;
}

function btrfsState(read: ReadDisk): string | null {
  if (field(read, BTRFS_LOG_ROOT_OFFSET, 8).readBigUInt64LE() !== 0n)
    return "has changes in its log tree that were not replayed";
  // Its used blocks are spread over all of them, in an address space of its own.
  const devices = field(read, BTRFS_DEVICES_OFFSET, 8).readBigUInt64LE();
  return devices > 1n ? `spans ${devices} devices, and a map of one alone cannot be had` : null;
}

/** The newer of its two checkpoints says how it was left. */
function f2fsWasUnmounted(read: ReadDisk): boolean {
  const superblock = field(read, F2FS_SUPERBLOCK_OFFSET, 80);
  const checkpointBlock = superblock.readUInt32LE(76);
  const blocksPerSegment = 2 ** Math.min(superblock.readUInt32LE(20), 16);
  const packs = [checkpointBlock, checkpointBlock + blocksPerSegment].map((block) =>
    field(read, block * F2FS_BLOCK_BYTES, 136),
  );
  const [first, second] = packs;
  const newer = second.readBigUInt64LE(0) > first.readBigUInt64LE(0) ? second : first;
  return (newer.readUInt32LE(F2FS_FLAGS_OFFSET) & F2FS_UNMOUNTED) !== 0;
}

/** Beyond the end of a filesystem that is cut off there are zeros: what was wanted is not there. */
function field(read: ReadDisk, offsetBytes: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  read(offsetBytes, lengthBytes).copy(bytes);
  return bytes;
}

/** The same for XFS. Throws Failure where xfs_logprint is missing or cannot tell. */
export async function uncleanXfs(devicePath: string, signal: AbortSignal): Promise<string | null> {
  const run = await runToolForText(XFS_LOGPRINT, ["-t", devicePath], signal);
  const state = /\bstate: <(CLEAN|DIRTY)>/.exec(run.stdout)?.[1];
  if (state === undefined)
    throw toolFailure(
      "xfs-log",
      `xfs_logprint cannot tell whether the XFS of ${devicePath} is clean (${reasonOf(run)})`,
    );
  return state === "CLEAN" ? null : "has changes in its log that were not replayed";
}
