import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { isRotational } from "../../src/disk/rotational.ts";
import { type FileStat, stat } from "../../src/kernel/libc.ts";
import { Bench, hasLoop } from "./support.ts";

function found(path: string): FileStat {
  const answer = stat(path);
  if (typeof answer === "number") throw new Error(`${path} cannot be looked at`);
  return answer;
}

/** A disk 8:0 with a partition 8:1, as sysfs shows it, and what is said of both. */
function verdicts(rotational: string | null): { disk: boolean; partition: boolean; fileOnPartition: boolean } {
  const bench = new Bench();
  const put = (path: string, text: string) => {
    mkdirSync(dirname(bench.path(path)), { recursive: true });
    writeFileSync(bench.path(path), text);
  };
  try {
    put("devices/sda/sda1/partition", "1\n");
    if (rotational !== null) put("devices/sda/queue/rotational", rotational);
    mkdirSync(bench.path("dev/block"), { recursive: true });
    symlinkSync(bench.path("devices/sda"), bench.path("dev/block/8:0"));
    symlinkSync(bench.path("devices/sda/sda1"), bench.path("dev/block/8:1"));
    const device = (minor: number) => ({ ...found("/"), mode: 0o060660, rdevMajor: 8, rdevMinor: minor });
    const file = { ...found(bench.directory), mode: 0o100644, deviceMajor: 8, deviceMinor: 1 };
    const says = (it: FileStat) => isRotational(it, bench.directory);
    return { disk: says(device(0)), partition: says(device(1)), fileOnPartition: says(file) };
  } finally {
    bench.end();
  }
}

test("a disk, its partition and a file on it are what the disk's queue says", () => {
  expect(verdicts("1\n")).toEqual({ disk: true, partition: true, fileOnPartition: true });
  expect(verdicts("0\n")).toEqual({ disk: false, partition: false, fileOnPartition: false });
});

test("where nothing is told, nothing rotates", () => {
  expect(verdicts(null)).toEqual({ disk: false, partition: false, fileOnPartition: false });
  expect(isRotational(found("/"), "/nowhere")).toBe(false);
});

test.skipIf(!hasLoop)("a loop device is what the kernel says of it, in memory it does not rotate", () => {
  const bench = new Bench();
  try {
    const device = bench.loop(bench.file("disk", 1 << 20));
    const said = readFileSync(`/sys/block/${device.slice("/dev/".length)}/queue/rotational`, "utf8").trim();
    expect(isRotational(found(device))).toBe(said === "1");
    bench.mount("-t", "tmpfs", "none");
    const inMemory = `${bench.directory}/mount-1/disk`;
    writeFileSync(inMemory, new Uint8Array(1 << 20));
    expect(isRotational(found(inMemory))).toBe(false);
  } finally {
    bench.end();
  }
});
