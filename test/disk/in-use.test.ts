import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { type KernelPaths, useOfDevice, useOfFile } from "../../src/disk/in-use.ts";
import type { FileStat } from "../../src/kernel/libc.ts";
import { stat } from "../../src/kernel/libc.ts";
import { Bench } from "./support.ts";

/** A disk 8:0 with partitions 8:1 and 8:2, as procfs and sysfs show it. */
let bench: Bench;
let paths: KernelPaths;
beforeEach(() => {
  bench = new Bench();
  paths = { proc: bench.path("proc"), sys: bench.path("sys") };
  put("sys/devices/sda/dev", "8:0\n");
  for (const part of [1, 2]) {
    put(`sys/devices/sda/sda${part}/partition`, `${part}\n`);
    put(`sys/devices/sda/sda${part}/dev`, `8:${part}\n`);
    link(`sys/dev/block/8:${part}`, `sys/devices/sda/sda${part}`);
  }
  link("sys/dev/block/8:0", "sys/devices/sda");
});
afterEach(() => bench.end());

function put(path: string, text: string): void {
  mkdirSync(dirname(bench.path(path)), { recursive: true });
  writeFileSync(bench.path(path), text);
}

function link(path: string, to: string): void {
  mkdirSync(dirname(bench.path(path)), { recursive: true });
  symlinkSync(bench.path(to), bench.path(path));
}

function device(major: number, minor: number): FileStat {
  const found = stat(bench.directory);
  if (typeof found === "number") throw new Error("the scratch directory exists");
  return { ...found, mode: 0o060660, rdevMajor: major, rdevMinor: minor };
}

const MOUNTS = "22 1 0:20 / /proc rw - proc proc rw\n";

test("an idle disk is in nobody's use", () => {
  put("proc/self/mountinfo", MOUNTS);
  put("proc/swaps", "Filename Type Size Used Priority\n");
  expect(useOfDevice(device(8, 0), paths)).toBeNull();
  expect(useOfDevice(device(8, 2), paths)).toBeNull();
});

test("a kernel without procfs and sysfs tells nothing", () => {
  expect(useOfDevice(device(8, 0), { proc: bench.path("none"), sys: bench.path("none") })).toBeNull();
});

test("a mounted partition is named, with a mount point that has a space", () => {
  put("proc/self/mountinfo", `${MOUNTS}36 1 8:2 / /mnt/my\\040disk rw,noatime shared:1 - ext4 /dev/sda2 rw\n`);
  const use = useOfDevice(device(8, 0), paths);
  expect(use?.code).toBe("target-mounted");
  expect(use?.text).toContain("/dev/sda2 is mounted on /mnt/my disk;");
  expect(useOfDevice(device(8, 2), paths)?.text).toStartWith("it is mounted");
  expect(useOfDevice(device(8, 1), paths)).toBeNull();
});

test("a file system on the whole disk keeps its partitions from being written", () => {
  put("proc/self/mountinfo", `${MOUNTS}36 1 8:0 / /mnt rw - ext4 /dev/sda rw\n`);
  expect(useOfDevice(device(8, 1), paths)?.text).toContain("/dev/sda is mounted on /mnt");
});

test("LVM, RAID and dm-crypt are named by their holders", () => {
  put("sys/devices/sda/sda1/holders/md127/x", "");
  const raid = useOfDevice(device(8, 0), paths);
  expect(raid?.code).toBe("target-held");
  expect(raid?.text).toContain("/dev/sda1 is held by /dev/md127");
  put("sys/devices/sda/sda2/holders/dm-3/x", "");
  put("sys/class/block/dm-3/dm/name", "vg0-root\n");
  expect(useOfDevice(device(8, 2), paths)?.text).toContain("it is held by /dev/mapper/vg0-root");
});

test("a swap file is no target", () => {
  const file = bench.file("swap file", 4096);
  put("proc/swaps", `Filename Type Size Used Priority\n${file.replaceAll(" ", "\\040")} file 4 0 -2\n`);
  const found = stat(file);
  if (typeof found === "number") throw new Error("the file exists");
  expect(useOfFile(found, paths)?.text).toContain("in use as swap");
  expect(useOfFile(device(8, 0), paths)).toBeNull();
});

test("the backing of a loop device is named", () => {
  const file = bench.file("backing", 4096);
  put("sys/block/loop5/loop/backing_file", `${file}\n`);
  put("sys/block/sda/dev", "8:0\n");
  const found = stat(file);
  if (typeof found === "number") throw new Error("the file exists");
  expect(useOfFile(found, paths)?.text).toContain("/dev/loop5");
});
