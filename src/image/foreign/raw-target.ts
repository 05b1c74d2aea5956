/**
 * The raw file that an image is unpacked into: hidden beside its final name, under which the capture finds it and puts
 * it when the torrent is made. Programs write into it by its path.
 */
import { closeSync, openSync, readSync, rmSync, statSync } from "node:fs";
import { diskFault } from "../../disk/disk-fault.ts";
import { ExitCode, Failure } from "../../errors.ts";
import { ftruncate, pwrite } from "../../kernel/libc.ts";
import { mapMemory } from "../../kernel/memory.ts";
import { MiB } from "../../units.ts";
import { SaveFile } from "../save-file.ts";
import type { WorkHooks } from "../work.ts";

/** As often as a progress line is redrawn. */
const PROGRESS_MS = 500;
const STAT_BLOCK_BYTES = 512;
const CHUNK_BYTES = 1 * MiB;

export class RawTarget {
  readonly #file: SaveFile;

  /** Throws Failure for a path that cannot be saved to. `sourcePath` is absolute. */
  constructor(savePath: string, sourcePath: string) {
    this.#file = new SaveFile(savePath, 0, sourcePath);
  }

  /** Where it is until the capture gives it its name. */
  get path(): string {
    return this.#file.temporaryPath;
  }

  /** Throws Failure where the filesystem has less room than that. */
  needRoom(bytes: number): void {
    this.#file.needRoom(bytes);
  }

  resize(sizeBytes: number): void {
    if (sizeBytes === 0)
      throw new Failure(ExitCode.failed, "source-empty", "the image is empty: there is nothing to capture");
    const result = ftruncate(this.#file.fd, sizeBytes);
    if (result < 0) throw diskFault(this.#file.path, "set the size of", sizeBytes, result);
  }

  /** Writes a few bytes: a table, a boot sector. */
  put(offsetBytes: number, bytes: Uint8Array): void {
    const memory = mapMemory(Math.max(bytes.length, 1));
    try {
      memory.bytes.set(bytes);
      for (let done = 0; done < bytes.length; ) {
        const result = pwrite(this.#file.fd, memory.address + done, bytes.length - done, offsetBytes + done);
        if (result <= 0) throw diskFault(this.#file.path, "write", offsetBytes + done, result);
        done += result;
      }
    } finally {
      memory.free();
    }
  }

  /** Writes a file's first bytes, at most `bytesMax`. */
  putFile(path: string, offsetBytes: number, bytesMax: number): void {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const fd = openSync(path, "r");
    try {
      for (let done = 0; done < bytesMax; ) {
        const length = readSync(fd, chunk, 0, Math.min(chunk.length, bytesMax - done), done);
        if (length === 0) return;
        this.put(offsetBytes + done, chunk.subarray(0, length));
        done += length;
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Tells how far the work is by what the file takes on its disk. `totalBytes` 0: nobody knows how much it will be. */
  async watched<T>(totalBytes: number, hooks: WorkHooks, work: () => Promise<T>): Promise<T> {
    const tell = () => {
      const doneBytes = statSync(this.path).blocks * STAT_BLOCK_BYTES;
      hooks.progress(doneBytes, Math.max(totalBytes, doneBytes));
    };
    const timer = setInterval(tell, PROGRESS_MS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  /** Removes the file, unless the capture gave it its name. */
  close(): void {
    this.#file.close();
    rmSync(this.path, { force: true });
  }
}
