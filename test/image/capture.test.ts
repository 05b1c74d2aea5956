/** Captures of files and devices, judged by libtorrent and by rebuilding the source from the torrent. */
import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, readdirSync, statSync, truncateSync, utimesSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Failure } from "../../src/errors.ts";
import { automaticPieceBytes } from "../../src/image/piece-size.ts";
import { Interrupted } from "../../src/image/work-thread.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { type Extent, sparseFile, stampedImage, writeFully, writeStamped } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { mountDevice, smallTmpfs } from "../harness/mounts.ts";
import { run } from "../harness/process.ts";
import { seededRandom } from "../harness/random.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { captureHere, rangesOf, readWithLibtorrent, rebuild } from "./capturing.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** Extents on a grid of 4 KiB, and a size that ends inside a sector. */
const LAYOUT: Extent[] = [
  { offsetBytes: 0, lengthBytes: 4096 },
  { offsetBytes: 1 * MiB, lengthBytes: 3 * MiB },
  { offsetBytes: 9 * MiB, lengthBytes: 128 * KiB },
  { offsetBytes: 20 * MiB - 4096, lengthBytes: 4096 + 777 },
];
const LAYOUT_BYTES = 20 * MiB + 777;

/** Loop devices and mounts need root; an ordinary user's run leaves these tests out. */
const rootTest: typeof scopedTest = (...test) => {
  if (isRoot) scopedTest(...test);
};

function failureOf(action: () => unknown): Failure {
  try {
    action();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

/** Blocks of 4 KiB: most of the time runs, sometimes single ones; with zeros that are written as well as holes. */
function randomImage(path: string, seed: number): number {
  const random = seededRandom(seed);
  const blocks = 200 + random.below(600);
  const diskBytes = blocks * 4096 + random.below(4096);
  sparseFile(path, diskBytes);
  const fd = openSync(path, "r+");
  for (let block = 0; block < blocks; ) {
    const length = 1 + random.below(random.below(4) === 0 ? 60 : 4);
    const kind = random.below(3);
    const end = Math.min(block + length, blocks);
    if (kind === 1) writeFully(fd, Buffer.alloc((end - block) * 4096), block * 4096);
    for (; block < end; block++) {
      // One byte is enough to make a block data; where it stands must not matter.
      if (kind === 2) writeSync(fd, Buffer.of(1 + random.below(255)), 0, 1, block * 4096 + random.below(4096));
    }
  }
  closeSync(fd);
  return diskBytes;
}

describe.each(["uring", "epoll"] as const)("capture over %s", (io) => {
  scopedTest("a sparse file of known layout", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), LAYOUT_BYTES, 7, LAYOUT);
    const { report, metainfo } = captureHere(source, folder, { io, trackers: ["http://10.0.0.1:6969/announce"] });
    expect(rangesOf(metainfo.extents)).toEqual(LAYOUT);
    expect(rangesOf(metainfo.image!.zeroRanges)).toEqual([
      { offsetBytes: 4096, lengthBytes: 1 * MiB - 4096 },
      { offsetBytes: 4 * MiB, lengthBytes: 5 * MiB },
      { offsetBytes: 9 * MiB + 128 * KiB, lengthBytes: 11 * MiB - 132 * KiB },
    ]);
    const read = readWithLibtorrent(report.outputPath, source);
    expect(read).toEqual({
      infoHash: report.infoHash,
      isV2: false,
      name: "image",
      pieceBytes: 256 * KiB,
      pieceCount: report.pieceCount,
      pieceCountRead: report.pieceCount,
      bytesTotal: report.payloadBytes,
      extentCount: 4,
      badPieces: [],
      trackers: ["http://10.0.0.1:6969/announce"],
    });
    expect(metainfo.infoHash.toHex()).toBe(report.infoHash);
    expect(metainfo.image).toMatchObject({ diskBytes: LAYOUT_BYTES, sectorBytes: 512, kind: "file" });
    expect(metainfo.sourcePath).toBe(source);
    expect(report.zeroBytes + report.payloadBytes).toBe(LAYOUT_BYTES);
  });

  scopedTest("random layouts are rebuilt from extents and zero ranges", async (scope) => {
    const folder = scope.ramDir();
    const source = join(folder, "image.raw");
    const rebuilt = join(folder, "rebuilt.raw");
    const saved = join(folder, "saved.raw");
    for (let seed = 1; seed <= 12; seed++) {
      const diskBytes = randomImage(source, seed);
      const mergeGapBytes = [0, 4096, 16384, 65536][seed % 4];
      const { report, metainfo } = captureHere(source, folder, {
        io,
        mergeGapBytes,
        pieceBytes: (16 * KiB) << (seed % 3),
        savePath: saved,
      });
      rebuild(metainfo, source, rebuilt, diskBytes);
      expectSameBytes(rebuilt, source, diskBytes);
      expectSameBytes(saved, source, diskBytes);
      const read = readWithLibtorrent(report.outputPath, source);
      expect({ seed, bad: read.badPieces, hash: read.infoHash }).toEqual({ seed, bad: [], hash: report.infoHash });
    }
  });

  scopedTest("saves a sparse copy in the same pass", async (scope) => {
    const folder = scope.tempDir();
    const source = stampedImage(join(folder, "image.raw"), LAYOUT_BYTES, 3, LAYOUT);
    const saved = join(folder, "saved.raw");
    const { report } = captureHere(source, folder, { io, savePath: saved });
    expect(report.savedPath).toBe(saved);
    expectSameBytes(saved, source, LAYOUT_BYTES);
    expect(statSync(saved).size).toBe(LAYOUT_BYTES);
    expect(statSync(saved).blocks * 512).toBeLessThan(4 * MiB);
    expect(readdirSync(folder).sort()).toEqual(["image.raw", "image.torrent", "saved.raw"]);
  });

  rootTest("a loop device with sectors of 512 and of 4096 bytes", async (scope) => {
    for (const sectorBytes of [512, 4096] as const) {
      const device = loopDevice(scope, 24 * MiB, { sectorBytes });
      writeStamped(device.path, LAYOUT.slice(0, 3), 5);
      const folder = scope.ramDir();
      const { report, metainfo } = captureHere(device.path, folder, { io });
      expect(rangesOf(metainfo.extents)).toEqual(LAYOUT.slice(0, 3));
      expect(metainfo.image).toMatchObject({ kind: "disk", sectorBytes, diskBytes: 24 * MiB });
      expect(readWithLibtorrent(report.outputPath, device.path).badPieces).toEqual([]);
    }
  });
});

