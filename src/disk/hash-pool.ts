/**
 * Hashing on worker threads, and the choice between them and hashing inline.
 *
 * Contexts are spread round robin over the workers and stay with theirs. Each worker has its own job ring,
 * so no lock is taken anywhere; the reactor is woken through an eventfd only when it says it sleeps. The
 * memory region belongs to the caller, who keeps it mapped until `close` has returned. The threads start with
 * the first job: a node's first requests are out before it spends time on them.
 */
import { availableParallelism } from "node:os";
import { assert } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import type { Address } from "../kernel/reactor.ts";
import { startWorker } from "../kernel/threads.ts";
import { InlineHasher } from "./hash-inline.ts";
import { HashRing, JOB_TAG_MAX, JobKind, RING_SLOTS } from "./hash-ring.ts";
import { DIGEST_BYTES, type HashAlgorithm, type HashHandler, type Hasher, type PackHandler } from "./hasher.ts";

/** What a worker is told when it starts. */
export interface HashWorkerStart {
  readonly ring: SharedArrayBuffer;
  readonly address: Address;
  readonly lengthBytes: number;
  readonly wakeFd: number;
  readonly algorithm: HashAlgorithm;
}

export interface HasherOptions {
  /** The memory that all updates lie in. */
  readonly address: Address;
  readonly lengthBytes: number;
  readonly contextsMax: number;
  /** Worker threads; "auto": one per core beside the reactor's, none on a machine with one core. */
  readonly workers: "auto" | number;
  /** Default sha1, what pieces are hashed with (BEP 3). */
  readonly algorithm?: HashAlgorithm;
}

/** Four workers hash 8 GiB/s, more than any network or disk of a node delivers. */
const WORKERS_MAX = 4;

/** Opens a hasher over a memory region: with worker threads, or inline where there is one core. */
export function openHasher(options: HasherOptions): Hasher {
  assert(options.contextsMax > 0, "a hasher has at least one context");
  const wanted = options.workers === "auto" ? Math.min(availableParallelism() - 1, WORKERS_MAX) : options.workers;
  const workers = Math.min(wanted, options.contextsMax);
  return workers > 0 ? new HashPool(options, workers) : new InlineHasher(options);
}

class HashPool implements Hasher {
  readonly contextsMax: number;
  readonly wakeFd: number;
  readonly #regionStart: Address;
  readonly #regionBytes: number;
  readonly #digestBytes: number;
  readonly #rings: HashRing[] = [];
  readonly #starts: HashWorkerStart[] = [];
  readonly #threads: Worker[] = [];
  /** Owner's cursors of each ring, modulo 2^32. */
  readonly #submitted: Int32Array;
  readonly #reported: Int32Array;
  readonly #beginDue: Uint8Array;
  readonly #pending: Int32Array;
  readonly #wake = EventFd.create();
  #asleep = false;
  /** The owner was asleep since the last drain, so the eventfd may be readable. */
  #slept = false;

  constructor(
    options: HasherOptions,
    readonly workers: number,
  ) {
    const algorithm = options.algorithm ?? "sha1";
    this.contextsMax = options.contextsMax;
    this.#regionStart = options.address;
    this.#regionBytes = options.lengthBytes;
    this.#digestBytes = DIGEST_BYTES[algorithm];
    this.#submitted = new Int32Array(workers);
    this.#reported = new Int32Array(workers);
    this.#beginDue = new Uint8Array(options.contextsMax).fill(1);
    this.#pending = new Int32Array(options.contextsMax);
    this.wakeFd = this.#wake.fd;
    for (let i = 0; i < workers; i++) {
      const ring = new HashRing();
      const { address, lengthBytes } = options;
      this.#starts.push({ ring: ring.shared, address, lengthBytes, wakeFd: this.wakeFd, algorithm });
      this.#rings.push(ring);
    }
  }

