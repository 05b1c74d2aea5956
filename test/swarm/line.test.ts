/** The line's rate and its slices, and that requests follow them. */
import { describe, expect, test } from "bun:test";
import { Line, SLICE_BYTES_MAX } from "../../src/swarm/line.ts";
import { KiB, MiB, pieceIndex } from "../../src/units.ts";
import { BLOCK, Host, Remote } from "./harness.ts";

/** `ms` of a line that carries `mbit` megabits per second, in 16 KiB blocks. */
function busy(line: Line, mbit: number, fromMs: number, ms: number): number {
  const bytesPerMs = (mbit * 1e6) / 8 / 1000;
  const endMs = fromMs + ms;
  let nowMs = fromMs;
  for (; nowMs < endMs; nowMs += BLOCK / bytesPerMs) line.carried(nowMs, BLOCK);
  return nowMs;
}

describe("a line's slice", () => {
  test("of a line of which nothing is known is one unit", () => {
    expect(new Line(BLOCK).sliceBytes).toBe(BLOCK);
  });

  test.each([
    [10, 16 * KiB],
    [25, 16 * KiB],
    [100, 32 * KiB],
    [1_000, 256 * KiB],
    [2_500, 512 * KiB],
    [10_000, 1 * MiB],
    [100_000, SLICE_BYTES_MAX],
  ])("at %d Mbit/s is %d bytes", (mbit, bytes) => {
    const line = new Line(BLOCK);
    busy(line, mbit, 1_000, 5_000);
    expect(line.sliceBytes).toBe(bytes);
  });

  test("is never less than the least that is asked for", () => {
    const line = new Line(256 * KiB);
    busy(line, 10, 1_000, 5_000);
    expect(line.sliceBytes).toBe(256 * KiB);
  });

  test("grows within 40 ms of a fast line, though it was idle before", () => {
    const line = new Line(BLOCK);
    busy(line, 10_000, 1_000_000, 40);
    expect(line.sliceBytes).toBe(1 * MiB);
  });

  test("stays while the line idles, and shrinks when it is slower for long", () => {
    const line = new Line(BLOCK);
    const idleSinceMs = busy(line, 1_000, 1_000, 1_000);
    const againMs = busy(line, 100, idleSinceMs + 60_000, 500);
    expect(line.sliceBytes).toBe(256 * KiB);
    busy(line, 100, againMs, 20_000);
    expect(line.sliceBytes).toBe(32 * KiB);
  });

  test("is not of less than 20 ms and 1 MiB: a burst says nothing", () => {
    const line = new Line(BLOCK);
    busy(line, 1_000, 0, 500);
    const before = line.sliceBytes;
    line.carried(501, 16 * MiB);
    expect(line.sliceBytes).toBe(before);
  });
});

describe("requests", () => {
  test("are for a slice of the line, which is short before it was measured", () => {
    const host = new Host({ blockBytesMax: 64 * KiB, outstandingBytesPerSource: 256 * KiB, pieceCount: 64 });
    const remote = new Remote(host).open({ ours: true }).haveAll();
    remote.unchoke();
    expect(remote.named("request")[0]?.[3]).toBe(16 * KiB);
    busy(host.swarm.receiving, 1_000, host.nowMs, 100);
    for (const [piece, begin] of remote.outstanding) remote.block(piece, begin);
    remote.unchoke();
    expect(remote.named("request").at(-1)?.[3]).toBe(64 * KiB);
  });

  test("are long again while blocks come packed, and short when they do not any more", () => {
    const host = new Host({
      blockBytesMax: 64 * KiB,
      outstandingBytesPerSource: 512 * KiB,
      pieceCount: 512,
      packedBlocks: true,
    });
    const remote = new Remote(host).open({ ours: true, packedId: 7 }).haveAll();
    const lengths = (isPacked: boolean): number => {
      let last = 0;
      for (let i = 0; i < 100; i++) {
        remote.unchoke();
        for (const [name, piece = 0, begin = 0, length = 0] of remote.sent()) {
          if (name !== "request") continue;
          last = length;
          if (!isPacked) remote.block(piece, begin, length);
          else {
            remote.packedBlock(piece, begin, length, length / 2);
            host.swarm.inflated(host.nowMs, { piece, begin, length, banKey: remote.session.banKey }, true);
          }
          if (host.swarm.picker.progress(piece)?.complete) host.swarm.pieceVerified(host.nowMs, pieceIndex(piece));
        }
      }
      return last;
    };
    expect(lengths(true)).toBe(64 * KiB);
    expect(lengths(false)).toBe(16 * KiB);
  });
});
