import { afterEach, beforeEach, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { HeadGuard } from "../../src/disk/head-guard.ts";
import { openTarget, type Target } from "../../src/disk/target.ts";
import { close } from "../../src/kernel/libc.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import { HEAD_BYTES } from "../../src/limits.ts";
import { Bench, extentsOf, rangesOf, stamp } from "./support.ts";

const DISK_BYTES = 2 * HEAD_BYTES;
/** Odd bounds, an extent that crosses the head's end, and a zero range between. */
const EXTENTS = extentsOf([
  [0, 512],
  [1000, 3001],
  [HEAD_BYTES - 100, 4096],
]);
const ZEROS = rangesOf([[8192, 4096]]);

let bench: Bench;
let target: Target;
let head: HeadGuard;
let memory: Memory;
const before = new Uint8Array(DISK_BYTES);
stamp(before, 1);
beforeEach(() => {
  bench = new Bench();
  writeFileSync(bench.path("disk"), before);
  target = openTarget(
    bench.path("disk"),
    { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
    { force: true, direct: "auto" },
  );
  head = new HeadGuard(target.files, EXTENTS, ZEROS);
  memory = mapMemory(HEAD_BYTES);
  stamp(memory.bytes, 2);
});
afterEach(() => {
  head.free();
  memory.free();
  bench.end();
});

const onDisk = () => new Uint8Array(readFileSync(bench.path("disk")));

/** The old disk with [from, to) of each range taken from `bytes`, or zeroed. */
function changed(ranges: [number, number][], bytes: Uint8Array | null): Uint8Array<ArrayBuffer> {
  const disk = before.slice();
  for (const [from, to] of ranges) {
    if (bytes) disk.set(bytes.subarray(from, to), from);
    else disk.fill(0, from, to);
  }
  return disk;
}

test("opening it writes nothing; reading gives what is on the disk, and zeros where the image has them", () => {
  head.read(0, memory.address, HEAD_BYTES);
  expect(memory.bytes).toEqual(changed([[8192, 12288]], null).subarray(0, HEAD_BYTES));
  expect(onDisk()).toEqual(before);
  target.close();
});

test("invalidate zeroes the image's bytes of the head, no others, and once", () => {
  head.invalidate();
  const data: [number, number][] = [
    [0, 512],
    [1000, 4001],
    [HEAD_BYTES - 100, HEAD_BYTES],
  ];
  expect(onDisk()).toEqual(changed(data, null));
  writeFileSync(bench.path("disk"), before);
  head.invalidate();
  expect(onDisk()).toEqual(before);
  target.close();
});

test("what was valid before comes back by commit where nothing new was written", () => {
  head.invalidate();
  head.commit();
  expect(onDisk()).toEqual(changed([[8192, 12288]], null));
  target.close();
});

test("writes stay in memory until commit, and then the head is free", () => {
  head.invalidate();
  const zeroed = onDisk();
  head.write(0, memory.address, 512);
  head.write(1000, memory.address + 1000, 3001);
  expect(onDisk()).toEqual(zeroed);
  const back = mapMemory(4096);
  head.read(0, back.address, 512);
  expect(back.bytes.subarray(0, 512)).toEqual(memory.bytes.subarray(0, 512));
  head.commit();
  const disk = changed(
    [
      [0, 512],
      [1000, 4001],
    ],
    memory.bytes,
  );
  disk.fill(0, 8192, 12288);
  expect(onDisk()).toEqual(disk);
  expect(head.endBytes).toBe(0);
  back.free();
  target.close();
});

test("a write before invalidate, or beyond the head, is a bug", () => {
  expect(() => head.write(0, memory.address, 512)).toThrow("invalidated");
  head.invalidate();
  expect(() => head.write(HEAD_BYTES - 1, memory.address, 2)).toThrow("withheld head");
  target.close();
});

test("a disk that refuses the head's bytes is a fault that names the place", () => {
  // The descriptor is gone: the first call on it fails, as it does when a disk is pulled out.
  if (target.files.directFd !== -1) close(target.files.directFd);
  close(target.files.bufferedFd);
  expect(() => head.invalidate()).toThrow(/^write .*disk at byte 0: EBADF/);
  expect(() => head.commit()).toThrow(/^flush .*disk at byte 0: EBADF/);
  expect(head.endBytes).toBe(HEAD_BYTES);
});
