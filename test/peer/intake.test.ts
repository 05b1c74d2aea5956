import { createHash } from "node:crypto";
import { beforeEach, describe, expect, test } from "bun:test";
import type { HashHandler, Hasher } from "../../src/disk/hasher.ts";
import { mapMemory } from "../../src/kernel/memory.ts";
import { BLOCK_BYTES } from "../../src/limits.ts";
import { Intake } from "../../src/peer/intake.ts";
import { SlabPool } from "../../src/peer/slabs.ts";
import { PieceDigests } from "../../src/torrent/piece-digests.ts";
import type { Metainfo } from "../../src/torrent/types.ts";

const SLAB_BYTES = 4 * BLOCK_BYTES;
const PIECE_BYTES = 2 * SLAB_BYTES;
const SLABS = 4;
const PIECES = 3;
const LAST_BYTES = SLAB_BYTES + BLOCK_BYTES + 512;
const TOTAL_BYTES = 2 * PIECE_BYTES + LAST_BYTES;

/** Hashes when it is drained, in the order of the jobs, and takes only so many at once. */
class QueuedHasher implements Hasher {
  readonly contextsMax = 2;
  readonly wakeFd = -1;
  readonly workers = 0;
  room = 8;
  readonly #jobs: (() => void)[] = [];
  readonly #hashes = [createHash("sha1"), createHash("sha1")];

  constructor(
    readonly base: number,
    readonly bytes: Uint8Array,
  ) {}

  handler: HashHandler | null = null;

  begin(context: number): void {
    this.#hashes[context] = createHash("sha1");
  }

  update(context: number, address: number, lengthBytes: number): boolean {
    if (this.#jobs.length >= this.room) return false;
    this.#jobs.push(() => {
      this.#hashes[context]!.update(this.bytes.subarray(address - this.base, address - this.base + lengthBytes));
      this.handler!.updated(context, lengthBytes);
    });
    return true;
  }

  finish(context: number): boolean {
    if (this.#jobs.length >= this.room) return false;
    this.#jobs.push(() => this.handler!.finished(context, this.#hashes[context]!.digest()));
    return true;
  }

  drain(handler: HashHandler): number {
    this.handler = handler;
    const jobs = this.#jobs.splice(0);
    for (const job of jobs) job();
    return jobs.length;
  }

  pack(): boolean {
    throw new Error("nothing is packed here");
  }

  unpack(): boolean {
    throw new Error("nothing is inflated here");
  }

  sleeping(): void {}
  close(): void {}
}

const payload = new Uint8Array(TOTAL_BYTES);
for (let i = 0; i < payload.length; i++) payload[i] = (i * 7 + (i >> 9)) & 0xff;

function metainfo(): Metainfo {
  const hashes = new Uint8Array(PIECES * 20);
  for (let piece = 0; piece < PIECES; piece++) {
    const digest = createHash("sha1")
      .update(payload.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES))
      .digest();
    hashes.set(digest, piece * 20);
  }
  const extents = {
    count: 1,
    diskOffsetBytes: Float64Array.of(0),
    lengthBytes: Float64Array.of(TOTAL_BYTES),
    torrentOffsetBytes: Float64Array.of(0),
    totalBytes: TOTAL_BYTES,
  };
  return { pieceBytes: PIECE_BYTES, pieceCount: PIECES, pieceHashes: hashes, extents } as unknown as Metainfo;
}

interface Write {
  tag: number;
  offset: number;
  length: number;
  address: number;
}

let pool: SlabPool;
let hasher: QueuedHasher;
let intake: Intake;
let writes: Write[];
let verified: number[];
let failed: number[];
let disk: Uint8Array;

beforeEach(() => {
  const memory = mapMemory(SLABS * SLAB_BYTES);
  pool = new SlabPool(memory.address, SLAB_BYTES, SLABS, 2, 64);
  hasher = new QueuedHasher(memory.address, memory.bytes);
  writes = [];
  verified = [];
  failed = [];
  disk = new Uint8Array(TOTAL_BYTES);
  const handler = {
    write: (tag: number, offset: number, length: number, address: number) =>
      void writes.push({ tag, offset, length, address }),
    verified: (piece: number) => void verified.push(piece),
    failed: (piece: number) => void failed.push(piece),
  };
  const image = metainfo();
  intake = new Intake(image, PieceDigests.of(image, false), pool, hasher, handler, SLABS);
});

function pieceLength(piece: number): number {
  return piece === PIECES - 1 ? LAST_BYTES : PIECE_BYTES;
}

