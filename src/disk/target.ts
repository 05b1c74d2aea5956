/**
 * A target opened for writing, after every reason not to write to it was looked for.
 *
 * Nothing is written before `openTarget` returns: a refusal (exit 4) leaves the target as it was, and a
 * file that was created for nothing is removed. The exclusive descriptor stays open until `close`, so that
 * nobody mounts the disk while it is written. Owns its descriptors.
 */
import { unlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type Failure, refusedTarget } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import { Errno, errnoText, type FileStat, flock, fstat, ftruncate, ioctlGet, open, stat } from "../kernel/libc.ts";
import { DiskLayout } from "../torrent/disk-layout.ts";
import { makeExtentTable, rangesEndBytes } from "../torrent/extents.ts";
import type { ExtentTable, Metainfo } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { flushDirectoryOf, flushDisk } from "./flush.ts";
import { useOfDevice, useOfFile } from "./in-use.ts";
import {
  closeChecked,
  closeDisk,
  type DirectMode,
  isBlock,
  isRegular,
  type OpenDisk,
  openDirect,
  sizeOf,
  typeName,
} from "./open-disk.ts";
import { isRotational } from "./rotational.ts";
import { TailStore } from "./tail-store.ts";

/** What an image asks of its target. */
export interface TargetNeeds {
  /** Size in bytes: of a file, and the least of a disk unless its `layout` allows less. */
  readonly bytes: number;
  /** Logical sector size that the partition table in the image counts in; null where any will do. */
  readonly sectorBytes: number | null;
  /** A file gets exactly `bytes`: the image is of a file, not of a disk. */
  readonly isExact: boolean;
  /** What is known of the image's partitions; without it a disk must be as large as the image's and have its sectors. */
  readonly layout?: DiskLayout | null;
  /** What will be written; without them all of it lies within `bytes`. */
  readonly extents?: ExtentTable;
}

/** What will be done to the partition table when the image is proven. */
export interface FitPermits {
  /** There is a tool to rewrite a GPT with: a disk may be smaller than the image's. */
  readonly canRewriteTable: boolean;
  /** The user asked for a table that counts in the target's sectors. */
  readonly convertSectors: boolean;
}

const NO_EXTENTS = makeExtentTable(new Float64Array(0), new Float64Array(0));
/** Nothing will be done to the table. */
const NO_FIT: FitPermits = { canRewriteTable: false, convertSectors: false };

export interface TargetOptions {
  /** Allows a target that is an ordinary file, and creates it where it is missing. */
  readonly force: boolean;
  readonly direct: DirectMode;
  /** Absent: nothing. */
  readonly fit?: FitPermits;
}

/** What the image of a torrent asks of its target. */
export function needsOf(metainfo: Metainfo): TargetNeeds {
  const { extents, image } = metainfo;
  const layout = DiskLayout.of(metainfo);
  return {
    bytes: Math.max(rangesEndBytes(extents), image?.diskBytes ?? 0),
    sectorBytes: image !== null && (image.kind === "disk" || layout !== null) ? image.sectorBytes : null,
    isExact: image === null ? metainfo.layout === "single" : image.kind === "file",
    layout,
    extents,
  };
}

/** Opens a target for writing. Throws a refusal (exit 4) before anything is written. */
export function openTarget(path: string, needs: TargetNeeds, options: TargetOptions): Target {
  const found = stat(path);
  if (found === -Errno.ENOENT) return openMissing(path, needs, options);
  if (typeof found === "number") throw cannotOpen(path, found);
  if (isBlock(found)) return openDevice(path, found, needs, options);
  if (!isRegular(found)) {
    throw refuse(path, found.mode, `it is ${typeName(found)}; name a disk, a partition or (with --force) a file`);
  }
  if (!options.force)
    throw refused(
      "target-not-block",
      path,
      "it is an ordinary file, not a block device; --force writes to it all the same",
    );
  return openFile(path, needs, options, false);
}

function refuse(path: string, mode: number, text: string): Failure {
  return refused((mode & abi.S_IFMT) === abi.S_IFDIR ? "target-directory" : "target-type", path, text);
}

/** A device's name that is missing is a typing error or a missing driver, never a file to make in /dev. */
function openMissing(path: string, needs: TargetNeeds, options: TargetOptions): Target {
  const absolute = resolve(path);
  const isDeviceName = absolute.startsWith("/dev/") && !absolute.startsWith("/dev/shm/");
  if (isDeviceName)
    throw refused("target-missing", path, "there is no such device; look at lsblk, and whether its driver is loaded");
  if (!options.force)
    throw refused(
      "target-missing",
      path,
      "there is no such device or file; check the name, or give --force to create a file",
    );
  return openFile(path, needs, options, true);
}

