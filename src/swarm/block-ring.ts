/**
 * A bounded queue of blocks (piece, begin, length): requests outstanding, requests to serve, rejects to send.
 *
 * Three parallel typed arrays that grow by doubling up to the limit, so that nothing is allocated per block and
 * an idle session is small. Invariant: count <= capacity <= limit, and entry i lies at (head + i) mod capacity.
 */
import { assert } from "../errors.ts";

const CAPACITY_START = 8;

export class BlockRing {
  private pieces = new Int32Array(CAPACITY_START);
  private begins = new Int32Array(CAPACITY_START);
  private lengths = new Int32Array(CAPACITY_START);
  private mask = CAPACITY_START - 1;
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
    return this.pieces[(this.head + i) & this.mask];
  }

  begin(i: number): number {
    return this.begins[(this.head + i) & this.mask];
  }

  length(i: number): number {
    return this.lengths[(this.head + i) & this.mask];
  }

  push(piece: number, begin: number, length: number): void {
    assert(this.count < this.limit, "block ring overflow");
    if (this.count > this.mask) this.grow();
    const at = (this.head + this.count++) & this.mask;
    this.pieces[at] = piece;
    this.begins[at] = begin;
    this.lengths[at] = length;
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
      const to = (this.head + k) & this.mask;
      const from = (this.head + k - 1) & this.mask;
      this.pieces[to] = this.pieces[from];
      this.begins[to] = this.begins[from];
      this.lengths[to] = this.lengths[from];
    }
    this.shift();
  }

  clear(): void {
    this.head = 0;
    this.count = 0;
  }

  private grow(): void {
    const capacity = (this.mask + 1) * 2;
    this.pieces = this.unrolled(this.pieces, capacity);
    this.begins = this.unrolled(this.begins, capacity);
    this.lengths = this.unrolled(this.lengths, capacity);
    this.mask = capacity - 1;
    this.head = 0;
  }

  private unrolled(values: Int32Array, capacity: number): Int32Array<ArrayBuffer> {
    const grown = new Int32Array(capacity);
    for (let i = 0; i < this.count; i++) grown[i] = values[(this.head + i) & this.mask];
    return grown;
  }
}
