/**
 * A source opened for reading: disk, partition or image file, and how to notice that it changed.
 *
 * Owns its descriptors until `close`.
 */
import { readFileSync } from "node:fs";
import { ExitCode, Failure } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import { Errno, errnoText, fdatasync, type FileStat, fstat, ioctlGet, open, stat } from "../kernel/libc.ts";
import { formatBytes } from "../units.ts";
import {
  closeChecked,
  closeDisk,
  type DirectMode,
  isBlock,
  isRegular,
  isSame,
  type OpenDisk,
  openDirect,
  sizeOf,
  typeName,
} from "./open-disk.ts";

export interface SourceOptions {
  /** How far the torrent's extents reach, in bytes; null when it is being captured. */
  readonly needBytes: number | null;
  /** auto: direct for a block device, through the page cache for a file, which serves many peers from memory. */
  readonly direct: DirectMode;
  /**
   * The files that the source is a view of: their time stamps tell whether it was written to. Its own are made up, by
   * qemu as the time of the question.
   */
  readonly madeOf?: readonly string[];
}

/** What tells that a source is still the one that was opened; plain data. */
export interface SourceIdentity {
  readonly stat: FileStat;
  readonly sizeBytes: number;
  /** Sectors ever written to a block device, from sysfs; null for a file and where sysfs does not tell. */
  readonly sectorsWritten: number | null;
}

/** Opens a source read-only. Throws Failure (exit 1), which names what to do. */
export function openSource(path: string, options: SourceOptions): Source {
  const before = stat(path);
  if (typeof before === "number") throw cannotOpen(path, before);
  if (!isBlock(before) && !isRegular(before)) {
    throw failure("source-type", `${path} is ${typeName(before)}; name a disk, a partition or an image file`);
  }
  const fd = open(path, abi.O_RDONLY);
  if (fd < 0) throw cannotOpen(path, fd);
  try {
    if (isBlock(before)) settle(path, fd);
    return new Source(describe(path, fd, options), options.madeOf ?? []);
  } catch (error) {
    closeChecked(fd);
    throw error;
  }
}

/**
 * Stores what others wrote to the device through the page cache before it was opened: direct reads see
 * it then, and its late write-back does not look like a change.
 */
function settle(path: string, fd: number): void {
  const result = fdatasync(fd);
  if (result < 0)
    throw failure("source-open", `cannot flush ${path}: ${errnoText(result)}; check the device and the kernel's log`);
}

function describe(path: string, fd: number, options: SourceOptions): OpenDisk {
  const now = fstat(fd);
  const sizeBytes = typeof now === "number" ? now : sizeOf(fd, now);
  if (typeof now === "number" || sizeBytes < 0) throw cannotOpen(path, sizeBytes);
  if (options.needBytes !== null && sizeBytes < options.needBytes) {
    const sizes = `${sizeBytes} bytes (${formatBytes(sizeBytes)}), the torrent needs ${options.needBytes} (${formatBytes(options.needBytes)})`;
    throw failure(
      "source-too-small",
      `${path} has ${sizes}: it is not what was captured; name the right source or capture it again`,
    );
  }
  const isDisk = isBlock(now);
  const wantsDirect = options.direct === "on" || (options.direct === "auto" && isDisk);
  const direct = wantsDirect ? openDirect(path, fd, abi.O_RDONLY, options.direct === "on") : null;
  if (options.direct === "on" && direct === null) {
    throw failure("source-no-direct", `${path} does not support direct IO; leave --direct on out`);
  }
  return {
    path,
    kind: isDisk ? "block" : "file",
    sizeBytes,
    sectorBytes: isDisk ? ioctlGet(fd, abi.BLKSSZGET, 32) : null,
    bufferedFd: fd,
    directFd: direct?.fd ?? -1,
    direct: direct?.alignment ?? null,
  };
}

export class Source {
  /** As it was when it was opened. */
  readonly identity: SourceIdentity;
  readonly #timesOfParts: readonly number[];

  constructor(
    readonly files: OpenDisk,
    readonly madeOf: readonly string[],
  ) {
    this.identity = this.#identityNow();
    this.#timesOfParts = this.#timesNow();
  }

  get path(): string {
    return this.files.path;
  }

  get sizeBytes(): number {
    return this.files.sizeBytes;
  }

  /** What changed since it was opened, as words that follow its name ("was replaced"), or null. */
  changed(): string | null {
    return this.changedSince(this.identity);
  }

  /** What changed since `identity`, as words that follow its name, or null. */
  changedSince(identity: SourceIdentity): string | null {
    const byName = stat(this.path);
    if (typeof byName === "number") return `is no longer there (${errnoText(byName)})`;
    if (!isSame(byName, identity.stat)) return "was replaced";
    const now = this.#identityNow();
    if (now.sizeBytes !== identity.sizeBytes)
      return `changed its size from ${identity.sizeBytes} to ${now.sizeBytes} bytes`;
    const isWritten = now.sectorsWritten !== identity.sectorsWritten;
    // A device node's own time stamp says nothing of the device, that of a view nothing of what it shows.
    const hasOwnTime = this.files.kind === "file" && this.madeOf.length === 0;
    const isTouched = hasOwnTime && now.stat.mtimeMs !== identity.stat.mtimeMs;
    const timesNow = this.#timesNow();
    const arePartsTouched = this.#timesOfParts.some((time, i) => time !== timesNow[i]);
    return isWritten || isTouched || arePartsTouched ? "was written to" : null;
  }

  close(): void {
    closeDisk(this.files);
  }

  /** When each file of `madeOf` was written to; -1 for one that is gone. */
  #timesNow(): number[] {
    return this.madeOf.map((path) => {
      const now = stat(path);
      return typeof now === "number" ? -1 : now.mtimeMs;
    });
  }

  #identityNow(): SourceIdentity {
    const now = fstat(this.files.bufferedFd);
    if (typeof now === "number") throw cannotOpen(this.path, now);
    const sizeBytes = sizeOf(this.files.bufferedFd, now);
    if (sizeBytes < 0) throw cannotOpen(this.path, sizeBytes);
    return { stat: now, sizeBytes, sectorsWritten: isBlock(now) ? sectorsWritten(now) : null };
  }
}

/** Field 7 of /sys/dev/block/M:N/stat (Documentation/block/stat.rst). */
function sectorsWritten(device: FileStat): number | null {
  try {
    const fields = readFileSync(`/sys/dev/block/${device.rdevMajor}:${device.rdevMinor}/stat`, "latin1")
      .trim()
      .split(/\s+/);
    return Number(fields[6]);
  } catch {
    // Without sysfs a changed device is noticed by its size and by the pieces that no longer match.
    return null;
  }
}

function cannotOpen(path: string, result: number): Failure {
  const errno = -result;
  const text = `cannot open ${path}: ${errnoText(result)}`;
  if (errno === Errno.ENOENT) return failure("source-missing", `${text}; check the name`);
  if (errno === Errno.EACCES || errno === Errno.EPERM)
    return failure("source-permission", `${text}; run as root or let this user read it`);
  return failure("source-open", `${text}; check the device and the kernel's log`);
}

function failure(code: string, message: string): Failure {
  return new Failure(ExitCode.failed, code, message);
}
