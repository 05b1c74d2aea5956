/** capture, verify and inspect by their command lines: events, files, exit codes, interruption. */
import { describe, expect } from "bun:test";
import { closeSync, openSync, readdirSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Event, fail, start, succeed } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { scopedTest } from "../harness/scope.ts";

const MiB = 1 << 20;
const EXTENTS = [{ offsetBytes: 4 * MiB, lengthBytes: 2 * MiB + 4096 }];

function eventsNamed(events: readonly Event[], name: string): Event[] {
  return events.filter(({ event }) => event === name);
}

describe("command lines", () => {
  scopedTest("capture, inspect and verify agree", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "classroom.raw"), 16 * MiB, 1, EXTENTS);
    const trackers = ["http://10.0.0.1:6969/announce", "udp://10.0.0.2:6969"];
    const flags = trackers.flatMap((url) => ["--tracker", url]);
    const captured = await succeed(scope, ["capture", source, ...flags], { cwd: folder });
    const done = await captured.done();
    expect(readdirSync(folder).sort()).toEqual(["classroom.raw", "classroom.torrent"]);
    expect(done).toMatchObject({
      bytesTotal: 2 * MiB + 4096,
      diskBytes: 16 * MiB,
      extentCount: 1,
      flushed: true,
      verified: false,
    });
    expect(done.peakRssBytes).toBeGreaterThan(10 * MiB);
    expect(eventsNamed(captured.events, "start")).toHaveLength(1);
    expect(eventsNamed(captured.events, "progress").length).toBeGreaterThan(0);

    const torrent = join(folder, "classroom.torrent");
    const [told] = eventsNamed((await succeed(scope, ["inspect", torrent])).events, "torrent");
    expect(told).toMatchObject({
      name: "classroom",
      infoHash: done.infoHash,
      layout: "extents",
      bytesTotal: 2 * MiB + 4096,
      diskBytes: 16 * MiB,
      kind: "file",
      extentCount: 1,
      extents: EXTENTS,
      zeroRangeCount: 2,
      zeroBytes: 14 * MiB - 4096,
      trackers: trackers.map((url) => [url]),
      sourcePath: source,
    });

    expect(await (await succeed(scope, ["verify", torrent, source])).done()).toMatchObject({
      verified: true,
      bytesTotal: 2 * MiB + 4096,
    });
    const fd = openSync(source, "r+");
    writeSync(fd, Buffer.of(1), 0, 1, 5 * MiB);
    writeSync(fd, Buffer.of(1), 0, 1, 8 * MiB);
    closeSync(fd);
    const bad = start(scope, ["verify", torrent, source]);
    const ended = await bad.expectExit(3);
    expect(ended.stderr).toMatch(/1 of 9 pieces differ and 4\.00 KiB that should be zero are not/);
    expect(eventsNamed(bad.events, "bad-piece")).toMatchObject([
      { piece: 4, ranges: [{ offsetBytes: 5 * MiB, lengthBytes: 256 * 1024 }] },
    ]);
    expect(eventsNamed(bad.events, "bad-zero-range")).toMatchObject([{ offsetBytes: 8 * MiB, lengthBytes: 4096 }]);
    expect(eventsNamed(bad.events, "done")).toEqual([]);
  });

  scopedTest("an interrupted capture leaves nothing behind", async (scope) => {
    const folder = scope.ramDir();
    const source = join(folder, "image.raw");
    // Holes that --extents all has to hash: minutes of work from no memory.
    sparseFile(source, 2 ** 40);
    const run = start(scope, [
      "capture",
      source,
      "-o",
      join(folder, "image.torrent"),
      "--extents",
      "all",
      "--save",
      join(folder, "copy.raw"),
    ]);
    await run.event("progress");
    run.child.signal("SIGINT");
    await run.expectExit(130);
    expect(readdirSync(folder)).toEqual(["image.raw"]);
  });

  scopedTest("wrong usage and missing files end with their codes", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 1 * MiB, 1);
    await fail(scope, ["capture", source, "--piece-size", "300K"], 2, /power of two/, { cwd: folder });
    await fail(scope, ["capture", source, "--name", "a/b"], 2, /--name/, { cwd: folder });
    await fail(scope, ["capture", source, "--extents", "some"], 2, /--extents/, { cwd: folder });
    await fail(scope, ["capture", join(folder, "missing.raw")], 1, /missing\.raw/, { cwd: folder });
    await fail(scope, ["capture", source, "-o", join(folder, "no", "image.torrent")], 1, /no/, { cwd: folder });
    await fail(scope, ["verify", source, source], 1, /image\.raw/);
    await fail(scope, ["inspect", join(folder, "missing.torrent")], 1, /missing\.torrent/);
    expect(readdirSync(folder)).toEqual(["image.raw"]);
  });
});
