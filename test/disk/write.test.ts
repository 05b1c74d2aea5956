/** Whole images onto real disks and files: segments, queue, head guard, zeroing, flush and scan together. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dropCache } from "../../src/disk/flush.ts";
import { openHasher } from "../../src/disk/hash-pool.ts";
import { HeadGuard } from "../../src/disk/head-guard.ts";
import { DiskQueue } from "../../src/disk/queue.ts";
import { PieceScan } from "../../src/disk/scan.ts";
import { Segments } from "../../src/disk/segments.ts";
import { openSource } from "../../src/disk/source.ts";
import { openTarget, type Target } from "../../src/disk/target.ts";
import { WriteOrder } from "../../src/disk/write-order.ts";
import { ZeroRanges } from "../../src/disk/zero.ts";
import { DiskFault } from "../../src/errors.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import type { Reactor } from "../../src/kernel/reactor.ts";
import { openReactor } from "../../src/kernel/select.ts";
import { HEAD_BYTES } from "../../src/limits.ts";
import type { ExtentTable, RangeTable } from "../../src/torrent/types.ts";
import { Bench, extentsOf, hasLoop, payloadOf, randomRuns, rangesOf, seeded, stamp } from "./support.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 6 * MIB;
const PIECE_BYTES = 256 * 1024;
const QUEUE_OPS = 16;
const ZERO_TOKEN = 1000;

let bench: Bench;
let reactor: Reactor;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => {
  try {
    reactor.close();
  } finally {
    bench.end();
  }
});

interface Image {
  readonly bytes: Uint8Array;
  readonly extents: ExtentTable;
  readonly zeroRanges: RangeTable;
}

/** An image whose runs of data and zeros have bounds at multiples of `unit`, and gaps that mean nothing. */
function makeImage(seed: number, unit: number): Image {
  const [data, zero] = randomRuns(seeded(seed), DISK_BYTES, unit, 2);
  const bytes = new Uint8Array(DISK_BYTES);
  stamp(bytes, seed);
  return { bytes, extents: extentsOf(data), zeroRanges: rangesOf(zero) };
}

/** What the disk must hold afterwards. */
function expected(image: Image, before: Uint8Array): Uint8Array {
  const disk = before.slice();
  const each = (table: RangeTable, put: (from: number, to: number) => void) => {
    for (let i = 0; i < table.count; i++)
      put(table.diskOffsetBytes[i], table.diskOffsetBytes[i] + table.lengthBytes[i]);
  };
  each(image.extents, (from, to) => disk.set(image.bytes.subarray(from, to), from));
  each(image.zeroRanges, (from, to) => disk.fill(0, from, to));
  return disk;
}

function segmentsFor(image: Image, target: Target): Segments {
  return new Segments({
    extents: image.extents,
    zeroRanges: image.zeroRanges,
    pieceBytes: PIECE_BYTES,
    direct: target.files.direct,
  });
}

function openZeroes(image: Image, target: Target, segments: Segments): ZeroRanges {
  return new ZeroRanges({
    reactor,
    files: target.files,
    ranges: image.zeroRanges,
    pageBytes: segments.pageBytes,
    hasDirect: segments.hasDirect,
    skipBytes: HEAD_BYTES,
    tokenOf: (slot) => ZERO_TOKEN + slot,
  });
}

/** Writes the image in transfers of random size and order, zeroing beside it, and returns the bytes moved. */
function deploy(image: Image, target: Target, seed: number, isOrdered = false): number {
  const random = seeded(seed);
  const segments = segmentsFor(image, target);
  const head = new HeadGuard(target.files, image.extents, image.zeroRanges);
  const zeroes = openZeroes(image, target, segments);
  const payload = payloadOf(image.bytes, image.extents);
  const memory = mapMemory(Math.max(payload.length, 1));
  memory.bytes.set(payload);
  const transfers: [number, number][] = [];
  for (let at = 0; at < payload.length; ) {
    const length = Math.min(16384 * (1 + random(64)), payload.length - at);
    transfers.push([at, length]);
    at += length;
  }
  transfers.sort(() => random(3) - 1);
  let done = 0;
  const finished = () => done++;
  const options = { pieceCount: 1, pieceBytes: payload.length, totalBytes: payload.length, heldBytesMax: MIB };
  const order = isOrdered ? new WriteOrder(options) : null;
  const count = transfers.length;
  const queue = new DiskQueue(reactor, target.files, segments, head, finished, (op) => op, count, QUEUE_OPS, order);
  head.invalidate();
  for (const [tag, [at, length]] of transfers.entries()) queue.submit(true, tag, at, length, memory.address + at);
  const completed = (token: number, result: number) => {
    if (token >= ZERO_TOKEN) zeroes.completed(token - ZERO_TOKEN, result);
    else queue.completed(token, result);
  };
  try {
    for (;;) {
      queue.pump();
      zeroes.pump();
      if (queue.pending === 0 && zeroes.finished) break;
      reactor.run(1000, completed);
    }
    expect(done).toBe(count);
    head.commit();
    target.flush();
  } finally {
    while (reactor.inFlight > 0) reactor.run(1000, () => undefined);
    head.free();
    memory.free();
  }
  zeroes.free();
  return queue.bytesWritten;
}

