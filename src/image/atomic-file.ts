/**
 * Files that are there whole or not at all: written beside their final name, flushed, then renamed
 * (rename(2) replaces atomically), and the folder flushed so that the name survives a power cut.
 */
import { closeSync, fsyncSync, openSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** A hidden name in the same folder, of this process alone. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
}

/** Writes `bytes` to `path`, replacing what is there. Leaves nothing behind when it throws. */
export function writeFileAtomically(path: string, bytes: Uint8Array): void {
  const temporaryPath = temporaryName(path);
  const fd = openSync(temporaryPath, "wx");
  try {
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporaryPath, path);
  } catch (error) {
    unlinkSync(temporaryPath);
    throw error;
  }
  syncFolder(path);
}

/** Flushes the folder that holds `path`. */
export function syncFolder(path: string): void {
  const fd = openSync(dirname(path), "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
