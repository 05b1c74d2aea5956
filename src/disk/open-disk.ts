/**
 * An open disk or file: its descriptors, its size and what direct IO asks of addresses and offsets.
 *
 * The descriptors belong to whoever opened it (source.ts, target.ts) and live until `closeDisk`.
 */
import { assert } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import { close, Errno, errnoText, type FileStat, fstat, ioctlGet, open, pread } from "../kernel/libc.ts";
import { mapMemory } from "../kernel/memory.ts";
import type { DiskFiles } from "./queue.ts";

/** What O_DIRECT asks for; both are powers of two. */
export interface DirectAlignment {
  /** Of offsets and lengths, in bytes. */
  readonly offsetBytes: number;
  /** Of memory addresses, in bytes. */
  readonly memoryBytes: number;
}

export interface OpenDisk extends DiskFiles {
  readonly kind: "block" | "file";
  readonly sizeBytes: number;
  /** Logical sector size of a block device (BLKSSZGET); null for a file. */
  readonly sectorBytes: number | null;
  /** Null: direct IO is off or not possible, and `directFd` is -1. */
  readonly direct: DirectAlignment | null;
}

export type DirectMode = "auto" | "on" | "off";

/** Direct IO with a coarser alignment than this is not worth its edges; larger ones are not known. */
const ALIGN_BYTES_MAX = 16 * 1024;

/** Size of an open block device or file in bytes, or minus errno. */
export function sizeOf(fd: number, stat: FileStat): number {
  return isBlock(stat) ? ioctlGet(fd, abi.BLKGETSIZE64, 64) : stat.sizeBytes;
}

export function isBlock(stat: FileStat): boolean {
  return (stat.mode & abi.S_IFMT) === abi.S_IFBLK;
}

export function isRegular(stat: FileStat): boolean {
  return (stat.mode & abi.S_IFMT) === abi.S_IFREG;
}

/** What kind of thing a path that is neither disk nor file is, for messages. */
export function typeName(stat: FileStat): string {
  switch (stat.mode & abi.S_IFMT) {
    case abi.S_IFDIR:
      return "a directory";
    case abi.S_IFCHR:
      return "a character device";
    case 0o010000:
      return "a named pipe";
    case 0o140000:
      return "a socket";
    default:
      return "neither a block device nor a file";
  }
}

/** True where two stats are of the same device or file. */
export function isSame(a: FileStat, b: FileStat): boolean {
  if (isBlock(a) || isBlock(b))
    return isBlock(a) && isBlock(b) && a.rdevMajor === b.rdevMajor && a.rdevMinor === b.rdevMinor;
  return a.deviceMajor === b.deviceMajor && a.deviceMinor === b.deviceMinor && a.inode === b.inode;
}

/**
 * Opens `path`, which is open as `bufferedFd` already, once more with O_DIRECT.
 * Returns the descriptor and its alignment, or null where direct IO is not possible there. A file whose
 * file system does not tell its alignment (tmpfs, where it gains nothing; any before Linux 6.1)
 * goes direct only when it is insisted on.
 */
export function openDirect(
  path: string,
  bufferedFd: number,
  accessFlags: number,
  insists: boolean,
): { fd: number; alignment: DirectAlignment } | null {
  const fd = open(path, accessFlags | abi.O_DIRECT | abi.O_NONBLOCK);
  if (fd < 0) return null;
  const [wanted, got] = [fstat(bufferedFd), fstat(fd)];
  const alignment =
    typeof wanted === "number" || typeof got === "number" || !isSame(wanted, got)
      ? null
      : alignmentOf(fd, got, insists);
  if (alignment !== null && readsDirectly(fd, alignment)) return { fd, alignment };
  closeChecked(fd);
  return null;
}

/** STATX_DIOALIGN (Linux 6.1), else the sector size of a block device, else a page where it is insisted on. */
function alignmentOf(fd: number, stat: FileStat, insists: boolean): DirectAlignment | null {
  const { directMemoryAlignBytes: memoryBytes, directOffsetAlignBytes: offsetBytes } = stat;
  if (memoryBytes !== null && offsetBytes !== null) return usable(offsetBytes, memoryBytes);
  if (!isBlock(stat)) return insists ? usable(abi.PAGE_BYTES, abi.PAGE_BYTES) : null;
  const sectorBytes = ioctlGet(fd, abi.BLKSSZGET, 32);
  return sectorBytes > 0 ? usable(sectorBytes, sectorBytes) : null;
}

function usable(offsetBytes: number, memoryBytes: number): DirectAlignment | null {
  const isPower = (value: number) => value > 0 && value <= ALIGN_BYTES_MAX && (value & (value - 1)) === 0;
  return isPower(offsetBytes) && isPower(memoryBytes) ? { offsetBytes, memoryBytes } : null;
}

/** Some file systems accept the flag at open and refuse the first transfer. */
function readsDirectly(fd: number, alignment: DirectAlignment): boolean {
  const lengthBytes = Math.max(alignment.offsetBytes, alignment.memoryBytes);
  const memory = mapMemory(lengthBytes);
  const result = pread(fd, memory.address, lengthBytes, 0);
  memory.free();
  return result !== -Errno.EINVAL && result !== -Errno.EOPNOTSUPP;
}

/** Closes both descriptors. The data was flushed before; nothing may be in flight. */
export function closeDisk(disk: DiskFiles): void {
  if (disk.directFd !== -1) closeChecked(disk.directFd);
  closeChecked(disk.bufferedFd);
}

export function closeChecked(fd: number): void {
  const result = close(fd);
  assert(result === 0 || result === -Errno.EINTR || result === -Errno.EIO, `close: ${errnoText(result)}`);
}
