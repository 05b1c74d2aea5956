/**
 * What is being captured: opened for reading, measured, and compared with itself when the capture ends.
 *
 * It owns its descriptors; `close` gives them back. Nothing is ever written to a source.
 */
import { existsSync, realpathSync } from "node:fs";
import { DiskFault, ExitCode, Failure } from "../errors.ts";
import { BLKGETSIZE64, BLKSSZGET, O_DIRECT, O_RDONLY, S_IFBLK, S_IFDIR, S_IFMT, S_IFREG } from "../kernel/abi.ts";
import { close, errnoText, type FileStat, fstat, ioctlGet, open } from "../kernel/libc.ts";
import type { ImageInfo } from "../torrent/types.ts";

export interface CaptureSource {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly kind: ImageInfo["kind"];
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly isBlockDevice: boolean;
  /** `major:minor` of a block device as the kernel names it, else empty. */
  readonly deviceId: string;
  readonly bufferedFd: number;
  /** Opened with O_DIRECT, or -1 where the filesystem cannot. */
  readonly directFd: number;
  /** Throws where the source was written to since it was opened, as far as that can be seen. */
  assertUnchanged(): void;
  close(): void;
}

/** Alignment that our reads have: whole pages of memory, blocks of 4 KiB of the disk. */
const DIRECT_ALIGN_BYTES = 4096;

/** Opens a regular file or block device for capture. `direct` false reads through the page cache. */
export function openCaptureSource(givenPath: string, direct: boolean): CaptureSource {
  const path = resolve(givenPath);
  const bufferedFd = open(path, O_RDONLY);
  if (bufferedFd < 0) throw cannotOpen(path, errnoText(bufferedFd));
  try {
    return describe(path, bufferedFd, direct);
  } catch (error) {
    close(bufferedFd);
    throw error;
  }
}

function resolve(path: string): string {
  if (!existsSync(path)) throw cannotOpen(path, "no such file or device");
  return realpathSync(path);
}

function describe(path: string, bufferedFd: number, direct: boolean): CaptureSource {
  const stat = statOf(bufferedFd, path);
  const type = stat.mode & S_IFMT;
  if (type === S_IFDIR) throw cannotOpen(path, "it is a folder; give a raw image, a disk or a partition");
  if (type !== S_IFREG && type !== S_IFBLK) throw cannotOpen(path, "it is neither a regular file nor a block device");
  const isBlockDevice = type === S_IFBLK;
  const deviceId = isBlockDevice ? `${stat.rdevMajor}:${stat.rdevMinor}` : "";
  const sizeBytes = isBlockDevice ? ask(bufferedFd, BLKGETSIZE64, 64, path) : stat.sizeBytes;
  if (sizeBytes === 0) throw cannotOpen(path, "it is empty; there is nothing to capture");
  const directFd = direct ? openDirect(path, stat) : -1;
  return {
    path,
    kind: !isBlockDevice ? "file" : existsSync(`/sys/dev/block/${deviceId}/partition`) ? "partition" : "disk",
    sizeBytes,
    sectorBytes: isBlockDevice ? ask(bufferedFd, BLKSSZGET, 32, path) : 512,
    isBlockDevice,
    deviceId,
    bufferedFd,
    directFd,
    assertUnchanged: () => assertUnchanged(bufferedFd, path, stat, isBlockDevice, sizeBytes),
    close: () => {
      close(bufferedFd);
      if (directFd >= 0) close(directFd);
    },
  };
}

/** A second descriptor with O_DIRECT, or -1 where direct reads of 4 KiB blocks are not possible. */
function openDirect(path: string, stat: FileStat): number {
  const align = Math.max(stat.directMemoryAlignBytes ?? 1, stat.directOffsetAlignBytes ?? 1);
  if (stat.directOffsetAlignBytes === 0 || align > DIRECT_ALIGN_BYTES) return -1;
  const fd = open(path, O_RDONLY | O_DIRECT);
  return fd < 0 ? -1 : fd;
}

function assertUnchanged(fd: number, path: string, before: FileStat, isBlockDevice: boolean, sizeBytes: number): void {
  const now = statOf(fd, path);
  const nowBytes = isBlockDevice ? ask(fd, BLKGETSIZE64, 64, path) : now.sizeBytes;
  // A block device's times say nothing about its content.
  if (nowBytes === sizeBytes && (isBlockDevice || now.mtimeMs === before.mtimeMs)) return;
  const what = nowBytes === sizeBytes ? "it was written to" : `its size went from ${sizeBytes} to ${nowBytes} bytes`;
  throw new Failure(ExitCode.failed, "source-changed", `${path} changed while it was captured (${what}); stop what writes to it and capture again`);
}

function statOf(fd: number, path: string): FileStat {
  const stat = fstat(fd);
  if (typeof stat === "number") throw new DiskFault(path, "stat", 0, -stat, errnoText(stat));
  return stat;
}

function ask(fd: number, request: number, bits: 32 | 64, path: string): number {
  const answer = ioctlGet(fd, request, bits);
  if (answer < 0) throw new DiskFault(path, "ask the size of", 0, -answer, errnoText(answer));
  return answer;
}

function cannotOpen(path: string, reason: string): Failure {
  return new Failure(ExitCode.failed, "source", `cannot capture ${path}: ${reason}`);
}