describe("piece size", () => {
  test("makes about 4000 pieces within its bounds", () => {
    expect(automaticPieceBytes(1)).toBe(256 * KiB);
    expect(automaticPieceBytes(4000 * 256 * KiB)).toBe(256 * KiB);
    expect(automaticPieceBytes(4000 * 256 * KiB + 1)).toBe(512 * KiB);
    expect(automaticPieceBytes(16 * 1024 * MiB)).toBe(8 * MiB);
    expect(automaticPieceBytes(1e13)).toBe(16 * MiB);
  });

  rootTest("is chosen from what of a disk is not zero", async (scope) => {
    const folder = scope.ramDir();
    const device = loopDevice(scope, 1536 * MiB);
    writeStamped(device.path, [{ offsetBytes: 100 * MiB, lengthBytes: 64 * MiB }], 5);
    expect(captureHere(device.path, folder).report.pieceBytes).toBe(256 * KiB);
    expect(captureHere(device.path, folder, { extents: "all" }).report.pieceBytes).toBe(512 * KiB);
  });

  scopedTest("a given one is used or refused", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 1 * MiB, 1);
    const { report } = captureHere(source, folder, { pieceBytes: 16 * KiB });
    expect(report).toMatchObject({ pieceBytes: 16 * KiB, pieceCount: 64 });
    for (const pieceBytes of [8 * KiB, 300 * KiB, 32 * MiB]) {
      expect(failureOf(() => captureHere(source, folder, { pieceBytes }))).toMatchObject({
        exitCode: 2,
        code: "usage",
      });
    }
    expect(failureOf(() => captureHere(source, folder, { pieceBytes: 16 * KiB, ezio: true })).exitCode).toBe(2);
  });
});