/** Reads the payload back through the same segments. */
function readBack(image: Image, target: Target): Uint8Array {
  const segments = segmentsFor(image, target);
  const memory = mapMemory(image.extents.totalBytes);
  const queue = new DiskQueue(
    reactor,
    target.files,
    segments,
    null,
    () => undefined,
    (op) => op,
    1,
    QUEUE_OPS,
  );
  queue.submit(false, 0, 0, image.extents.totalBytes, memory.address);
  for (queue.pump(); queue.pending > 0; queue.pump())
    reactor.run(1000, (token, result) => queue.completed(token, result));
  const bytes = memory.bytes.slice();
  memory.free();
  return bytes;
}

/** Digests of all wanted pieces, as `verify` makes them. */
function scan(
  image: Image,
  target: Target,
  workers: number,
  wanted: ((piece: number) => boolean) | null = null,
): Map<number, string> {
  const memory: Memory = mapMemory(2 * MIB);
  const hasher = openHasher({ address: memory.address, lengthBytes: memory.lengthBytes, contextsMax: 4, workers });
  const digests = new Map<number, string>();
  try {
    const pieces = new PieceScan({
      reactor,
      hasher,
      files: target.files,
      segments: segmentsFor(image, target),
      memoryAddress: memory.address,
      memoryBytes: memory.lengthBytes,
      pieceBytes: PIECE_BYTES,
      totalBytes: image.extents.totalBytes,
    });
    const isWhole = pieces.run(
      { piece: (index, digest) => digests.set(index, Buffer.from(digest).toString("hex")) },
      wanted,
    );
    expect(isWhole).toBe(true);
  } finally {
    hasher.close();
    memory.free();
  }
  return digests;
}

function digestsOf(payload: Uint8Array): Map<number, string> {
  const digests = new Map<number, string>();
  for (let piece = 0; piece * PIECE_BYTES < payload.length; piece++) {
    const bytes = payload.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES);
    digests.set(piece, createHash("sha1").update(bytes).digest("hex"));
  }
  return digests;
}

const sorted = (digests: Map<number, string>) => [...digests].sort(([a], [b]) => a - b);

type Place = { name: string; open: (before: Uint8Array) => { path: string; contents: () => Uint8Array } };
const places: Place[] = [
  {
    name: "file on disk",
    open: (before) => {
      writeFileSync(bench.path("disk"), before);
      return { path: bench.path("disk"), contents: () => readFileSync(bench.path("disk")) };
    },
  },
];
if (hasLoop) {
  const loop =
    (...flags: string[]) =>
    (before: Uint8Array) => {
      writeFileSync(bench.path("backing"), before);
      const device = bench.loop(bench.path("backing"), ...flags);
      return { path: device, contents: () => readFileSync(device) };
    };
  places.push({ name: "loop device", open: loop() });
  places.push({ name: "loop device with 4096-byte sectors", open: loop("--sector-size", "4096") });
  places.push({
    name: "file on tmpfs",
    open: (before) => {
      const path = `${bench.mount("-t", "tmpfs", "none")}/disk`;
      writeFileSync(path, before);
      return { path, contents: () => readFileSync(path) };
    },
  });
}

