/**
 * The job ring between the thread that owns a hasher and one hash worker.
 *
 * Single producer, single consumer. One ring serves both directions: jobs are reported in the order of submission,
 * so a completion is nothing but the worker's cursor moving on over jobs that are done, and a digest lies in the slot of
 * the job that asked for it. A slot is reused only after it was reported.
 *
 * The shared buffer is owned by the hash pool; both threads wrap it in a `HashRing` of their own.
 */

/** Jobs between submission and report, per worker: 1024 updates of 256 KiB are more than any slab pool holds. */
export const RING_SLOTS = 1024;
const SLOT_MASK = RING_SLOTS - 1;
/** Largest digest (SHA-1 and SHA-256). */
export const DIGEST_BYTES_MAX = 52;

/** Words of the control area. Each side's cursor has a cache line of its own. */
const Word = {
  submitted: 0,
  workerAsleep: 1,
  completed: 16,
  ended: 17,
  failed: 18,
  ownerAsleep: 32,
  closing: 33,
} as const;
const CONTROL_WORDS = 48;
/** A worker ends after the update it is in, which takes milliseconds. */
const END_TIMEOUT_MS = 30_000;

export function slotOf(cursor: number): number {
  return cursor & SLOT_MASK;
}

export const enum JobKind {
  update = 0,
  finish = 1,
  pack = 2,
  unpack = 3,
}

/** The largest context or tag of a job: what is left of a word above kind and begin. */
export const JOB_TAG_MAX = 2 ** 28 - 1;

export class HashRing {
  readonly #control: Int32Array;
  /** kind | begin << 2 | context << 3, per slot. */
  readonly #job: Int32Array;
  readonly #lengthBytes: Int32Array;
  /** Offset of the bytes in the memory region, per slot. */
  readonly #offsetBytes: Float64Array;
  /** Packing and inflating: where to, how much room there is, and what came of it. */
  readonly #targetBytes: Float64Array;
  readonly #roomBytes: Int32Array;
  readonly #result: Int32Array;
  readonly #digests: Uint8Array;
  readonly #digestViews: Uint8Array[] = [];

  constructor(readonly shared: SharedArrayBuffer = new SharedArrayBuffer(HashRing.sharedBytes)) {
    let at = 0;
    this.#control = new Int32Array(shared, at, CONTROL_WORDS);
    at += CONTROL_WORDS * 4;
    this.#offsetBytes = new Float64Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 8;
    this.#targetBytes = new Float64Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 8;
    this.#roomBytes = new Int32Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 4;
    this.#result = new Int32Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 4;
    this.#job = new Int32Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 4;
    this.#lengthBytes = new Int32Array(shared, at, RING_SLOTS);
    at += RING_SLOTS * 4;
    this.#digests = new Uint8Array(shared, at, RING_SLOTS * DIGEST_BYTES_MAX);
    for (let slot = 0; slot < RING_SLOTS; slot++) {
      this.#digestViews.push(this.#digests.subarray(slot * DIGEST_BYTES_MAX, (slot + 1) * DIGEST_BYTES_MAX));
    }
  }

  static readonly sharedBytes = CONTROL_WORDS * 4 + RING_SLOTS * (2 * 8 + 4 * 4 + DIGEST_BYTES_MAX);

  kind(cursor: number): JobKind {
    return this.#job[slotOf(cursor)] & 3;
  }

