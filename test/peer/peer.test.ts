/** Whole peers in their own threads: seeds and deployments over loopback, on both back ends. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { PeerEvent, PeerHandle, PeerOptions } from "../../src/peer/api.ts";
import { startPeer } from "../../src/peer/handle.ts";
import { encodeMetainfo } from "../../src/torrent/create.ts";
import { makeExtentTable, makeRangeTable } from "../../src/torrent/extents.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import { KiB, MiB } from "../../src/units.ts";

const DISK_BYTES = 24 * MiB;
const PIECE_BYTES = 256 * KiB;
const SECTOR_BYTES = 512;

let folder: string;
let handles: PeerHandle[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "diskswarm-peer-"));
  handles = [];
});

afterEach(async () => {
  for (const handle of handles) handle.stop();
  await Promise.allSettled(handles.map((handle) => handle.finished));
  rmSync(folder, { recursive: true, force: true });
});

/** A disk whose sectors carry their own number; extents of odd lengths, zero ranges behind some, the rest unused. */
function makeImage(): { disk: Uint8Array; torrent: Uint8Array; expected: (dirty: Uint8Array) => Uint8Array } {
  const disk = new Uint8Array(DISK_BYTES);
  const words = new Uint32Array(disk.buffer);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul((i * 4) / SECTOR_BYTES + 1, 0x9e3779b1) ^ i;
  const [offsets, lengths, zeroOffsets, zeroLengths]: [number[], number[], number[], number[]] = [[], [], [], []];
  let at = 0;
  for (let i = 0; at + 200 * KiB < DISK_BYTES; i++) {
    const length = SECTOR_BYTES * (1 + ((i * 37) % 300));
    offsets.push(at);
    lengths.push(length);
    at += length;
    if (i % 3 === 0) {
      zeroOffsets.push(at);
      zeroLengths.push(SECTOR_BYTES * (1 + (i % 40)));
      at += zeroLengths.at(-1)!;
    } else at += SECTOR_BYTES * (i % 9);
  }
  const extents = makeExtentTable(Float64Array.from(offsets), Float64Array.from(lengths), offsets.length);
  const zeroRanges = makeRangeTable(Float64Array.from(zeroOffsets), Float64Array.from(zeroLengths), zeroOffsets.length);
  const payload = new Uint8Array(extents.totalBytes);
  for (let i = 0, to = 0; i < offsets.length; to += lengths[i++]!)
    payload.set(disk.subarray(offsets[i]!, offsets[i]! + lengths[i]!), to);
  const hashes: Buffer[] = [];
  for (let from = 0; from < payload.length; from += PIECE_BYTES) {
    hashes.push(
      createHash("sha1")
        .update(payload.subarray(from, from + PIECE_BYTES))
        .digest(),
    );
  }
  const torrent = encodeMetainfo({
    name: "image",
    pieceBytes: PIECE_BYTES,
    pieceHashes: new Uint8Array(Buffer.concat(hashes)),
    extents,
    image: { version: 1, diskBytes: DISK_BYTES, sectorBytes: SECTOR_BYTES, kind: "disk", zeroRanges } as never,
    trackers: [],
    sourcePath: null,
    createdBy: "test",
    creationDateSeconds: null,
  });
  const expected = (dirty: Uint8Array) => {
    const result = dirty.slice();
    for (let i = 0; i < offsets.length; i++)
      result.set(disk.subarray(offsets[i]!, offsets[i]! + lengths[i]!), offsets[i]!);
    for (let i = 0; i < zeroOffsets.length; i++) result.fill(0, zeroOffsets[i]!, zeroOffsets[i]! + zeroLengths[i]!);
    return result;
  };
  return { disk, torrent, expected };
}

function start(options: Partial<PeerOptions> & Pick<PeerOptions, "role" | "torrent" | "path">): {
  handle: PeerHandle;
  events: PeerEvent[];
  heard: (type: PeerEvent["type"]) => Promise<PeerEvent>;
} {
  const events: PeerEvent[] = [];
  const waiting: [PeerEvent["type"], (event: PeerEvent) => void][] = [];
  const handle = startPeer(
    {
      force: true,
      trusted: false,
      listen: "127.0.0.1",
      port: 0,
      portMayChange: false,
      peers: [],
      memoryBytes: 16 * MiB,
      io: "auto",
      direct: "auto",
      delta: "auto",
      check: false,
      lingerMs: 0,
      timeoutMs: 30_000,
      blockBytesMax: 256 * KiB,
      compress: true,
      ...options,
    },
    (event) => {
      events.push(event);
      for (const [type, resolve] of waiting) if (type === event.type) resolve(event);
    },
  );
  handle.finished.catch(() => {});
  handles.push(handle);
  const heard = (type: PeerEvent["type"]) =>
    new Promise<PeerEvent>((resolve, reject) => {
      const past = events.find((event) => event.type === type);
      if (past !== undefined) return resolve(past);
      waiting.push([type, resolve]);
      handle.finished.then(() => reject(new Error(`ended without ${type}`)), reject);
    });
  return { handle, events, heard };
}

