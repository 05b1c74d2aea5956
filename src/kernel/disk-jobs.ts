/**
 * The job board between an epoll reactor and its disk threads: shared memory, no messages.
 *
 * Invariants:
 * - A job slot belongs to the reactor until its index is published in the submission ring, then to the one
 *   thread that took it, and to the reactor again when its index is in the completion ring.
 * - Both rings have as many places as there are slots, so they never overflow.
 * - Cursors run modulo 2^32. Threads take jobs by compare-and-swap of `taken`; an entry is overwritten
 *   only a whole ring later, which the compare-and-swap would notice.
 */

export const JobKind = { read: 0, write: 1, fallocate: 2, sync: 3 } as const;
export type JobKind = (typeof JobKind)[keyof typeof JobKind];

/** Jobs given out at once; more wait in the reactor. Deep enough for any disk that needs threads. */
export const JOBS_MAX = 256;

const CONTROL_WORDS = 8;
const SUBMITTED = 0;
const TAKEN = 1;
const COMPLETED = 2;
const OWNER_ASLEEP = 3;
const CLOSING = 4;
const READY = 5;
const ENDED = 6;

const NUMBERS_PER_JOB = 3;
const WORDS_PER_JOB = 4;
const SUBMISSIONS_AT = CONTROL_WORDS;
const COMPLETIONS_AT = SUBMISSIONS_AT + JOBS_MAX;
const WORDS_AT = COMPLETIONS_AT + JOBS_MAX;
const WORDS_TOTAL = WORDS_AT + JOBS_MAX * WORDS_PER_JOB;
const NUMBERS_OFFSET_BYTES = Math.ceil(WORDS_TOTAL / 2) * 8;
const BOARD_BYTES = NUMBERS_OFFSET_BYTES + JOBS_MAX * NUMBERS_PER_JOB * 8;

/** What a disk thread is started with. */
export interface DiskWorkerData {
  readonly board: SharedArrayBuffer;
  readonly wakeFd: number;
}

export class JobBoard {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** Address, length and offset of each job, in bytes. */
  readonly #numbers: Float64Array;
  /** The reactor's own cursor of the completion ring. */
  #collected = 0;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(BOARD_BYTES)) {
    this.shared = shared;
    this.#words = new Int32Array(shared, 0, WORDS_TOTAL);
    this.#numbers = new Float64Array(shared, NUMBERS_OFFSET_BYTES, JOBS_MAX * NUMBERS_PER_JOB);
  }

  // The reactor's side

  submit(
    slot: number,
    kind: JobKind,
    fd: number,
    address: number,
    lengthBytes: number,
    offsetBytes: number,
    mode: number,
  ): void {
    const word = WORDS_AT + slot * WORDS_PER_JOB;
    this.#words[word] = kind;
    this.#words[word + 1] = fd;
    this.#words[word + 2] = mode;
    const number = slot * NUMBERS_PER_JOB;
    this.#numbers[number] = address;
    this.#numbers[number + 1] = lengthBytes;
    this.#numbers[number + 2] = offsetBytes;
    const cursor = this.#words[SUBMITTED];
    Atomics.store(this.#words, SUBMISSIONS_AT + (cursor & (JOBS_MAX - 1)), slot);
    Atomics.store(this.#words, SUBMITTED, (cursor + 1) | 0);
    Atomics.notify(this.#words, SUBMITTED, 1);
  }

  /** The slot of a job that is done, or -1. Its result is valid until the slot is submitted again. */
  collect(): number {
    const place = COMPLETIONS_AT + (this.#collected & (JOBS_MAX - 1));
    const slot = Atomics.exchange(this.#words, place, 0) - 1;
    if (slot >= 0) this.#collected++;
    return slot;
  }

  get hasCompletions(): boolean {
    return Atomics.load(this.#words, COMPLETIONS_AT + (this.#collected & (JOBS_MAX - 1))) !== 0;
  }

  result(slot: number): number {
    return this.#words[WORDS_AT + slot * WORDS_PER_JOB + 3];
  }

  /** While true, the thread that completes a job rings the eventfd. Look at `hasCompletions` after setting it. */
  setOwnerAsleep(asleep: boolean): void {
    Atomics.store(this.#words, OWNER_ASLEEP, asleep ? 1 : 0);
  }

  get threadsReady(): number {
    return Atomics.load(this.#words, READY);
  }

  /** Tells the threads to end. Returns whether `threads` of them did within `timeoutMs`. */
  end(threads: number, timeoutMs: number): boolean {
    Atomics.store(this.#words, CLOSING, 1);
    // The threads sleep on the submission cursor: a job that is none wakes them.
    Atomics.add(this.#words, SUBMITTED, 1);
    Atomics.notify(this.#words, SUBMITTED);
    for (let ended = Atomics.load(this.#words, ENDED); ended < threads; ended = Atomics.load(this.#words, ENDED)) {
      if (Atomics.wait(this.#words, ENDED, ended, timeoutMs) === "timed-out") return false;
    }
    return true;
  }

  // A thread's side

  announceReady(): void {
    Atomics.add(this.#words, READY, 1);
  }

  announceEnded(): void {
    Atomics.add(this.#words, ENDED, 1);
    Atomics.notify(this.#words, ENDED);
  }

  /** Waits for a job. Returns its slot, or -1 when the board is closed. */
  take(): number {
    const words = this.#words;
    for (;;) {
      const cursor = Atomics.load(words, TAKEN);
      const submitted = Atomics.load(words, SUBMITTED);
      if (Atomics.load(words, CLOSING) === 1) return -1;
      if (cursor === submitted) {
        Atomics.wait(words, SUBMITTED, submitted);
        continue;
      }
      const slot = Atomics.load(words, SUBMISSIONS_AT + (cursor & (JOBS_MAX - 1)));
      if (Atomics.compareExchange(words, TAKEN, cursor, (cursor + 1) | 0) === cursor) return slot;
    }
  }

  kind(slot: number): JobKind {
    return this.#words[WORDS_AT + slot * WORDS_PER_JOB] as JobKind;
  }
  fd(slot: number): number {
    return this.#words[WORDS_AT + slot * WORDS_PER_JOB + 1];
  }
  mode(slot: number): number {
    return this.#words[WORDS_AT + slot * WORDS_PER_JOB + 2];
  }
  address(slot: number): number {
    return this.#numbers[slot * NUMBERS_PER_JOB];
  }
  lengthBytes(slot: number): number {
    return this.#numbers[slot * NUMBERS_PER_JOB + 1];
  }
  offsetBytes(slot: number): number {
    return this.#numbers[slot * NUMBERS_PER_JOB + 2];
  }

  /** Hands a job back. Returns whether the reactor sleeps and has to be woken by the caller. */
  complete(slot: number, result: number): boolean {
    this.#words[WORDS_AT + slot * WORDS_PER_JOB + 3] = result;
    const cursor = Atomics.add(this.#words, COMPLETED, 1);
    Atomics.store(this.#words, COMPLETIONS_AT + (cursor & (JOBS_MAX - 1)), slot + 1);
    return Atomics.exchange(this.#words, OWNER_ASLEEP, 0) === 1;
  }
}
