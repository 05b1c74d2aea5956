/**
 * Hashing on worker threads, or in the thread of the owner on a machine with one core, where a second one would only add
 * switches.
 *
 * Contexts are spread round robin over the workers and stay with theirs. Each worker has its own job ring,
 * so no lock is taken anywhere; the reactor is woken through an eventfd only when it says it sleeps. Without workers there is
 * one ring all the same, and `drain` does what is in it: what one turn of the reactor asked for is hashed side by side. The
 * memory region belongs to the caller, who keeps it mapped until `close` has returned. The threads start with
 * the first job: a node's first requests are out before it spends time on them.
 */
import { availableParallelism } from "node:os";
import { assert } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import type { Address } from "../kernel/reactor.ts";
import { startWorker } from "../kernel/threads.ts";
import { HashJobs, type HashJobsOptions } from "./hash-jobs.ts";
import { HashRing, JOB_TAG_MAX, JobKind, RING_SLOTS } from "./hash-ring.ts";
import { DIGEST_BYTES, type HashAlgorithm, type HashHandler, type Hasher, type PackHandler } from "./hasher.ts";

/** What a worker is told when it starts. */
export interface HashWorkerStart extends HashJobsOptions {
  readonly ring: SharedArrayBuffer;
  readonly givesWay: boolean;
  readonly wakeFd: number;
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
  /** Default true: several contexts at a time, where processor and algorithm are such that it can be done. */
  readonly sideBySide?: boolean;
  /**
   * Default false: workers give way to all else that wants a core. For an owner that goes on meanwhile: what is queued then
   * is hashed side by side, for half of the time (see docs/decisions/0024).
   */
  readonly givesWay?: boolean;
}

/** Four workers hash 8 GiB/s, more than any network or disk of a node delivers. */
const WORKERS_MAX = 4;

/** Opens a hasher over a memory region: with worker threads, or inline where there is one core. */
export function openHasher(options: HasherOptions): Hasher {
  assert(options.contextsMax > 0, "a hasher has at least one context");
  const wanted = options.workers === "auto" ? Math.min(availableParallelism() - 1, WORKERS_MAX) : options.workers;
  const workers = Math.min(wanted, options.contextsMax);
  return new HashPool(options, Math.max(workers, 0));
}

class HashPool implements Hasher {
  readonly contextsMax: number;
  readonly wakeFd: number;
  readonly #regionStart: Address;
  readonly #regionBytes: number;
  readonly #digestBytes: number;
  readonly #rings: HashRing[] = [];
  readonly #jobs: HashJobsOptions;
  readonly #givesWay: boolean;
  /** What does the jobs in this thread, made with the first one; null where there are workers. */
  #inline: HashJobs | null = null;
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
    const { address, lengthBytes, contextsMax, sideBySide = true, givesWay = false } = options;
    this.#givesWay = givesWay;
    this.#jobs = { address, lengthBytes, contextsMax, algorithm, sideBySide };
    for (let ring = 0; ring < Math.max(workers, 1); ring++) this.#rings.push(new HashRing());
    this.#submitted = new Int32Array(this.#rings.length);
    this.#reported = new Int32Array(this.#rings.length);
    this.#beginDue = new Uint8Array(options.contextsMax).fill(1);
    this.#pending = new Int32Array(options.contextsMax);
    this.wakeFd = this.#wake.fd;
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

  /** Goes to the ring with least to do. */
  #submitPacking(
    kind: JobKind,
    tag: number,
    source: Address,
    sourceBytes: number,
    target: Address,
    targetBytes: number,
  ): boolean {
    assert(tag >= 0 && tag <= JOB_TAG_MAX, "a tag fits its job");
    let index = 0;
    for (let other = 1; other < this.#rings.length; other++)
      if (this.#queued(other) < this.#queued(index)) index = other;
    if (this.#queued(index) === RING_SLOTS) return false;
    this.#rings[index].setTarget(this.#submitted[index], this.#offset(target, targetBytes), targetBytes);
    this.#put(index, kind, false, tag, this.#offset(source, sourceBytes), sourceBytes);
    return true;
  }

  /** Puts a job into a ring that has room. */
  #put(index: number, kind: JobKind, begins: boolean, context: number, offsetBytes: number, lengthBytes: number): void {
    this.#start();
    const cursor = this.#submitted[index];
    this.#rings[index].submit(cursor, kind, begins, context, offsetBytes, lengthBytes);
    this.#submitted[index] = cursor + 1;
    // Nobody else does it while the owner sleeps.
    if (this.#asleep && this.#inline !== null && this.#queued(index) === 1) this.#wake.signal();
  }

  /** What does the jobs starts with the first one. */
  #start(): void {
    if (this.#inline !== null || this.#threads.length > 0) return;
    if (this.workers === 0) this.#inline = new HashJobs(this.#rings[0], this.#jobs);
    else for (const ring of this.#rings) this.#threads.push(startWorker("disk/hash-worker", this.#startOf(ring)));
  }

  #startOf(ring: HashRing): HashWorkerStart {
    return { ...this.#jobs, ring: ring.shared, wakeFd: this.wakeFd, givesWay: this.#givesWay };
  }

  /** Jobs of a ring that were not reported yet. */
  #queued(index: number): number {
    return (this.#submitted[index] - this.#reported[index]) | 0;
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
    const index = context % this.#rings.length;
    if (this.#queued(index) === RING_SLOTS) return false;
    this.#put(index, kind, this.#beginDue[context] === 1, context, offsetBytes, lengthBytes);
    this.#beginDue[context] = kind === JobKind.finish ? 1 : 0;
    this.#pending[context]++;
    return true;
  }

  drain(handler: HashHandler, packs?: PackHandler): number {
    if (this.#slept) this.#wake.reset();
    this.#slept = this.#asleep;
    if (this.#inline !== null) while (this.#inline.work(this.#wake));
    let reports = 0;
    for (let index = 0; index < this.#rings.length; index++) {
      // A worker rings once per sleep: what was just silenced must ring again for jobs completed from here on.
      if (this.#asleep && this.workers > 0) this.#rings[index].setOwnerAsleep(true);
      reports += this.#drainRing(index, handler, packs);
    }
    // What the handler asked for.
    if (this.#asleep && this.#inline !== null && this.#queued(0) > 0) this.#wake.signal();
    return reports;
  }

  #drainRing(index: number, handler: HashHandler, packs: PackHandler | undefined): number {
    const ring = this.#rings[index];
    assert(!ring.failed, "no hash worker fails");
    const end = ring.completed();
    let reports = 0;
    while (this.#reported[index] !== end) {
      const cursor = this.#reported[index];
      this.#report(ring, cursor, handler, packs);
      this.#reported[index] = cursor + 1;
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
    let isDue = false;
    for (let index = 0; index < this.#rings.length; index++) {
      // Without workers the owner is never asleep while jobs are done.
      if (this.workers > 0) this.#rings[index].setOwnerAsleep(asleep);
      // A job that was completed between the last drain and the line above saw an owner awake.
      const done = this.workers > 0 ? this.#rings[index].completed() : this.#submitted[index];
      if (asleep && done !== this.#reported[index]) isDue = true;
    }
    if (isDue) this.#wake.signal();
  }

  close(): void {
    if (this.#threads.length > 0) {
      for (const ring of this.#rings) ring.close();
      for (const ring of this.#rings) assert(ring.waitForEnd(), "a hash worker ends when it is asked to");
      for (const thread of this.#threads) thread.terminate();
    }
    this.#inline?.free();
    this.#wake.close();
  }
}