for (const io of ["uring", "epoll"] as const) {
  for (const place of places) {
    for (const unit of [1, 512, 1024, 4096]) {
      for (const direct of ["on", "auto", "off"] as const) {
        test(`${io}: an image of ${unit}-byte units onto a ${place.name}, direct ${direct}`, () => {
          reactor = openReactor(io, 64);
          const image = makeImage(unit * 7 + 3, unit);
          const before = new Uint8Array(DISK_BYTES);
          stamp(before, 0x5eed);
          const { path, contents } = place.open(before);
          const target = openTarget(
            path,
            { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
            { force: true, direct },
          );
          const payload = payloadOf(image.bytes, image.extents);
          deploy(image, target, unit);
          expect(readBack(image, target)).toEqual(payload);
          dropCache(target.files);
          expect(sorted(scan(image, target, 1))).toEqual(sorted(digestsOf(payload)));
          target.close();
          expect(Buffer.compare(contents(), expected(image, before))).toBe(0);
        });
      }
    }
  }

  test(`${io}: an image whose writes are put into order`, () => {
    reactor = openReactor(io, 64);
    const image = makeImage(23, 512);
    const before = new Uint8Array(DISK_BYTES);
    const { path, contents } = places[0].open(before);
    const needs = { bytes: DISK_BYTES, sectorBytes: null, isExact: false };
    const target = openTarget(path, needs, { force: true, direct: "auto" });
    deploy(image, target, 23, true);
    target.close();
    expect(Buffer.compare(contents(), expected(image, before))).toBe(0);
  });

  describe(`${io}: a scan`, () => {
    const open = (image: Image): Target => {
      reactor = openReactor(io, 64);
      writeFileSync(bench.path("disk"), image.bytes);
      return openTarget(
        bench.path("disk"),
        { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
        { force: true, direct: "auto" },
      );
    };

    for (const workers of [0, 2]) {
      test(`finds the piece that differs, and only reads what is wanted, ${workers} workers`, () => {
        const image = makeImage(99, 512);
        const target = open(image);
        const payload = payloadOf(image.bytes, image.extents);
        const at = image.extents.diskOffsetBytes[image.extents.count - 1];
        const torrentAt = image.extents.torrentOffsetBytes[image.extents.count - 1];
        target.close();
        const damaged = image.bytes.slice();
        damaged[at] ^= 1;
        writeFileSync(bench.path("disk"), damaged);
        const again = openTarget(
          bench.path("disk"),
          { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
          { force: true, direct: "auto" },
        );
        const want = digestsOf(payload);
        const got = scan(image, again, workers);
        const bad = [...want.keys()].filter((piece) => got.get(piece) !== want.get(piece));
        expect(bad).toEqual([Math.floor(torrentAt / PIECE_BYTES)]);
        const some = scan(image, again, workers, (piece) => piece % 3 === 1);
        expect([...some.keys()].sort((a, b) => a - b)).toEqual([...want.keys()].filter((piece) => piece % 3 === 1));
        again.close();
      });
    }

    test("stops when it is told to, and the same scan can run again", () => {
      const image = makeImage(5, 512);
      const target = open(image);
      const memory = mapMemory(MIB);
      const hasher = openHasher({ address: memory.address, lengthBytes: MIB, contextsMax: 3, workers: 1 });
      const segments = segmentsFor(image, target);
      const totalBytes = image.extents.totalBytes;
      const pieces = new PieceScan({
        reactor,
        hasher,
        files: target.files,
        segments,
        memoryAddress: memory.address,
        memoryBytes: MIB,
        pieceBytes: PIECE_BYTES,
        totalBytes,
      });
      let count = 0;
      const counter = { piece: () => void count++ };
      expect(pieces.run({ ...counter, stopped: () => count >= 2 })).toBe(false);
      expect(count).toBeLessThan(Math.ceil(totalBytes / PIECE_BYTES));
      count = 0;
      expect(pieces.run(counter)).toBe(true);
      expect(count).toBe(Math.ceil(totalBytes / PIECE_BYTES));
      hasher.close();
      memory.free();
      target.close();
    });

    test("of a source that shrank names the place", () => {
      const image = makeImage(5, 512);
      reactor = openReactor(io, 64);
      writeFileSync(bench.path("disk"), image.bytes);
      const source = openSource(bench.path("disk"), { needBytes: DISK_BYTES, direct: "auto" });
      truncateSync(bench.path("disk"), 3 * MIB);
      expect(() => scan(image, source as unknown as Target, 1)).toThrow(/^read .*disk at byte \d+: it ends here/);
      expect(reactor.inFlight).toBe(0);
      expect(source.changed()).toContain("size");
      source.close();
    });
  });

  describe.skipIf(!hasLoop)(`${io}: a failing disk`, () => {
    test("that has no space left is a fault with what to do", () => {
      reactor = openReactor(io, 64);
      const image = makeImage(11, 512);
      const path = `${bench.mount("-t", "tmpfs", "-o", "size=1m", "none")}/disk`;
      const target = openTarget(
        path,
        { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
        { force: true, direct: "auto" },
      );
      // Whichever finds no room first: data, or zeros at the edge of a range, which are written beside it.
      expect(() => deploy(image, target, 1)).toThrow(/^(?:write|zero) .*disk at byte \d+: ENOSPC.*free space/);
      target.close();
    });

    test("that cannot read or write is a fault with what to do, and says where", () => {
      reactor = openReactor(io, 64);
      const image = makeImage(12, 512);
      writeFileSync(bench.path("backing"), new Uint8Array(DISK_BYTES));
      const device = bench.loop(bench.path("backing"));
      const target = openTarget(
        device,
        { bytes: DISK_BYTES, sectorBytes: null, isExact: false },
        { force: false, direct: "auto" },
      );
      truncateSync(bench.path("backing"), 2 * MIB);
      let fault: unknown = null;
      try {
        scan(image, target, 1);
      } catch (error) {
        fault = error;
      }
      expect(fault).toBeInstanceOf(DiskFault);
      expect((fault as DiskFault).message).toMatch(/^read \/dev\/loop\d+ at byte \d+: EIO.*replace the disk/);
      expect((fault as DiskFault).offsetBytes).toBeGreaterThanOrEqual(MIB);
      expect((fault as DiskFault).errno).toBe(5);
      target.close();
    });
  });
}
