/**
 * In which order a disk with a head gets what is to be written: in long runs, so that it seeks seldom.
 *
 * Pieces arrive several at a time and from several sources, and writing each part as it lands would seek for every
 * MiB. So a part waits until it is part of a run that is worth a seek, or its piece is whole, or it has waited long
 * enough, or too much waits. A run that was begun goes on while its next part is there; then the next
 * run in disk order is written, and from the start again (C-SCAN): nothing waits for more than one sweep.
 *
 * Places are offsets in the payload: the order of the disk, and adjacent where only what is not sent lies between.
 * Pure: it sees no bytes and no clock.
 */
import { assert } from "../errors.ts";
import { MiB } from "../units.ts";

/** Worth a seek: 8 ms of it are a quarter of the time that a disk of 160 MB/s writes this. */
export const RUN_BYTES = 4 * MiB;
/** With so many writes given to the disk no other run is begun: it is busy while the next is being decided on. */
export const ORDERED_WRITES_MAX = 4;
/** Longest wait for the rest of a run: seven pieces at a time are fetched at 3 MB/s in it; a slower source is as good as gone. */
const HOLD_MS = 10_000;
const NONE = -1;

export interface WriteOrderOptions {
  readonly pieceCount: number;
  readonly pieceBytes: number;
  readonly totalBytes: number;
  /** While more than this waits the longest run is not held back: receiving needs the memory. */
  readonly heldBytesMax: number;
}

/** A run of waiting writes: entries [first, end). */
interface Run {
  first: number;
  end: number;
  lengthBytes: number;
}

export class WriteOrder {
  /** Waiting writes by offset, ascending. */
  readonly #offset: number[] = [];
  readonly #length: number[] = [];
  readonly #tag: number[] = [];
  readonly #sinceMs: number[] = [];
  /** What came of each piece that is not whole. */
  readonly #pieceBytes: Float64Array;
  /** Of a piece of which nothing more will come. */
  readonly #isReleased: boolean[] = [];
  #heldBytes = 0;
  /** Where the last write that was given out ends. */
  #headBytes = 0;
  #holds = true;

  constructor(readonly options: WriteOrderOptions) {
    this.#pieceBytes = new Float64Array(options.pieceCount);
  }

  /** Writes that wait. */
  get count(): number {
    return this.#tag.length;
  }

  /** The write that `next` answers goes on with the run that was begun. */
  get isInRun(): boolean {
    return this.#goesOn(this.#search(this.#headBytes));
  }

  add(tag: number, offsetBytes: number, lengthBytes: number, nowMs: number): void {
    const at = this.#search(offsetBytes);
    this.#offset.splice(at, 0, offsetBytes);
    this.#length.splice(at, 0, lengthBytes);
    this.#tag.splice(at, 0, tag);
    this.#sinceMs.splice(at, 0, nowMs);
    this.#isReleased.splice(at, 0, false);
    this.#heldBytes += lengthBytes;
    this.#count(Math.floor(offsetBytes / this.options.pieceBytes), lengthBytes);
  }

  /** Nothing more of the piece will come: what waits of it has no reason to, and it may begin anew. */
  giveUp(piece: number): void {
    this.#pieceBytes[piece] = 0;
    this.#release(piece);
  }

  /** Nothing more will come: nothing is held back any longer. */
  endHolding(): void {
    this.#holds = false;
  }

  /** The tag of the write that the disk should get now, which waits no longer; -1: none. */
  next(nowMs: number): number {
    if (this.#tag.length === 0) return NONE;
    const ahead = this.#search(this.#headBytes);
    if (this.#goesOn(ahead)) return this.#take(ahead);
    const run = this.#ripeRun(ahead, nowMs);
    return run === null ? NONE : this.#take(run.first);
  }

  /** What begins at a multiple is a run of its own: begun too early, its rest would need a seek. */
  #goesOn(index: number): boolean {
    return this.#headBytes % RUN_BYTES !== 0 && this.#offset[index] === this.#headBytes;
  }

  /** The first run at or behind `ahead` that is worth a seek, else the longest where too much waits. */
  #ripeRun(ahead: number, nowMs: number): Run | null {
    const count = this.#tag.length;
    let longest: Run | null = null;
    for (let seen = 0, first = ahead % count; seen < count; ) {
      const run = this.#runAt(first);
      if (this.#isRipe(run, nowMs)) return run;
      if (longest === null || run.lengthBytes > longest.lengthBytes) longest = run;
      seen += run.end - run.first;
      first = run.end % count;
    }
    return this.#heldBytes > this.options.heldBytesMax ? longest : null;
  }

  #runAt(first: number): Run {
    let end = first;
    let lengthBytes = 0;
    do lengthBytes += this.#length[end++]!;
    while (this.#offset[end] === this.#offset[end - 1]! + this.#length[end - 1]!);
    return { first, end, lengthBytes };
  }

  #isRipe(run: Run, nowMs: number): boolean {
    if (!this.#holds || run.lengthBytes >= RUN_BYTES) return true;
    for (let i = run.first; i < run.end; i++)
      if (this.#isReleased[i] || nowMs - this.#sinceMs[i]! >= HOLD_MS) return true;
    return false;
  }

  /** Nothing of a piece that is whole waits for more. */
  #count(piece: number, lengthBytes: number): void {
    const { pieceBytes, totalBytes } = this.options;
    this.#pieceBytes[piece]! += lengthBytes;
    if (this.#pieceBytes[piece]! < Math.min(pieceBytes, totalBytes - piece * pieceBytes)) return;
    this.#pieceBytes[piece] = 0;
    this.#release(piece);
  }

  #release(piece: number): void {
    const { pieceBytes } = this.options;
    const endBytes = (piece + 1) * pieceBytes;
    for (let i = this.#search(piece * pieceBytes); i < this.#offset.length && this.#offset[i]! < endBytes; i++)
      this.#isReleased[i] = true;
  }

  #take(index: number): number {
    const tag = this.#tag[index]!;
    this.#headBytes = this.#offset[index]! + this.#length[index]!;
    this.#heldBytes -= this.#length[index]!;
    for (const column of [this.#offset, this.#length, this.#tag, this.#sinceMs, this.#isReleased])
      column.splice(index, 1);
    assert(this.#heldBytes >= 0, "what waits was added");
    return tag;
  }

  /** The first entry at or behind an offset. */
  #search(offsetBytes: number): number {
    let low = 0;
    let high = this.#offset.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#offset[middle]! < offsetBytes) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