function openDevice(path: string, found: FileStat, needs: TargetNeeds, options: TargetOptions): Target {
  const use = useOfDevice(found);
  if (use !== null) throw refused(use.code, path, use.text);
  const fd = open(path, abi.O_RDWR | abi.O_EXCL);
  if (fd === -Errno.EBUSY) {
    throw refused(
      "target-busy",
      path,
      "another program has opened it exclusively (mounted elsewhere, LVM, RAID or another imaging); end that first",
    );
  }
  if (fd < 0) throw cannotOpen(path, fd);
  return guarded(fd, null, () => {
    if (ioctlGet(fd, abi.BLKROGET, 32) > 0) throw readOnly(path);
    const sizeBytes = sizeOf(fd, found);
    if (sizeBytes < 0) throw cannotOpen(path, sizeBytes);
    const sectorBytes = ioctlGet(fd, abi.BLKSSZGET, 32);
    if (sectorBytes < 0) throw cannotOpen(path, sectorBytes);
    const { fit = NO_FIT } = options;
    checkFits(path, sizeBytes, sectorBytes, needs, fit);
    return finishOpen(path, fd, "block", sizeBytes, sectorBytes, options.direct, false, needs.extents);
  });
}

function openFile(path: string, needs: TargetNeeds, options: TargetOptions, isNew: boolean): Target {
  const fd = open(path, abi.O_RDWR | (isNew ? abi.O_CREAT | abi.O_EXCL : 0));
  if (fd < 0) throw cannotOpen(path, fd);
  return guarded(fd, isNew ? path : null, () => {
    const now = fstat(fd);
    if (typeof now === "number") throw cannotOpen(path, now);
    const use = useOfFile(now);
    if (use !== null) throw refused(use.code, path, use.text);
    // Advisory, but every diskswarm takes it: two deployments never write one file.
    const locked = flock(fd, abi.LOCK_EX | abi.LOCK_NB);
    if (locked === -Errno.EAGAIN) throw refused("target-busy", path, "another program has locked it; end that first");
    const target = finishOpen(
      path,
      fd,
      "file",
      needs.isExact ? needs.bytes : Math.max(now.sizeBytes, needs.bytes),
      null,
      options.direct,
      isNew,
      needs.extents,
    );
    if (now.sizeBytes < needs.bytes || needs.isExact) target.resize(needs.bytes);
    return target;
  });
}

/** Runs `use`; where it throws, the descriptor is closed and a file that was created removed. */
function guarded(fd: number, createdPath: string | null, use: () => Target): Target {
  try {
    return use();
  } catch (error) {
    closeChecked(fd);
    if (createdPath !== null) unlinkSync(createdPath);
    throw error;
  }
}

function finishOpen(
  path: string,
  fd: number,
  kind: "block" | "file",
  sizeBytes: number,
  sectorBytes: number | null,
  mode: DirectMode,
  isNew: boolean,
  extents: ExtentTable = NO_EXTENTS,
): Target {
  const direct = mode === "off" ? null : openDirect(path, fd, abi.O_RDWR, mode === "on");
  if (mode === "on" && direct === null) {
    throw refused("target-no-direct", path, "it does not support direct IO; leave --direct on out");
  }
  return new Target(
    {
      path,
      kind,
      sizeBytes,
      sectorBytes,
      bufferedFd: fd,
      directFd: direct?.fd ?? -1,
      direct: direct?.alignment ?? null,
      tail: TailStore.beyond(extents, sizeBytes),
    },
    isNew,
  );
}

export class Target {
  constructor(
    readonly files: OpenDisk,
    /** The file was created by opening it. */
    readonly isNew: boolean,
  ) {}

  get path(): string {
    return this.files.path;
  }

  /** Writes go past the page cache, which would put them into order, to a disk that seeks. */
  get wantsLongRuns(): boolean {
    const now = fstat(this.files.bufferedFd);
    return this.files.direct !== null && typeof now !== "number" && isRotational(now);
  }

