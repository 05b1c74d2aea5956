/**
 * The sparse copy that `--save` makes in the same pass: written beside its final name and renamed when it
 * is complete and on the disk, so that what has the name is whole.
 *
 * It owns its descriptor and temporary file until `commit` or `abandon`. A write holds its slab.
 */
import { realpathSync, renameSync, statfsSync, statSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { diskFault } from "../disk/disk-fault.ts";
import { assert, ExitCode, Failure } from "../errors.ts";
import { O_CREAT, O_EXCL, O_WRONLY } from "../kernel/abi.ts";
import { close, Errno, errnoText, fdatasync, ftruncate, open } from "../kernel/libc.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import { formatBytes } from "../units.ts";
import { syncFolder, temporaryName } from "./atomic-file.ts";
import type { SlabHolds } from "./piece-feed.ts";

export class SaveFile {
  readonly path: string;
  /** Where it is until `commit`. */
  readonly temporaryPath: string;
  readonly #fd: number;
  #isOpen = true;
  #exists = true;

  constructor(
    givenPath: string,
    readonly sizeBytes: number,
    sourcePath: string,
    /** It was written already, at its temporary path by this process, and is whole. */
    readonly isWritten = false,
  ) {
    this.path = join(realFolder(givenPath), basename(givenPath));
    const existing = statSync(this.path, { throwIfNoEntry: false });
    if (existing && realpathSync(this.path) === sourcePath) throw refused(this.path, "it is the source itself");
    if (existing && !existing.isFile())
      throw refused(this.path, "it is not a regular file; to write a disk use deploy");
    this.temporaryPath = temporaryName(this.path);
    this.#fd = open(this.temporaryPath, isWritten ? O_WRONLY : O_WRONLY | O_CREAT | O_EXCL);
    if (this.#fd < 0) throw refused(this.temporaryPath, errnoText(this.#fd));
    if (isWritten) return;
    const result = ftruncate(this.#fd, sizeBytes);
    if (result === 0) return;
    this.abandon();
    throw diskFault(this.path, "set the size of", sizeBytes, result);
  }

  get fd(): number {
    return this.#fd;
  }

  /** Throws Failure where its filesystem has less room than that left. */
  needRoom(bytes: number): void {
    const { bavail, bsize } = statfsSync(dirname(this.path));
    if (bytes <= bavail * bsize) return;
    const sizes = `it takes up to ${formatBytes(bytes)}, and its filesystem has ${formatBytes(bavail * bsize)} free`;
    throw new Failure(ExitCode.failed, "save-space", `cannot save to ${this.path}: ${sizes}`);
  }

  /** Puts the complete copy on the disk and gives it its name. */
  commit(): void {
    const result = fdatasync(this.#fd);
    if (result < 0) throw diskFault(this.path, "flush", 0, result);
    this.close();
    renameSync(this.temporaryPath, this.path);
    this.#exists = false;
    syncFolder(this.path);
  }

  /** Removes what was written, unless it was committed. */
  abandon(): void {
    this.close();
    if (this.#exists) unlinkSync(this.temporaryPath);
    this.#exists = false;
  }

  /** Leaves the file where it is. */
  close(): void {
    if (this.#isOpen) close(this.#fd);
    this.#isOpen = false;
  }
}

/** The writes of one pass into the copy. */
export class SaveWriter {
  readonly #address: Float64Array;
  readonly #diskOffset: Float64Array;
  readonly #leftBytes: Float64Array;
  readonly #slab: Int32Array;
  readonly #free: number[] = [];

  constructor(
    readonly reactor: Reactor,
    readonly file: SaveFile,
    readonly slabs: SlabHolds,
    /** The reactor's token of a write is this plus the write's index. */
    readonly firstToken: number,
    /** Writes at a time; the caller starts none without `hasRoom`. */
    readonly writesMax: number,
  ) {
    this.#address = new Float64Array(writesMax);
    this.#diskOffset = new Float64Array(writesMax);
    this.#leftBytes = new Float64Array(writesMax);
    this.#slab = new Int32Array(writesMax);
    for (let i = writesMax - 1; i >= 0; i--) this.#free.push(i);
  }

  get pending(): number {
    return this.writesMax - this.#free.length;
  }

  hasRoom(writes: number): boolean {
    return this.#free.length >= writes;
  }

  write(diskOffsetBytes: number, address: Address, lengthBytes: number, slab: number): void {
    const index = this.#free.pop();
    assert(index !== undefined, "there is room for a write");
    this.slabs.hold(slab);
    this.#address[index] = address;
    this.#diskOffset[index] = diskOffsetBytes;
    this.#leftBytes[index] = lengthBytes;
    this.#slab[index] = slab;
    this.#submit(index);
  }

  /** The write of that index completed. Throws DiskFault. */
  completed(index: number, result: number): void {
    if (result !== -Errno.EINTR && result !== -Errno.EAGAIN) {
      if (result <= 0) throw diskFault(this.file.path, "write", this.#diskOffset[index], result);
      this.#address[index] += result;
      this.#diskOffset[index] += result;
      this.#leftBytes[index] -= result;
    }
    if (this.#leftBytes[index] > 0) {
      this.#submit(index);
      return;
    }
    this.#free.push(index);
    this.slabs.release(this.#slab[index]);
  }

  #submit(index: number): void {
    const token = this.firstToken + index;
    this.reactor.write(this.file.fd, this.#address[index], this.#leftBytes[index], this.#diskOffset[index], token);
  }
}

function realFolder(path: string): string {
  const folder = dirname(path);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) throw refused(path, `there is no folder ${folder}`);
  return realpathSync(folder);
}

function refused(path: string, reason: string): Failure {
  return new Failure(ExitCode.failed, "save", `cannot save to ${path}: ${reason}`);
}
