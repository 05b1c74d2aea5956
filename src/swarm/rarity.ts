/**
 * Pieces ordered by how many peers have them, kept in order at O(1) per change: the heart of rarest first.
 *
 * `order` holds all pieces: first those taken out, then a run per count 0, 1, 2 ...; `runStart[c]` is where the
 * run of count c begins. A change of count swaps a piece to the edge of its run and moves the edge; it lands at a
 * random place of its new run, so that ties are broken at random and differently on every node.
 */
import { assert } from "../errors.ts";
import type { Random } from "./random.ts";

export class RarityOrder {
  private readonly order: Int32Array;
  private readonly place: Int32Array;
  private readonly counts: Uint16Array;
  /** runStart[c] for c in 0 ... countMax + 1; runStart[0] is where the pieces taken out end. */
  private readonly runStart: Int32Array;

  constructor(
    readonly pieceCount: number,
    private readonly countMax: number,
    private readonly random: Random,
  ) {
    this.order = Int32Array.from({ length: pieceCount }, (_, i) => i);
    random.shuffle(this.order);
    this.place = new Int32Array(pieceCount);
    for (let i = 0; i < pieceCount; i++) this.place[this.order[i]] = i;
    this.counts = new Uint16Array(pieceCount);
    this.runStart = new Int32Array(countMax + 2).fill(pieceCount);
    this.runStart[0] = 0;
  }

  /** Pieces not taken out. */
  get remaining(): number {
    return this.pieceCount - this.runStart[0];
  }

  count(piece: number): number {
    return this.counts[piece];
  }

  isTaken(piece: number): boolean {
    return this.place[piece] < this.runStart[0];
  }

  /** Where the run of `count` starts in `at`; counts above the largest start at the end. */
  startOf(count: number): number {
    return this.runStart[Math.min(count, this.countMax + 1)];
  }

  /** The piece at a position, from startOf(0) to pieceCount - 1: rarest first. */
  at(position: number): number {
    return this.order[position];
  }

  increment(piece: number): void {
    const count = this.counts[piece];
    assert(count < this.countMax, "a piece is counted once per peer");
    this.counts[piece] = count + 1;
    if (this.isTaken(piece)) return;
    const last = this.runStart[count + 1] - 1;
    this.swap(this.place[piece], last);
    this.runStart[count + 1] = last;
    this.mix(piece, count + 1);
  }

  decrement(piece: number): void {
    const count = this.counts[piece];
    assert(count > 0, "a piece is uncounted once per peer");
    this.counts[piece] = count - 1;
    if (this.isTaken(piece)) return;
    const first = this.runStart[count];
    this.swap(this.place[piece], first);
    this.runStart[count] = first + 1;
    this.mix(piece, count - 1);
  }

  /** Takes a piece out of the order: it is begun or finished. Its count goes on being kept. */
  take(piece: number): void {
    assert(!this.isTaken(piece), "a piece is taken once");
    for (let count = this.counts[piece]; count >= 0; count--) {
      const first = this.runStart[count];
      this.swap(this.place[piece], first);
      this.runStart[count] = first + 1;
    }
  }

  /** Puts a piece back that was taken out. */
  giveBack(piece: number): void {
    assert(this.isTaken(piece), "only a taken piece is given back");
    for (let count = 0; count <= this.counts[piece]; count++) {
      const last = this.runStart[count] - 1;
      this.swap(this.place[piece], last);
      this.runStart[count] = last;
    }
    this.mix(piece, this.counts[piece]);
  }

  /** Moves a piece to a random place of its run. */
  private mix(piece: number, count: number): void {
    const start = this.runStart[count];
    const length = this.runStart[count + 1] - start;
    this.swap(this.place[piece], start + this.random.below(length));
  }

  private swap(a: number, b: number): void {
    if (a === b) return;
    const atA = this.order[a];
    const atB = this.order[b];
    this.order[a] = atB;
    this.order[b] = atA;
    this.place[atB] = a;
    this.place[atA] = b;
  }
}
