/** The demonstration, small: it ends with equal copies, and leaves nothing behind however it ends. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { firstDifference, makeDemoImage } from "../../src/cli/demo-image.ts";
import { MiB } from "../../src/units.ts";
import { start, succeed } from "../harness/diskswarm.ts";
import { scopedTest } from "../harness/scope.ts";

describe("demo", () => {
  scopedTest("deploys an image to nodes that help each other, and cleans up", async (scope) => {
    const folder = scope.tempDir();
    const run = await succeed(scope, ["demo", "--size", "32M", "--nodes", "2", "--dir", folder]);
    const done = await run.event("done");
    expect(done).toMatchObject({ bytesTotal: 32 * MiB, verified: true });
    const nodes = done.nodes as { bytesFromServer: number; bytesFromNodes: number }[];
    expect(nodes).toHaveLength(2);
    // A quarter of the image is zero and is not sent; the server sends each other piece once at least.
    const fetched = nodes.map((node) => node.bytesFromServer + node.bytesFromNodes);
    expect(fetched).toEqual([24 * MiB, 24 * MiB]);
    expect(nodes[0]!.bytesFromServer + nodes[1]!.bytesFromServer).toBeGreaterThanOrEqual(24 * MiB);
    expect(readdirSync(folder)).toEqual([]);
  });

  scopedTest("takes an image of any size", async (scope) => {
    const folder = scope.tempDir();
    const image = join(folder, "given.raw");
    writeFileSync(image, new Uint8Array(1_000_001).fill(7));
    await succeed(scope, ["demo", image, "--nodes", "1", "--dir", folder]);
    expect(readdirSync(folder)).toEqual(["given.raw"]);
  });

  scopedTest("cleans up when it is interrupted", async (scope) => {
    const folder = scope.tempDir();
    const run = start(scope, ["demo", "--size", "256M", "--dir", folder]);
    await run.event("start");
    run.child.signal("SIGINT");
    await run.expectExit(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  scopedTest("says how much space is missing before it makes anything", async (scope) => {
    const folder = scope.tempDir();
    const ended = await start(scope, ["demo", "--size", "900T", "--dir", folder]).expectExit(1);
    expect(ended.stderr).toContain("--dir");
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("the image", () => {
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-demo-test-"));
  const image = join(folder, "image.raw");
  const size = 33 * MiB;

  test("a byte that differs is found, and where", async () => {
    try {
      await makeDemoImage(image, size, new AbortController().signal);
      const bytes = new Uint8Array(await Bun.file(image).arrayBuffer());
      expect(bytes.length).toBe(size);
      expect(bytes.subarray(24 * MiB, 32 * MiB).every((byte) => byte === 0)).toBe(true);
      expect(new DataView(bytes.buffer).getBigUint64(20 * MiB + 512)).toBe(BigInt(20 * MiB + 512));
      const copy = join(folder, "copy.raw");
      writeFileSync(copy, bytes);
      expect(await firstDifference(image, copy, size)).toBeNull();
      bytes[size - 1] = bytes[size - 1]! ^ 1;
      writeFileSync(copy, bytes);
      expect(await firstDifference(image, copy, size)).toBe(size - 1);
      writeFileSync(copy, bytes.subarray(0, 5 * MiB));
      expect(await firstDifference(image, copy, size)).toBe(5 * MiB);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