describe("what is sent", () => {
  scopedTest("all and ezio send every byte; ezio has no entry of ours", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), LAYOUT_BYTES, 7, LAYOUT);
    const all = captureHere(source, folder, { extents: "all" });
    expect(rangesOf(all.metainfo.extents)).toEqual([{ offsetBytes: 0, lengthBytes: LAYOUT_BYTES }]);
    expect(all.metainfo.image!.zeroRanges.count).toBe(0);
    expect(readWithLibtorrent(all.report.outputPath, source).badPieces).toEqual([]);
    const ezio = captureHere(source, folder, { ezio: true });
    expect(ezio.metainfo.image).toBeNull();
    expect(ezio.metainfo.pieceBytes).toBe(16 * MiB);
    expect(ezio.metainfo.extents.totalBytes).toBe(LAYOUT_BYTES);
    expect(readWithLibtorrent(ezio.report.outputPath, source).badPieces).toEqual([]);
  });

  scopedTest("of nothing but zeros the first block is sent", async (scope) => {
    const folder = scope.ramDir();
    const source = join(folder, "image.raw");
    sparseFile(source, 5 * MiB + 3);
    const { metainfo, report } = captureHere(source, folder);
    expect(rangesOf(metainfo.extents)).toEqual([{ offsetBytes: 0, lengthBytes: 4096 }]);
    expect(rangesOf(metainfo.image!.zeroRanges)).toEqual([{ offsetBytes: 4096, lengthBytes: 5 * MiB + 3 - 4096 }]);
    expect(readWithLibtorrent(report.outputPath, source).badPieces).toEqual([]);
  });

  scopedTest("odd sizes, down to one byte", async (scope) => {
    const folder = scope.tempDir();
    for (const lengthBytes of [1, 511, 513, 4095, 4097, 256 * KiB + 1, 1 * MiB - 1]) {
      const source = stampedImage(join(folder, "image.raw"), lengthBytes, lengthBytes);
      const { metainfo, report } = captureHere(source, folder, { pieceBytes: 16 * KiB });
      expect(metainfo.extents.totalBytes).toBe(lengthBytes);
      expect({ lengthBytes, bad: readWithLibtorrent(report.outputPath, source).badPieces }).toEqual({
        lengthBytes,
        bad: [],
      });
    }
  });

  scopedTest("the same source gives the same torrent", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), LAYOUT_BYTES, 7, LAYOUT);
    const hashes = (["uring", "epoll"] as const).flatMap((io) =>
      [true, false].map((direct) => captureHere(source, folder, { io, direct }).report.infoHash),
    );
    expect(new Set(hashes).size).toBe(1);
  });

  scopedTest(
    "200,000 runs of data end in few enough extents, with one reading where the holes are known",
    async (scope) => {
      const folder = scope.ramDir();
      const source = join(folder, "image.raw");
      const runs = 200_000;
      sparseFile(source, runs * 8192);
      const fd = openSync(source, "r+");
      for (let i = 0; i < runs; i++) writeSync(fd, Buffer.of(1), 0, 1, i * 8192);
      closeSync(fd);
      const { report, metainfo, warnings } = captureHere(source, folder, { mergeGapBytes: 4096 });
      expect(warnings).toEqual(["merge-gap"]);
      expect(report.mergeGapBytes).toBe(8192);
      expect(report.extentCount).toBe(1);
      expect(report.mergedZeroBytes).toBe((runs - 1) * 4096);
      expect(metainfo.extents.count).toBe(1);
      expect(readWithLibtorrent(report.outputPath, source).badPieces).toEqual([]);
    },
  );

  scopedTest("zeros that only reading finds make it read again", async (scope) => {
    const folder = scope.ramDir();
    const source = join(folder, "image.raw");
    const runs = 70_000;
    const fd = openSync(source, "w");
    const chunk = Buffer.alloc(8192 * 1000);
    for (let i = 0; i < 1000; i++) chunk[i * 8192 + 4095] = 1;
    for (let i = 0; i < runs / 1000; i++) writeFully(fd, chunk, i * chunk.length);
    closeSync(fd);
    const saved = join(folder, "saved.raw");
    const { report, warnings } = captureHere(source, folder, { mergeGapBytes: 4096, savePath: saved });
    expect(warnings).toEqual(["fragmented", "merge-gap"]);
    expect(report.extentCount).toBe(1);
    expect(readWithLibtorrent(report.outputPath, source).badPieces).toEqual([]);
    expectSameBytes(saved, source, runs * 8192);
  });
});

