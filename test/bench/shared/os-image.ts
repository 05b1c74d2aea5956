/**
 * An image like a disk with an operating system on it, made of this machine's own files: programs, libraries and
 * documents as they are, and between them archives (the same files, compressed), as package caches and initramfs
 * images are, so many that all of it packs to half at zstd's level 1.
 */
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { KiB, MiB } from "../../../src/units.ts";

const FOLDERS = ["/usr/bin", "/usr/lib", "/usr/sbin", "/usr/share"];
/** A file that alone would be a large part of the image says little about the others. */
const FILE_BYTES_MAX = 24 * MiB;
const SHARE_WANTED = 0.5;
const BLOCK_BYTES = 256 * KiB;

export interface MadeImage {
  readonly path: string;
  /** Packed over plain bytes, in blocks of 256 KiB at level 1. */
  readonly packedShare: number;
}

/** Writes an image of exactly `bytes` to `path`. */
export function osImage(path: string, bytes: number): MadeImage {
  const files = new FileStream();
  const archives = new FileStream();
  let packedBytes = 0;
  const fd = openSync(path, "w");
  for (let done = 0; done < bytes; ) {
    const length = Math.min(MiB, bytes - done);
    const packsTooWell = packedBytes < SHARE_WANTED * done;
    const chunk = packsTooWell ? archives.takeArchive(length) : files.take(length);
    packedBytes += packedShareOf(chunk) * length;
    for (let written = 0; written < length; ) written += writeSync(fd, chunk, written);
    done += length;
  }
  closeSync(fd);
  return { path, packedShare: packedBytes / bytes };
}

/** Writes `bytes` that nothing can pack. */
export function noiseImage(path: string, bytes: number): MadeImage {
  const fd = openSync(path, "w");
  const chunk = new Uint8Array(MiB);
  for (let done = 0; done < bytes; ) {
    for (let at = 0; at < MiB; at += 64 * KiB) crypto.getRandomValues(chunk.subarray(at, at + 64 * KiB));
    done += writeSync(fd, chunk, 0, Math.min(MiB, bytes - done));
  }
  closeSync(fd);
  return { path, packedShare: 1 };
}

function packedShareOf(bytes: Uint8Array): number {
  let packed = 0;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    packed += Math.min(block.length, Bun.zstdCompressSync(block, { level: 1 }).length);
  }
  return packed / bytes.length;
}

/** The files of the folders one after the other, in the order of their names, over and over. */
class FileStream {
  readonly #folders: string[] = [...FOLDERS].reverse();
  #files: string[] = [];
  #held: Uint8Array[] = [];
  #heldBytes = 0;

  take(length: number): Uint8Array {
    while (this.#heldBytes < length) this.#hold(this.#next());
    const all = Buffer.concat(this.#held);
    this.#held = [all.subarray(length)];
    this.#heldBytes = all.length - length;
    return all.subarray(0, length);
  }

  takeArchive(length: number): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let bytes = 0; bytes < length; ) {
      const packed = gzipSync(this.take(4 * MiB));
      parts.push(packed);
      bytes += packed.length;
    }
    return Buffer.concat(parts).subarray(0, length);
  }

  #hold(bytes: Uint8Array): void {
    this.#held.push(bytes);
    this.#heldBytes += bytes.length;
  }

  #next(): Uint8Array {
    for (;;) {
      const file = this.#files.pop();
      if (file !== undefined) return readFileSync(file);
      const folder = this.#folders.pop();
      if (folder === undefined) this.#folders.push(...[...FOLDERS].reverse());
      else this.#list(folder);
    }
  }

  #list(folder: string): void {
    const names = readdirSync(folder).sort().reverse();
    const folders: string[] = [];
    for (const path of names.map((name) => join(folder, name))) {
      const stat = lstatSync(path);
      if (stat.isDirectory()) folders.push(path);
      else if (stat.isFile() && stat.size > 0 && stat.size <= FILE_BYTES_MAX) this.#files.push(path);
    }
    this.#folders.push(...folders);
  }
}
