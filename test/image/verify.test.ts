/** Verification: what is wrong is found, with its place; what is right passes. */
import { describe, expect } from "bun:test";
import { closeSync, copyFileSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../../src/errors.ts";
import { isProven, type VerifyOptions, type VerifyReport, verify } from "../../src/image/verify.ts";
import { Interrupted, type WorkControl } from "../../src/image/work-thread.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import type { Metainfo } from "../../src/torrent/types.ts";
import { type Extent, sparseFile, stampedImage, writeStamped } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { run } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { extentTorrent, writeTorrent } from "../harness/torrents.ts";
import { captureHere } from "./capturing.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const PIECE = 64 * KiB;
const DISK_BYTES = 16 * MiB + 300;
const EXTENTS: Extent[] = [
  { offsetBytes: 0, lengthBytes: 100 * KiB },
  { offsetBytes: 1 * MiB, lengthBytes: 1 * MiB },
  { offsetBytes: 16 * MiB, lengthBytes: 300 },
];

function verifyHere(
  metainfo: Metainfo,
  targetPath: string,
  options: Partial<VerifyOptions> = {},
  control: Partial<WorkControl> = {},
): VerifyReport {
  const plain = { io: "auto", direct: "auto", trusted: false, tail: null } as const;
  const work: VerifyOptions = { metainfo, targetPath, ...plain, ...options };
  return verify(work, { stopped: () => false, progress: () => {}, warning: () => {}, ...control });
}

function overwrite(path: string, offsetBytes: number, text = "damaged"): void {
  const fd = openSync(path, "r+");
  writeSync(fd, Buffer.from(text), 0, text.length, offsetBytes);
  closeSync(fd);
}

describe.each(["uring", "epoll"] as const)("verify over %s", (io) => {
  scopedTest("finds each bad piece and each place that should be zero", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), DISK_BYTES, 1, EXTENTS);
    const { metainfo } = captureHere(source, folder, { pieceBytes: PIECE });
    const right = verifyHere(metainfo, source, { io });
    expect(isProven(right)).toBe(true);
    expect(right.bytesRead).toBe(metainfo.extents.totalBytes);
    const target = join(folder, "target.raw");
    copyFileSync(source, target);
    overwrite(target, 99 * KiB);
    overwrite(target, 1 * MiB + 500 * KiB);
    overwrite(target, 16 * MiB + 290);
    overwrite(target, 4 * MiB - 3);
    const report = verifyHere(metainfo, target, { io });
    expect(isProven(report)).toBe(false);
    // The payload's 99 KiB are in piece 1, which ends 28 KiB into the second extent.
    expect(report.badPieces).toEqual([
      {
        index: 1,
        ranges: [
          { offsetBytes: 64 * KiB, lengthBytes: 36 * KiB },
          { offsetBytes: 1 * MiB, lengthBytes: 28 * KiB },
        ],
        rangeCount: 2,
      },
      { index: 9, ranges: [{ offsetBytes: 1 * MiB + 476 * KiB, lengthBytes: 64 * KiB }], rangeCount: 1 },
      {
        index: 17,
        ranges: [
          { offsetBytes: 1 * MiB + 988 * KiB, lengthBytes: 36 * KiB },
          { offsetBytes: 16 * MiB, lengthBytes: 300 },
        ],
        rangeCount: 2,
      },
    ]);
    expect(report.badPieceCount).toBe(3);
    expect(report.badZeroRanges).toEqual([{ offsetBytes: 4 * MiB - 4096, lengthBytes: 8192 }]);
    expect(report.badZeroBytes).toBe(8192);
  });

  scopedTest("stops when it is told to", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 64 * MiB, 1);
    const { metainfo } = captureHere(source, folder);
    let asked = 0;
    expect(() => verifyHere(metainfo, source, { io }, { stopped: () => ++asked > 2 })).toThrow(Interrupted);
  });
});

describe("verify", () => {
  if (isRoot) {
    scopedTest("a device: all of its zero ranges are read, past the page cache", async (scope) => {
      const folder = scope.ramDir();
      const device = loopDevice(scope, 16 * MiB);
      writeStamped(device.path, EXTENTS.slice(0, 2), 1);
      run(["sync", device.path]);
      const { metainfo } = captureHere(device.path, folder, { pieceBytes: PIECE });
      const report = verifyHere(metainfo, device.path);
      expect(isProven(report)).toBe(true);
      expect(report.bytesRead).toBe(16 * MiB);
      overwrite(device.path, 16 * MiB - 512);
      expect(verifyHere(metainfo, device.path).badZeroRanges).toEqual([
        { offsetBytes: 16 * MiB - 4096, lengthBytes: 4096 },
      ]);
    });
  }

  scopedTest("torrents of others, whose extents lie on no block, have no zero ranges", async (scope) => {
    const folder = scope.ramDir();
    const extents: Extent[] = [
      { offsetBytes: 512, lengthBytes: 70 * KiB + 1 },
      { offsetBytes: 2 * MiB + 1536, lengthBytes: 1 * MiB },
    ];
    const source = stampedImage(join(folder, "image.raw"), 4 * MiB, 1, extents);
    const { path } = writeTorrent(join(folder, "t.torrent"), extentTorrent(source, extents, PIECE));
    const metainfo = parseMetainfo(readFileSync(path));
    expect(isProven(verifyHere(metainfo, source))).toBe(true);
    overwrite(source, 2 * MiB + 1536);
    expect(verifyHere(metainfo, source).badPieces.map(({ index }) => index)).toEqual([1]);
  });

  scopedTest("a wrong disk: every piece is counted, the first thousand are named", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 32 * MiB, 1);
    const { metainfo } = captureHere(source, folder, { pieceBytes: 16 * KiB });
    const other = stampedImage(join(folder, "other.raw"), 32 * MiB, 2);
    const report = verifyHere(metainfo, other);
    expect(report.badPieceCount).toBe(2048);
    expect(report.badPieces.map(({ index }) => index)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  });

  scopedTest("a target that is too small is refused with both sizes", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), DISK_BYTES, 1, EXTENTS);
    const { metainfo } = captureHere(source, folder);
    const small = join(folder, "small.raw");
    sparseFile(small, DISK_BYTES - 1);
    let failure: unknown;
    try {
      verifyHere(metainfo, small);
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(Failure);
    expect((failure as Failure).message).toContain(String(DISK_BYTES - 1));
  });
});