describe("refusals and failures leave nothing behind", () => {
  scopedTest("missing, empty, a folder, a character device", async (scope) => {
    const folder = scope.ramDir();
    const empty = join(folder, "empty.raw");
    sparseFile(empty, 0);
    const cases: [string, string][] = [
      [join(folder, "missing.raw"), "source-missing"],
      [empty, "source-empty"],
      [folder, "source-type"],
      ["/dev/null", "source-type"],
    ];
    for (const [path, code] of cases) {
      const failure = failureOf(() => captureHere(path, folder, { savePath: join(folder, "saved.raw") }));
      expect(failure).toMatchObject({ code, exitCode: 1 });
      expect(failure.message).toContain(path);
    }
    expect(readdirSync(folder)).toEqual(["empty.raw"]);
  });

  scopedTest("a source that was written to or shrank meanwhile", async (scope) => {
    const folder = scope.ramDir();
    const source = join(folder, "image.raw");
    const saved = join(folder, "saved.raw");
    const changes: [() => void, RegExp][] = [
      [() => utimesSync(source, 1, 1), /was written to while it was captured/],
      [() => truncateSync(source, 8 * MiB + 5), /shrank/],
    ];
    for (const [change, message] of changes) {
      stampedImage(source, 96 * MiB, 1);
      let asked = 0;
      const stopped = () => {
        if (++asked === 1) change();
        return false;
      };
      const failure = failureOf(() => captureHere(source, folder, { savePath: saved }, { stopped }));
      expect(failure.exitCode).toBe(1);
      expect(failure.message).toMatch(message);
      expect(readdirSync(folder)).toEqual(["image.raw"]);
    }
  });

  scopedTest("what it is a view of was written to; its own time stamp says nothing then", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "view"), 64 * MiB, 1);
    const image = stampedImage(join(folder, "image.qcow2"), 4096, 1);
    const origin = { path: image, format: "a qcow2 image", isSaveWritten: false, madeOf: [image] };
    const touching = (path: string) => {
      let asked = 0;
      const stopped = () => {
        if (++asked === 1) utimesSync(path, 1, 1);
        return false;
      };
      return () => captureHere(source, folder, { origin }, { stopped });
    };
    expect(failureOf(touching(image))).toMatchObject({ code: "source-changed", exitCode: 1 });
    const { report, metainfo } = touching(source)();
    expect(report).toMatchObject({ sourcePath: image, sourceFormat: "a qcow2 image" });
    expect(metainfo).toMatchObject({ sourcePath: image, sourceFormat: "a qcow2 image" });
  });

  scopedTest("a stop in the middle", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 64 * MiB, 1);
    for (const io of ["uring", "epoll"] as const) {
      let asked = 0;
      const stop = () =>
        captureHere(source, folder, { io, savePath: join(folder, "saved.raw") }, { stopped: () => ++asked > 3 });
      expect(stop).toThrow(Interrupted);
      expect(readdirSync(folder)).toEqual(["image.raw"]);
    }
  });

  scopedTest("a copy onto itself, into a missing folder, over a folder", async (scope) => {
    const folder = scope.ramDir();
    const source = stampedImage(join(folder, "image.raw"), 64 * KiB, 1);
    for (const savePath of [source, join(folder, "no", "saved.raw"), folder]) {
      expect(failureOf(() => captureHere(source, folder, { savePath }))).toMatchObject({ code: "save", exitCode: 1 });
    }
    expectSameBytes(source, stampedImage(join(folder, "same.raw"), 64 * KiB, 1), 64 * KiB);
    expect(existsSync(join(folder, "image.torrent"))).toBe(false);
  });

  rootTest("a copy that does not fit", async (scope) => {
    const source = stampedImage(join(scope.ramDir(), "image.raw"), 32 * MiB, 1);
    const full = smallTmpfs(scope, 4 * MiB);
    const folder = scope.ramDir();
    for (const io of ["uring", "epoll"] as const) {
      const failure = failureOf(() => captureHere(source, folder, { io, savePath: join(full, "saved.raw") }));
      expect(failure).toMatchObject({ code: "disk-fault", exitCode: 1 });
      expect(failure.message).toMatch(/write .*saved\.raw at byte \d+: ENOSPC.*space/);
      expect([...readdirSync(full), ...readdirSync(folder)]).toEqual([]);
    }
  });

  rootTest("a disk that is mounted read-write, unless forced", async (scope) => {
    const device = loopDevice(scope, 16 * MiB);
    run(["mkfs.ext4", "-q", device.path]);
    const mounted = mountDevice(scope, device.path);
    const folder = scope.ramDir();
    const failure = failureOf(() => captureHere(device.path, folder));
    expect(failure).toMatchObject({ code: "source-mounted", exitCode: 4 });
    expect(failure.message).toContain(mounted);
    expect(captureHere(device.path, folder, { force: true }).warnings).toContain("source-mounted");
    run(["mount", "-o", "remount,ro", mounted]);
    expect(captureHere(device.path, folder).warnings).toEqual([]);
  });
});
