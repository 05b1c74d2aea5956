/**
 * Disks for the tests of src/disk: loop devices where the machine gives them, files elsewhere, and images
 * whose bytes carry their own address so that a misplaced byte shows.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ExtentTable, RangeTable } from "../../src/torrent/types.ts";

/** Runs a tool. Returns its trimmed standard output; throws with its standard error. */
export function run(...command: string[]): string {
  const result = Bun.spawnSync(command, { stderr: "pipe" });
  if (result.exitCode !== 0) throw new Error(`${command.join(" ")}: ${result.stderr.toString()}`);
  return result.stdout.toString().trim();
}

/** Tries again for half a minute: for what may still be in use for a moment. */
export function runPatiently(...command: string[]): void {
  const endMs = performance.now() + 30_000;
  for (;;) {
    try {
      run(...command);
      return;
    } catch (error) {
      if (performance.now() > endMs) throw error;
      Bun.sleepSync(20);
    }
  }
}

function canLoop(): boolean {
  if (process.getuid?.() !== 0) return false;
  try {
    const directory = mkdtempSync(join(tmpdir(), "diskswarm-probe-"));
    const path = join(directory, "probe");
    makeFile(path, 1024 * 1024);
    run("losetup", "--detach", run("losetup", "--find", "--show", path));
    rmSync(directory, { recursive: true });
    return true;
  } catch {
    return false;
  }
}

/** Loop devices need root and CONFIG_BLK_DEV_LOOP. */
export const hasLoop = canLoop();

/** Makes (or resizes) a sparse file. */
export function makeFile(path: string, sizeBytes: number): string {
  const fd = openSync(path, "a+");
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  return path;
}

/** A scratch directory and what is undone with it, last first. */
export class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "diskswarm-disk-"));
  readonly #undo: (() => void)[] = [];

  onEnd(undo: () => void): void {
    this.#undo.push(undo);
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  file(name: string, sizeBytes: number): string {
    return makeFile(this.path(name), sizeBytes);
  }

  /** A loop device over a file. */
  loop(file: string, ...flags: string[]): string {
    const device = run("losetup", "--find", "--show", ...flags, file);
    this.onEnd(() => run("losetup", "--detach", device));
    return device;
  }

  mount(...args: string[]): string {
    const point = this.path(`mount-${this.#undo.length}`);
    run("mkdir", "-p", point);
    run("mount", ...args, point);
    // A ring that was closed lets go of its files a moment later (the kernel ends it in a worker of its own).
    this.onEnd(() => runPatiently("umount", point));
    return point;
  }

  end(): void {
    for (const undo of this.#undo.reverse()) undo();
    rmSync(this.directory, { recursive: true });
  }
}

/** Fills `bytes` so that every 8 of them say where they belong, salted. */
export function stamp(bytes: Uint8Array, salt: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  for (; at + 8 <= bytes.byteLength; at += 8) {
    view.setUint32(at, at, true);
    view.setUint32(at + 4, Math.imul(at ^ salt, 2654435761), true);
  }
  for (; at < bytes.byteLength; at++) bytes[at] = at ^ salt;
}

/** Extents of [offset, length] pairs in disk order. */
export function extentsOf(pairs: readonly (readonly [number, number])[]): ExtentTable {
  const torrentOffsetBytes = new Float64Array(pairs.length);
  let totalBytes = 0;
  pairs.forEach(([, length], index) => {
    torrentOffsetBytes[index] = totalBytes;
    totalBytes += length;
  });
  return { ...rangesOf(pairs), torrentOffsetBytes, totalBytes };
}

export function rangesOf(pairs: readonly (readonly [number, number])[]): RangeTable {
  return {
    count: pairs.length,
    diskOffsetBytes: Float64Array.from(pairs.map(([offset]) => offset)),
    lengthBytes: Float64Array.from(pairs.map(([, length]) => length)),
  };
}

/** The payload: the image's bytes of all extents joined. */
export function payloadOf(image: Uint8Array, extents: ExtentTable): Uint8Array {
  const payload = new Uint8Array(extents.totalBytes);
  for (let i = 0; i < extents.count; i++) {
    const from = extents.diskOffsetBytes[i];
    payload.set(image.subarray(from, from + extents.lengthBytes[i]), extents.torrentOffsetBytes[i]);
  }
  return payload;
}

/** A small seeded generator (mulberry32): the same seed gives the same test. */
export function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Cuts a disk into disjoint runs whose bounds are multiples of `unit`; every run is one of `kinds`. */
export function randomRuns(
  random: (below: number) => number,
  diskBytes: number,
  unit: number,
  kinds: number,
): [number, number][][] {
  const runs: [number, number][][] = Array.from({ length: kinds }, () => []);
  let at = random(4) * unit;
  while (at < diskBytes) {
    const longest = random(8) === 0 ? 600 * 1024 : 20 * 1024;
    const length = Math.min(unit * (1 + random(Math.max(1, Math.floor(longest / unit)))), diskBytes - at);
    const kind = random(kinds);
    const previous = runs[kind].at(-1);
    if (previous && previous[0] + previous[1] === at) previous[1] += length;
    else runs[kind].push([at, length]);
    at += length;
    if (random(3) > 0) at += unit * random(Math.floor((24 * 1024) / unit) + 2);
  }
  return runs;
}
