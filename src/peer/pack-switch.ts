/**
 * Whether blocks are packed at all: only while the line is what everything waits for.
 *
 * Packing turns processor time into line time. It is begun when the line is busy (the socket still holds bytes of
 * before whenever more are to be sent) and so slow that the packing threads can fill it with packed blocks. It is ended
 * when they cannot: when they were at work nearly all the time and sockets ran empty waiting for them. Each such end makes
 * the next try later, so that a wrong beginning costs little.
 */
import { MiB } from "../units.ts";

/** A verdict needs this long and this many looks: the first comes before a line of 100 Mbit/s has sent 2 MB. */
const WINDOW_MS = 100;
const LOOKS_MIN = 4;
/** Packed bytes per second that one thread makes of files of an operating system (2:1), with a little to spare. */
const THREAD_BYTES_PER_SECOND = 128 * MiB;
/** Where there is no thread for it, the reactor's own has other things to do as well. */
const THREADS_MIN = 0.25;
/** The line is busy when it was so at this share of the looks. */
const BUSY_SHARE_MIN = 0.5;
/** Packing is too slow when a socket was empty for its sake at more than this share of the looks, while it was at work for this share of the time. */
const EMPTY_SHARE_MAX = 0.25;
const WORK_SHARE_MIN = 0.7;
/** How long packing stays off after it was too slow; doubles each time up to the second. */
const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 64_000;

export class PackSwitch {
  isOn = false;
  readonly #lineMax: number;
  #startMs = -1;
  #startWorkMs = 0;
  #looks = 0;
  #busyLooks = 0;
  #emptyLooks = 0;
  #wireBytes = 0;
  #pauseMs = PAUSE_MIN_MS;
  #pausedUntilMs = 0;
  /** It was just begun: its threads may have to start, and the first blocks come late. */
  #isFresh = false;

  constructor(threads: number) {
    this.#lineMax = Math.max(threads, THREADS_MIN) * THREAD_BYTES_PER_SECOND;
  }

  /**
   * More is about to be sent on a socket that still holds `heldBytes` of what was sent before. `workMs`: for how long
   * blocks have been in the works, all in all.
   */
  look(nowMs: number, heldBytes: number, workMs: number): void {
    if (this.#startMs < 0) this.#startMs = nowMs;
    this.#looks++;
    if (heldBytes > 0) this.#busyLooks++;
    if (nowMs - this.#startMs >= WINDOW_MS && this.#looks >= LOOKS_MIN) this.#judge(nowMs, workMs);
  }

  /** A socket is empty, and what it waits for is being packed. */
  ranEmpty(): void {
    this.#emptyLooks++;
  }

  /** A block was handed to a socket as so many bytes. */
  sent(wireBytes: number): void {
    this.#wireBytes += wireBytes;
  }

  #judge(nowMs: number, workMs: number): void {
    const spanMs = nowMs - this.#startMs;
    const rate = (this.#wireBytes * 1000) / spanMs;
    const isBusy = this.#busyLooks >= this.#looks * BUSY_SHARE_MIN;
    const isSlow =
      this.#emptyLooks > this.#looks * EMPTY_SHARE_MAX && workMs - this.#startWorkMs > spanMs * WORK_SHARE_MIN;
    const ends = this.isOn && isSlow && !this.#isFresh;
    const begins = !this.isOn && isBusy && rate < this.#lineMax && nowMs >= this.#pausedUntilMs;
    if (ends) {
      this.#pausedUntilMs = nowMs + this.#pauseMs;
      this.#pauseMs = Math.min(PAUSE_MAX_MS, this.#pauseMs * 2);
    }
    this.isOn = (this.isOn && !ends) || begins;
    this.#isFresh = begins;
    this.#startMs = nowMs;
    this.#startWorkMs = workMs;
    this.#looks = 0;
    this.#busyLooks = 0;
    this.#emptyLooks = 0;
    this.#wireBytes = 0;
  }
}
