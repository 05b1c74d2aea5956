/** A filesystem in a million pieces: merged until a torrent can name them, the price told, in little memory. */
import { describe, expect } from "bun:test";
import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { succeed } from "../harness/diskswarm.ts";
import { filesystemOf } from "../harness/filesystems.ts";
import { deploy, loopbackSeeder, MIB } from "../harness/fixture.ts";
import { type Extent, randomBytes, sparseFile, writeFully } from "../harness/image.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

const KIB = 1024;
/** More clusters of used blocks than a torrent may have extents; some so close that a wider gap joins them. */
const CLUSTERS = 62_000;
const CLOSE_CLUSTERS = 4_000;
const RUNS_PER_CLUSTER = 17;
const BLOCK_BYTES = 512;
const FAR_BYTES = 140 * KIB;
const CLOSE_BYTES = 80 * KIB;
const RSS_BYTES_MAX = 200 * MIB;

/** Where each cluster starts; the first after what mkfs writes. */
function clusterOffsets(): number[] {
  const offsets: number[] = [];
  let at = 64 * MIB;
  for (let i = 0; i < CLUSTERS; i++) {
    offsets.push(at);
    // A close one follows a far one, so that joining makes pairs.
    at += i % 2 === 0 && i < CLOSE_CLUSTERS * 2 ? CLOSE_BYTES : FAR_BYTES;
  }
  return offsets;
}

/** The map that partclone would make, with its own words: every second block of each cluster is used. */
function writeMap(path: string, offsets: readonly number[], diskBytes: number): number {
  const fd = openSync(path, "w");
  const hex = (value: number) => `0x${value.toString(16).toUpperCase().padStart(8, "0")}`;
  writeSync(fd, `# Domain logfile created by partclone.ext4 v0.3.23\n${hex(diskBytes)}     ?\n`);
  let end = 0;
  let runs = 0;
  for (const offset of offsets) {
    const lines: string[] = [];
    for (let run = 0; run < RUNS_PER_CLUSTER; run++) {
      const start = offset + run * 2 * BLOCK_BYTES;
      lines.push(`${hex(end)}  ${hex(start - end)}  ?\n${hex(start)}  ${hex(BLOCK_BYTES)}  +\n`);
      end = start + BLOCK_BYTES;
      runs++;
    }
    writeSync(fd, lines.join(""));
  }
  writeSync(fd, `${hex(end)}  ${hex(diskBytes - end)}  ?\n`);
  closeSync(fd);
  return runs;
}

describe.skipIf(!isRoot)("a filesystem of a million used runs", () => {
  scopedTest("is captured and deployed in less than 200 MB", async (scope) => {
    const folder = scope.ramDir();
    const offsets = clusterOffsets();
    const diskBytes = offsets.at(-1)! + 64 * MIB;
    const source = join(folder, "source.raw");
    sparseFile(source, diskBytes);
    filesystemOf("ext4").make(source);
    const fd = openSync(source, "r+");
    const data = randomBytes(4 * KIB, 9);
    for (const offset of offsets) writeFully(fd, data, offset);
    closeSync(fd);
    const tools = join(folder, "tools");
    mkdirSync(tools);
    for (const name of ["blkid", "losetup", "cat"]) symlinkSync(Bun.which(name)!, join(tools, name));
    const runs = writeMap(join(tools, "map"), offsets, diskBytes);
    expect(runs).toBeGreaterThan(1_000_000);
    writeFileSync(join(tools, "partclone.ext4"), `#!/bin/sh\nexec cat ${join(tools, "map")}\n`, { mode: 0o755 });

    const torrent = join(folder, "image.torrent");
    const capture = await succeed(scope, ["capture", source, "-o", torrent, "--extents", "partclone"], {
      env: { PATH: tools },
      watchMemory: true,
    });
    const done = await capture.done();
    expect(Number(done.extentCount)).toBeLessThanOrEqual(60_000);
    expect(Number(done.extentCount)).toBeGreaterThan(50_000);
    expect(done.mergeGapBytes).toBe(128 * KIB);
    // Between the clusters of each pair at least.
    expect(Number(done.mergedUnusedBytes)).toBeGreaterThan(CLOSE_CLUSTERS * 60 * KIB);
    const warning = capture.events.find(({ event }) => event === "warning");
    expect(warning).toMatchObject({ code: "merge-gap" });
    expect(String(warning?.message)).toMatch(/from 64\.0 KiB to 128\.0 KiB .* that no filesystem uses/);
    expect(capture.child.peakRssBytes).toBeLessThan(RSS_BYTES_MAX);

    const target = join(folder, "target.raw");
    const seeder = await loopbackSeeder(scope, torrent, source);
    const deployment = await deploy(scope, torrent, target, [seeder.peer], ["--memory", "64M"], { watchMemory: true });
    expect(deployment.child.peakRssBytes).toBeLessThan(RSS_BYTES_MAX);
    const ranges: Extent[] = offsets.map((offsetBytes) => ({ offsetBytes, lengthBytes: 16 * KIB }));
    expectSame(target, source, ranges);
  });
});