async function seed(
  torrent: Uint8Array,
  disk: Uint8Array,
  io: PeerOptions["io"],
): Promise<{ host: string; port: number }> {
  const path = join(folder, "source");
  writeFileSync(path, disk);
  const listening = await start({ role: "seed", torrent, path, io }).heard("listening");
  return { host: "127.0.0.1", port: (listening as Extract<PeerEvent, { type: "listening" }>).port };
}

describe.each(["uring", "epoll"] as const)("peers on %s", (io) => {
  test("a dirty target gets the extents and zero ranges, and nothing else changes", async () => {
    const { disk, torrent, expected } = makeImage();
    const peer = await seed(torrent, disk, io);
    const dirty = new Uint8Array(DISK_BYTES).fill(0xa5);
    const path = join(folder, "target");
    writeFileSync(path, dirty);
    const node = start({ role: "deploy", torrent, path, io, peers: [peer] });
    const done = (await node.heard("done")) as Extract<PeerEvent, { type: "done" }>;
    await node.handle.finished;
    expect(Buffer.from(readFileSync(path)).equals(Buffer.from(expected(dirty)))).toBe(true);
    expect(done.stats.bytesFetched).toBe(done.stats.bytesTotal);
    expect(done.sources).toEqual([{ peer: `127.0.0.1:${peer.port}`, bytes: done.stats.bytesTotal }]);
  });

  test("what is right already is not fetched again", async () => {
    const { disk, torrent, expected } = makeImage();
    const peer = await seed(torrent, disk, io);
    const path = join(folder, "target");
    const before = expected(new Uint8Array(DISK_BYTES));
    before.fill(0xff, 5 * MiB, 5 * MiB + 4096);
    writeFileSync(path, before);
    const node = start({ role: "deploy", torrent, path, io, peers: [peer] });
    const done = (await node.heard("done")) as Extract<PeerEvent, { type: "done" }>;
    await node.handle.finished;
    expect(done.stats.bytesFetched).toBeLessThanOrEqual(2 * PIECE_BYTES);
    expect(done.stats.bytesReused).toBe(done.stats.bytesTotal - done.stats.bytesFetched);
    expect(Buffer.from(readFileSync(path)).equals(Buffer.from(expected(before)))).toBe(true);
  });

  test("a node passes on what it has to one that knows only it", async () => {
    const { disk, torrent, expected } = makeImage();
    const peer = await seed(torrent, disk, io);
    const first = start({ role: "deploy", torrent, path: join(folder, "first"), io, peers: [peer], lingerMs: 60_000 });
    const { port } = (await first.heard("listening")) as Extract<PeerEvent, { type: "listening" }>;
    await first.heard("done");
    const second = start({
      role: "deploy",
      torrent,
      path: join(folder, "second"),
      io,
      peers: [{ host: "127.0.0.1", port }],
    });
    await second.heard("done");
    await second.handle.finished;
    const whole = Buffer.from(expected(new Uint8Array(DISK_BYTES)));
    expect(
      Buffer.from(readFileSync(join(folder, "second")))
        .subarray(0, whole.length)
        .equals(whole),
    ).toBe(true);
  });

  test("a magnet link's metadata comes from the swarm", async () => {
    const { disk, torrent, expected } = makeImage();
    const peer = await seed(torrent, disk, io);
    const path = join(folder, "target");
    const { infoHash } = parseMetainfo(torrent);
    const node = start({ role: "deploy", torrent: { infoHash, name: null }, path, io, peers: [peer] });
    const metadata = (await node.heard("metadata")) as Extract<PeerEvent, { type: "metadata" }>;
    await node.handle.finished;
    expect(metadata.name).toBe("image");
    expect(Buffer.from(readFileSync(path)).equals(Buffer.from(expected(new Uint8Array(DISK_BYTES))))).toBe(true);
  });

  test("wrong data from the only source is an integrity failure and leaves no head", async () => {
    const { disk, torrent } = makeImage();
    const source = disk.slice();
    // Between the pieces that a seeder looks at when it starts.
    source.fill(0, 2 * MiB, 2 * MiB + 8192);
    const peer = await seed(torrent, source, io);
    const path = join(folder, "target");
    const node = start({ role: "deploy", torrent, path, io, peers: [peer], timeoutMs: 4000 });
    const failure = await node.handle.finished.then(
      () => null,
      (error) => error,
    );
    expect(failure?.exitCode).toBe(3);
    expect(failure?.message).toContain(`127.0.0.1:${peer.port}`);
    expect(node.events.some((event) => event.type === "done")).toBe(false);
    expect(
      readFileSync(path)
        .subarray(0, SECTOR_BYTES)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test("nobody to fetch from ends after the time-out, with the missing pieces counted and the target as it was", async () => {
    const { torrent } = makeImage();
    const path = join(folder, "target");
    const before = Buffer.alloc(DISK_BYTES, 0x5a);
    writeFileSync(path, before);
    const node = start({ role: "deploy", torrent, path, io, timeoutMs: 300 });
    const failure = await node.handle.finished.then(
      () => null,
      (error) => error,
    );
    expect(failure?.exitCode).toBe(5);
    expect(failure?.message).toMatch(/\d+ of \d+ pieces .* are missing/);
    expect(readFileSync(path).equals(before)).toBe(true);
  });
});
