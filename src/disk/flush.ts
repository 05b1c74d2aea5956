/**
 * From written to stored: what makes the kernel and the device keep what they took.
 *
 * Errors of buffered writes are reported here or nowhere, once per descriptor, so every descriptor that
 * was written through is synced and every result is checked (fsync(2)).
 */
import { dirname } from "node:path";
import * as abi from "../kernel/abi.ts";
import { fadvise, fdatasync, fsync, ioctl, open } from "../kernel/libc.ts";
import { diskFault } from "./disk-fault.ts";
import { closeChecked, type OpenDisk } from "./open-disk.ts";

/** Flushes all that was written, with the device's own cache. Blocks until it is stored. Throws DiskFault. */
export function flushDisk(disk: OpenDisk): void {
  for (const fd of [disk.bufferedFd, disk.directFd]) {
    if (fd === -1) continue;
    const result = disk.kind === "file" ? fsync(fd) : fdatasync(fd);
    if (result < 0) throw diskFault(disk.path, "flush", 0, result);
  }
}

/** Makes the name of a file that was just created survive a crash. Throws DiskFault. */
export function flushDirectoryOf(path: string): void {
  const directory = dirname(path);
  const fd = open(directory, abi.O_RDONLY);
  if (fd < 0) throw diskFault(directory, "flush", 0, fd);
  const result = fsync(fd);
  closeChecked(fd);
  if (result < 0) throw diskFault(directory, "flush", 0, result);
}

/**
 * Drops the clean pages of a disk that was flushed, so that a read after this comes from the device.
 * BLKFLSBUF needs CAP_SYS_ADMIN; where that is refused, posix_fadvise does it page by page.
 */
export function dropCache(disk: OpenDisk): void {
  if (disk.kind === "block" && ioctl(disk.bufferedFd, abi.BLKFLSBUF) === 0) return;
  const result = fadvise(disk.bufferedFd, 0, 0, abi.POSIX_FADV_DONTNEED);
  if (result < 0) throw diskFault(disk.path, "drop the cache of", 0, result);
}