  begin(context: number): void {
    assert(this.#pending[context] === 0, "a hash context is begun while nothing of it is pending");
    this.#beginDue[context] = 1;
  }

  update(context: number, address: Address, lengthBytes: number): boolean {
    return this.#submit(context, JobKind.update, this.#offset(address, lengthBytes), lengthBytes);
  }

  finish(context: number): boolean {
    return this.#submit(context, JobKind.finish, 0, 0);
  }

  pack(tag: number, source: Address, lengthBytes: number, target: Address, roomBytes: number): boolean {
    return this.#submitPacking(JobKind.pack, tag, source, lengthBytes, target, roomBytes);
  }

  unpack(tag: number, source: Address, packedBytes: number, target: Address, lengthBytes: number): boolean {
    return this.#submitPacking(JobKind.unpack, tag, source, packedBytes, target, lengthBytes);
  }

  /** Goes to the worker with least to do. */
  #submitPacking(
    kind: JobKind,
    tag: number,
    source: Address,
    sourceBytes: number,
    target: Address,
    targetBytes: number,
  ): boolean {
    assert(tag >= 0 && tag <= JOB_TAG_MAX, "a tag fits its job");
    this.#startThreads();
    let worker = 0;
    for (let other = 1; other < this.workers; other++) if (this.#queued(other) < this.#queued(worker)) worker = other;
    if (this.#queued(worker) === RING_SLOTS) return false;
    const cursor = this.#submitted[worker];
    const ring = this.#rings[worker];
    ring.setTarget(cursor, this.#offset(target, targetBytes), targetBytes);
    ring.submit(cursor, kind, false, tag, this.#offset(source, sourceBytes), sourceBytes);
    this.#submitted[worker] = cursor + 1;
    return true;
  }

  /** They start with the first job. */
  #startThreads(): void {
    if (this.#threads.length > 0) return;
    for (const start of this.#starts) this.#threads.push(startWorker("disk/hash-worker", start));
  }

  /** Jobs of a worker that were not reported yet. */
  #queued(worker: number): number {
    return (this.#submitted[worker] - this.#reported[worker]) | 0;
  }

  #offset(address: Address, lengthBytes: number): number {
    const offset = address - this.#regionStart;
    assert(
      lengthBytes > 0 && offset >= 0 && offset + lengthBytes <= this.#regionBytes,
      "the bytes of a job lie in the region",
    );
    return offset;
  }

  #submit(context: number, kind: JobKind, offsetBytes: number, lengthBytes: number): boolean {
    assert(context >= 0 && context < this.contextsMax, "a hash context exists");
    this.#startThreads();
    const worker = context % this.workers;
    const cursor = this.#submitted[worker];
    if (this.#queued(worker) === RING_SLOTS) return false;
    this.#rings[worker].submit(cursor, kind, this.#beginDue[context] === 1, context, offsetBytes, lengthBytes);
    this.#beginDue[context] = kind === JobKind.finish ? 1 : 0;
    this.#pending[context]++;
    this.#submitted[worker] = cursor + 1;
    return true;
  }

  drain(handler: HashHandler, packs?: PackHandler): number {
    if (this.#slept) this.#wake.reset();
    this.#slept = this.#asleep;
    let reports = 0;
    for (let worker = 0; worker < this.workers; worker++) {
      // A worker rings once per sleep: what was just silenced must ring again for jobs completed from here on.
      if (this.#asleep) this.#rings[worker].setOwnerAsleep(true);
      reports += this.#drainRing(worker, handler, packs);
    }
    return reports;
  }

  #drainRing(worker: number, handler: HashHandler, packs: PackHandler | undefined): number {
    const ring = this.#rings[worker];
    assert(!ring.failed, "no hash worker fails");
    const end = ring.completed();
    let reports = 0;
    while (this.#reported[worker] !== end) {
      const cursor = this.#reported[worker];
      this.#report(ring, cursor, handler, packs);
      this.#reported[worker] = cursor + 1;
      reports++;
    }
    return reports;
  }

  #report(ring: HashRing, cursor: number, handler: HashHandler, packs: PackHandler | undefined): void {
    const context = ring.context(cursor);
    switch (ring.kind(cursor)) {
      case JobKind.update:
        this.#pending[context]--;
        return handler.updated(context, ring.lengthBytes(cursor));
      case JobKind.finish:
        this.#pending[context]--;
        return handler.finished(context, ring.digest(cursor).subarray(0, this.#digestBytes));
      case JobKind.pack:
        return packs?.packed(context, ring.result(cursor));
      case JobKind.unpack:
        return packs?.unpacked(context, ring.result(cursor) === 1);
    }
  }

  sleeping(asleep: boolean): void {
    this.#asleep = asleep;
    if (asleep) this.#slept = true;
    let unreported = false;
    for (let worker = 0; worker < this.workers; worker++) {
      this.#rings[worker].setOwnerAsleep(asleep);
      // A job that was completed between the last drain and the line above saw an owner awake.
      if (asleep && this.#rings[worker].completed() !== this.#reported[worker]) unreported = true;
    }
    if (unreported) this.#wake.signal();
  }

  close(): void {
    if (this.#threads.length > 0) {
      for (const ring of this.#rings) ring.close();
      for (const ring of this.#rings) assert(ring.waitForEnd(), "a hash worker ends when it is asked to");
      for (const thread of this.#threads) thread.terminate();
    }
    this.#wake.close();
  }
}
