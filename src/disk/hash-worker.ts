/**
 * A hash worker: takes jobs from its ring, hashes, packs or inflates memory of the region in place, and says so.
 *
 * Every context belongs to one worker, so its SHA state is a local object and its updates stay in order.
 * The memory region belongs to the owner of the pool and stays mapped until the worker has ended.
 */
import { workerData } from "node:worker_threads";
import { assert } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import { bufferAt } from "../kernel/libc.ts";
import type { HashWorkerStart } from "./hash-pool.ts";
import { HashRing, JobKind } from "./hash-ring.ts";
import { PieceHash } from "./piece-hash.ts";
import { Zstd } from "./zstd.ts";

/** Looks at an empty ring before sleeping: some 10 microseconds, less than a wake-up costs. */
const SPINS = 1000;

/** Runs until the owner closes the ring. A failure is told to the owner, who waits without an event loop, and thrown on. */
function main(start: HashWorkerStart): void {
  const ring = new HashRing(start.ring);
  const wake = EventFd.of(start.wakeFd);
  try {
    hashUntilClosed(ring, wake, start);
  } catch (error) {
    ring.fail();
    wake.signal();
    throw error;
  } finally {
    ring.end();
  }
}

/** 64 MiB in blocks of 16 KiB. */
const VIEWS_MAX = 4096;

function hashUntilClosed(ring: HashRing, wake: EventFd, start: HashWorkerStart): void {
  const region = new Region(bufferAt(start.address, start.lengthBytes));
  const hashers = new Map<number, ContextHasher>();
  const zstd = new Zstd();
  for (let cursor = 0; ; cursor = (cursor + 1) | 0) {
    awaitJob(ring, cursor);
    if (ring.closing) return;
    if (ring.kind(cursor) >= JobKind.pack) runPacking(ring, cursor, region.buffer, zstd);
    else runJob(ring, cursor, region, hashers, start.algorithm);
    if (ring.complete(cursor)) wake.signal();
  }
}

/** A context's hash: native memory that the collector hardly sees, so it is made once and not for each piece. */
interface ContextHasher {
  /** It was fed since it was made or since its last digest. */
  isUsed: boolean;
  readonly hash: PieceHash;
}

function awaitJob(ring: HashRing, cursor: number): void {
  for (let spin = 0; spin < SPINS; spin++) {
    if (ring.submitted() !== cursor) return;
  }
  while (ring.submitted() === cursor && !ring.closing) ring.waitForJob(cursor);
}

function runJob(
  ring: HashRing,
  cursor: number,
  region: Region,
  hashers: Map<number, ContextHasher>,
  algorithm: HashWorkerStart["algorithm"],
): void {
  const context = ring.context(cursor);
  let hasher = hashers.get(context);
  // A digest resets its hasher, so it serves the context's next piece; one that was given up half way does not.
  if (ring.begins(cursor) && (hasher === undefined || hasher.isUsed)) {
    hasher = { isUsed: false, hash: new PieceHash(algorithm) };
    hashers.set(context, hasher);
  }
  assert(hasher, "a hash context is begun before it is used");
  if (ring.kind(cursor) === JobKind.update) {
    hasher.isUsed = true;
    hasher.hash.update(region.view(ring.offsetBytes(cursor), ring.lengthBytes(cursor)));
  } else {
    hasher.hash.digest(ring.digest(cursor));
    hasher.isUsed = false;
  }
}

function runPacking(ring: HashRing, cursor: number, buffer: ArrayBuffer, zstd: Zstd): void {
  const source = new Uint8Array(buffer, ring.offsetBytes(cursor), ring.lengthBytes(cursor));
  const target = new Uint8Array(buffer, ring.targetBytes(cursor), ring.roomBytes(cursor));
  const isPack = ring.kind(cursor) === JobKind.pack;
  ring.setResult(cursor, isPack ? zstd.pack(source, target) : Number(zstd.unpack(source, target)));
}

/** Views of the region by where they begin: blocks land at the same places again and again, so jobs make no garbage. */
class Region {
  readonly #views = new Map<number, Uint8Array>();

  constructor(readonly buffer: ArrayBuffer) {}

  view(offsetBytes: number, lengthBytes: number): Uint8Array {
    let view = this.#views.get(offsetBytes);
    if (view?.length !== lengthBytes) {
      if (this.#views.size >= VIEWS_MAX) this.#views.clear();
      view = new Uint8Array(this.buffer, offsetBytes, lengthBytes);
      this.#views.set(offsetBytes, view);
    }
    return view;
  }
}

main(workerData as HashWorkerStart);