  /** True where the job starts its context anew. */
  begins(cursor: number): boolean {
    return (this.#job[slotOf(cursor)] & 4) !== 0;
  }

  /** The context of a hash, the tag of a block to pack or inflate. */
  context(cursor: number): number {
    return this.#job[slotOf(cursor)] >> 3;
  }

  targetBytes(cursor: number): number {
    return this.#targetBytes[slotOf(cursor)];
  }

  roomBytes(cursor: number): number {
    return this.#roomBytes[slotOf(cursor)];
  }

  result(cursor: number): number {
    return this.#result[slotOf(cursor)];
  }

  /** Worker: what came of packing or inflating, before the job is completed. */
  setResult(cursor: number, result: number): void {
    this.#result[slotOf(cursor)] = result;
  }

  /** Owner: says where a job packs or inflates to, before it is submitted at the same cursor. */
  setTarget(cursor: number, offsetBytes: number, roomBytes: number): void {
    this.#targetBytes[slotOf(cursor)] = offsetBytes;
    this.#roomBytes[slotOf(cursor)] = roomBytes;
  }

  lengthBytes(cursor: number): number {
    return this.#lengthBytes[slotOf(cursor)];
  }

  offsetBytes(cursor: number): number {
    return this.#offsetBytes[slotOf(cursor)];
  }

  /** The digest area of a slot, DIGEST_BYTES_MAX long. */
  digest(cursor: number): Uint8Array {
    return this.#digestViews[slotOf(cursor)];
  }

  /** Owner: fills the slot of the next job and publishes it. The caller has checked that there is room. */
  submit(
    cursor: number,
    kind: JobKind,
    begins: boolean,
    context: number,
    offsetBytes: number,
    lengthBytes: number,
  ): void {
    const slot = slotOf(cursor);
    this.#job[slot] = (context << 3) | (begins ? 4 : 0) | kind;
    this.#offsetBytes[slot] = offsetBytes;
    this.#lengthBytes[slot] = lengthBytes;
    Atomics.store(this.#control, Word.submitted, (cursor + 1) | 0);
    if (Atomics.load(this.#control, Word.workerAsleep) === 1) Atomics.notify(this.#control, Word.submitted, 1);
  }

  /** Cursor behind the last submitted job, modulo 2^32. */
  submitted(): number {
    return Atomics.load(this.#control, Word.submitted);
  }

  /** Worker: jobs from `cursor` on. None where the ring closes, whose last one is no job. */
  queued(cursor: number): number {
    const jobs = (this.submitted() - cursor) | 0;
    return this.closing ? 0 : jobs;
  }

  /** Cursor behind the last completed job, modulo 2^32. */
  completed(): number {
    return Atomics.load(this.#control, Word.completed);
  }

  /** Worker: all jobs before `cursor` are done. Returns true once per sleep of the owner: it must be woken. */
  complete(cursor: number): boolean {
    Atomics.store(this.#control, Word.completed, cursor);
    if (Atomics.load(this.#control, Word.ownerAsleep) === 0) return false;
    return Atomics.compareExchange(this.#control, Word.ownerAsleep, 1, 0) === 1;
  }

  /** Worker: sleeps until the cursor of submission is another than `cursor` or the ring closes. */
  waitForJob(cursor: number): void {
    Atomics.store(this.#control, Word.workerAsleep, 1);
    if (!this.closing) Atomics.wait(this.#control, Word.submitted, cursor);
    Atomics.store(this.#control, Word.workerAsleep, 0);
  }

  get closing(): boolean {
    return Atomics.load(this.#control, Word.closing) === 1;
  }

  /** Owner: says whether it is about to sleep. */
  setOwnerAsleep(asleep: boolean): void {
    Atomics.store(this.#control, Word.ownerAsleep, asleep ? 1 : 0);
  }

  /**
   * Owner: the worker ends before its next job. Moving the submission cursor by a job that is never run
   * is what makes a worker that is just about to sleep see the change.
   */
  close(): void {
    Atomics.store(this.#control, Word.closing, 1);
    Atomics.add(this.#control, Word.submitted, 1);
    Atomics.notify(this.#control, Word.submitted, 1);
  }

  /** Worker: an assertion of it failed; nothing more is completed. */
  fail(): void {
    Atomics.store(this.#control, Word.failed, 1);
  }

  get failed(): boolean {
    return Atomics.load(this.#control, Word.failed) === 1;
  }

  /** Worker: will touch neither the ring nor the region again. */
  end(): void {
    Atomics.store(this.#control, Word.ended, 1);
    Atomics.notify(this.#control, Word.ended, 1);
  }

  /** Owner: after `close`, waits until the worker has ended. False where it does not. */
  waitForEnd(): boolean {
    return Atomics.wait(this.#control, Word.ended, 0, END_TIMEOUT_MS) !== "timed-out";
  }
}