function receive(piece: number, begin: number, length: number, corrupt = false): void {
  expect(intake.reserve(piece, begin)).toBe(true);
  const at = intake.addressOf(piece, begin) - hasher.base;
  const from = piece * PIECE_BYTES + begin;
  hasher.bytes.set(payload.subarray(from, from + length), at);
  if (corrupt) hasher.bytes[at]! ^= 1;
  intake.landed(piece, begin, length);
}

function completeWrites(): void {
  for (const write of writes.splice(0)) {
    disk.set(
      hasher.bytes.subarray(write.address - hasher.base, write.address - hasher.base + write.length),
      write.offset,
    );
    intake.written(write.tag);
  }
}

function turn(): void {
  hasher.drain(intake);
  intake.pump();
  completeWrites();
}

function receiveWhole(piece: number, order: (blocks: number[]) => number[] = (blocks) => blocks, corruptAt = -1): void {
  const blocks: number[] = [];
  for (let begin = 0; begin < pieceLength(piece); begin += BLOCK_BYTES) blocks.push(begin);
  for (const begin of order(blocks))
    receive(piece, begin, Math.min(BLOCK_BYTES, pieceLength(piece) - begin), begin === corruptAt);
}

describe("intake", () => {
  test("a piece is verified after hash and writes, not before", () => {
    receiveWhole(0);
    hasher.drain(intake);
    intake.pump();
    hasher.drain(intake);
    expect(verified).toEqual([]);
    expect(writes.length).toBe(2);
    completeWrites();
    expect(verified).toEqual([0]);
    expect(intake.active).toBe(0);
    expect(disk.subarray(0, PIECE_BYTES)).toEqual(payload.subarray(0, PIECE_BYTES));
  });

  test("writes that complete before the hash is known do not make it have", () => {
    receiveWhole(0);
    completeWrites();
    expect(verified).toEqual([]);
    turn();
    turn();
    expect(verified).toEqual([0]);
  });

  test("blocks out of order are held back and hashed in order", () => {
    receiveWhole(2, (blocks) => [...blocks].reverse());
    turn();
    turn();
    expect(verified).toEqual([2]);
    expect(disk.subarray(2 * PIECE_BYTES)).toEqual(payload.subarray(2 * PIECE_BYTES));
  });

  test("a hasher that is full is tried again", () => {
    hasher.room = 1;
    receiveWhole(1);
    for (let i = 0; i < 40; i++) turn();
    expect(verified).toEqual([1]);
  });

  test("a wrong byte fails the piece and its slabs serve nobody; the piece can be received again", () => {
    receiveWhole(0, undefined, 3 * BLOCK_BYTES);
    turn();
    turn();
    expect(failed).toEqual([0]);
    expect(verified).toEqual([]);
    expect([pool.find(0, 0), pool.find(0, 1)]).toEqual([-1, -1]);
    expect(pool.available).toBe(SLABS);
    receiveWhole(0);
    turn();
    turn();
    expect(verified).toEqual([0]);
  });

  test("a discarded piece ends when nothing of it is pending, and frees its memory", () => {
    for (let begin = 0; begin < SLAB_BYTES + BLOCK_BYTES; begin += BLOCK_BYTES) receive(0, begin, BLOCK_BYTES);
    intake.discard(0);
    expect(intake.active).toBe(1);
    expect(intake.reserve(0, 0)).toBe(false);
    turn();
    expect(intake.active).toBe(0);
    expect(pool.available).toBe(SLABS);
    expect(intake.takeRelief()).toBe(true);
    expect(intake.takeRelief()).toBe(false);
    receiveWhole(0);
    turn();
    turn();
    expect(verified).toEqual([0]);
  });

  test("without a context or a slab a reserve is turned down, and relief follows", () => {
    receive(0, 0, BLOCK_BYTES);
    receive(1, 0, BLOCK_BYTES);
    expect(intake.reserve(2, 0)).toBe(false);
    expect(intake.takeRelief()).toBe(false);
    intake.discard(0);
    turn();
    expect(intake.takeRelief()).toBe(true);
    expect(intake.reserve(2, 0)).toBe(true);
  });

  test("a verified piece stays in the cache until its slabs are needed", () => {
    receiveWhole(0);
    turn();
    turn();
    expect(pool.isValid(pool.find(0, 0))).toBe(true);
    receiveWhole(1);
    turn();
    turn();
    receiveWhole(2);
    turn();
    turn();
    expect(verified).toEqual([0, 1, 2]);
    expect(pool.find(0, 0)).toBe(-1);
  });
});
