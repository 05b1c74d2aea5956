/**
 * A bounded queue of blocks (piece, begin, length): requests outstanding, requests to serve, rejects to send.
 *
 * One typed array that is made with the first entry and grows by doubling up to the limit, so that nothing is allocated
 * per block and an idle session is small. Invariant: count <= capacity <= limit, and entry i lies at (head + i) mod capacity.
 */
import { assert } from "../errors.ts";

const CAPACITY_START = 8;
/** Numbers of an entry: piece, begin, length. */
const FIELDS = 3;
const NONE = new Int32Array(0);

export class BlockRing {
  private entries = NONE;
  /** Capacity less one; -1: nothing was made yet. */
  private mask = -1;
  private head = 0;
  count = 0;

  constructor(
    /** Most entries; a power of two. */
    readonly limit: number,
  ) {
    assert(limit >= CAPACITY_START && (limit & (limit - 1)) === 0, "ring limit is a power of two");
  }

  get full(): boolean {
    return this.count === this.limit;
  }

  piece(i: number): number {
    return this.entries[FIELDS * ((this.head + i) & this.mask)];
  }

  begin(i: number): number {
    return this.entries[FIELDS * ((this.head + i) & this.mask) + 1];
  }

  length(i: number): number {
    return this.entries[FIELDS * ((this.head + i) & this.mask) + 2];
  }

  push(piece: number, begin: number, length: number): void {
    assert(this.count < this.limit, "block ring overflow");
    if (this.count > this.mask) this.grow();
    const at = FIELDS * ((this.head + this.count++) & this.mask);
    this.entries[at] = piece;
    this.entries[at + 1] = begin;
    this.entries[at + 2] = length;
  }

  shift(): void {
    assert(this.count > 0, "block ring underflow");
    this.head = (this.head + 1) & this.mask;
    this.count--;
  }

  /** Index of the first equal entry, or -1. Peers answer in order, so it is nearly always 0. */
  find(piece: number, begin: number, length: number): number {
    for (let i = 0; i < this.count; i++) {
      if (this.piece(i) === piece && this.begin(i) === begin && this.length(i) === length) return i;
    }
    return -1;
  }

  /** True where an entry of the piece covers the byte `offset`. */
  covers(piece: number, offset: number): boolean {
    for (let i = 0; i < this.count; i++) {
      const begin = this.begin(i);
      if (this.piece(i) === piece && offset >= begin && offset < begin + this.length(i)) return true;
    }
    return false;
  }

  /** Removes entry i; those before it move up by one. O(1) for the first. */
  removeAt(i: number): void {
    assert(i >= 0 && i < this.count, "block ring index");
    for (let k = i; k > 0; k--) {
      const from = FIELDS * ((this.head + k - 1) & this.mask);
      this.entries.copyWithin(FIELDS * ((this.head + k) & this.mask), from, from + FIELDS);
    }
    this.shift();
  }

  clear(): void {
    this.head = 0;
    this.count = 0;
  }

  private grow(): void {
    const capacity = Math.max(CAPACITY_START, (this.mask + 1) * 2);
    const grown = new Int32Array(FIELDS * capacity);
    for (let i = 0; i < this.count; i++) {
      const from = FIELDS * ((this.head + i) & this.mask);
      grown.set(this.entries.subarray(from, from + FIELDS), FIELDS * i);
    }
    this.entries = grown;
    this.mask = capacity - 1;
    this.head = 0;
  }
}