  /** Sets the size of a file that was just opened. What is added reads as zero. */
  resize(bytes: number): void {
    const result = ftruncate(this.files.bufferedFd, bytes);
    if (result === 0) return;
    if (this.files.directFd !== -1) closeChecked(this.files.directFd);
    throw refused(
      "target-too-small",
      this.path,
      `it cannot be made ${bytes} bytes (${formatBytes(bytes)}) long: ${errnoText(result)}; choose another file system`,
    );
  }

  /** Makes the device keep all that was written, and a new file its name. Throws DiskFault. */
  flush(): void {
    flushDisk(this.files);
    if (this.isNew) flushDirectoryOf(this.path);
  }

  close(): void {
    closeDisk(this.files);
  }
}

function cannotOpen(path: string, result: number): Failure {
  switch (-result) {
    case Errno.EROFS:
      return readOnly(path);
    case Errno.EACCES:
    case Errno.EPERM:
      return refused(
        "target-permission",
        path,
        `${errnoText(result)}; run as root, or look whether it is write protected`,
      );
    case Errno.ENOENT:
    case Errno.ENOTDIR:
      return refused("target-missing", path, `${dirname(path)} is not a directory that exists; make it first`);
    case Errno.EEXIST:
      return refused(
        "target-missing",
        path,
        "it is a link to something that does not exist; look where it leads (readlink)",
      );
    case Errno.ETXTBSY:
    case Errno.EBUSY:
      return refused("target-busy", path, `${errnoText(result)}: another program uses it; end that first`);
    case Errno.EISDIR:
      return refused("target-directory", path, "it is a directory; name a disk, a partition or (with --force) a file");
    default:
      return refused(
        "target-open",
        path,
        `it cannot be opened for writing: ${errnoText(result)}; check the device and the kernel's log`,
      );
  }
}

function readOnly(path: string): Failure {
  return refused(
    "target-read-only",
    path,
    "it is read-only; remove the write protection (blockdev --setrw, mount -o remount,rw) or choose another disk",
  );
}

/** Throws a refusal where the image does not fit a disk of that size and with those sectors. */
export function checkFits(
  path: string,
  sizeBytes: number,
  sectorBytes: number,
  needs: TargetNeeds,
  fit: FitPermits,
): void {
  checkSectors(path, sectorBytes, needs, fit);
  checkSize(path, sizeBytes, sectorBytes, needs, fit);
}

function checkSectors(path: string, sectorBytes: number, needs: TargetNeeds, { convertSectors }: FitPermits): void {
  if (needs.sectorBytes === null || needs.sectorBytes === sectorBytes) return;
  const sectors = `its sectors have ${sectorBytes} bytes, those of the image ${needs.sectorBytes}`;
  const refuse = (reason: string) => refused("target-sector-size", path, `${sectors}: ${reason}`);
  const choose = `choose a disk with ${needs.sectorBytes}-byte sectors`;
  const problem =
    needs.layout == null
      ? "the image does not say what partitions it has"
      : needs.layout.conversionProblem(sectorBytes);
  if (problem !== null)
    throw refuse(`its partition table would be wrong, and cannot be converted (${problem}); ${choose}`);
  if (!convertSectors)
    throw refuse(`the partition table would be wrong; convert it with --convert-sectors, or ${choose}`);
}

function checkSize(
  path: string,
  sizeBytes: number,
  sectorBytes: number,
  { bytes, layout = null, sectorBytes: imageSectorBytes }: TargetNeeds,
  { canRewriteTable }: FitPermits,
): void {
  const isConverted = layout !== null && imageSectorBytes !== sectorBytes;
  if (sizeBytes >= bytes && !isConverted) return;
  const leastBytes = layout?.leastBytes(sectorBytes) ?? bytes;
  if (sizeBytes < leastBytes) {
    const sizes = `it has ${sizeBytes} bytes (${formatBytes(sizeBytes)}), the image needs ${leastBytes} (${formatBytes(leastBytes)})`;
    const why = layout === null ? "" : `: ${layout.leastReason(sectorBytes)}`;
    throw refused("target-too-small", path, `${sizes}${why}; choose a larger disk`);
  }
  if (layout?.isGpt && !canRewriteTable) {
    const what = `it has ${sizeBytes} bytes and the image ${bytes}: its GPT has to be rewritten for it`;
    throw refused("target-too-small", path, `${what}; install the package fdisk (for sfdisk), or choose a larger disk`);
  }
}

function refused(code: string, path: string, reason: string): Failure {
  return refusedTarget(code, `target ${path} refused: ${reason}`);
}
