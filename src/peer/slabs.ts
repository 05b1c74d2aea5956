/**
 * The slab pool: one mmapped region cut into equal slabs, each holding one part of one piece.
 *
 * A part is what of a piece falls into one slab: part k covers bytes [k * slabBytes, (k + 1) * slabBytes) of
 * the piece. A slab is free, or bound to a part. A bound slab is pinned while the kernel or a hash worker may
 * touch it, valid once it holds the bytes of its part, and evictable when it is valid and unpinned; the least
 * recently used one is evicted first. Memory is bounded by construction: there is nothing else to receive into.
 *
 * The cache begins small, so that the same memory is used again while it is in the processor's cache, and grows by
 * one slab whenever a part is bound again that it gave up: what others do not fetch again costs no memory.
 *
 * Invariant: a slab is on the LRU list exactly when it is bound, valid and unpinned.
 */
import { assert } from "../errors.ts";
import type { Address } from "../kernel/reactor.ts";
import { MiB } from "../units.ts";

export type SlabIndex = number;

const NONE = -1;
/** What is kept for others to begin with: some seconds of a gigabit link. */
const CACHE_START_BYTES = 32 * MiB;

export class SlabPool {
  readonly #key: Float64Array;
  readonly #pins: Uint16Array;
  readonly #valid: Uint8Array;
  readonly #older: Int32Array;
  readonly #newer: Int32Array;
  readonly #free: Int32Array;
  #freeCount: number;
  #oldest = NONE;
  #newest = NONE;
  #evictableCount = 0;
  #cacheSlabs: number;
  readonly #slabOf = new Map<number, SlabIndex>();
  /** One bit per part: evicted at some time. */
  readonly #evicted: Uint8Array;

  constructor(
    readonly baseAddress: Address,
    readonly slabBytes: number,
    readonly count: number,
    /** Parts of a whole piece; the key of a part is piece * partsPerPiece + part. */
    readonly partsPerPiece: number,
    pieceCount: number,
  ) {
    this.#cacheSlabs = Math.floor(CACHE_START_BYTES / slabBytes);
    this.#evicted = new Uint8Array(Math.ceil((pieceCount * partsPerPiece) / 8));
    this.#key = new Float64Array(count).fill(NONE);
    this.#pins = new Uint16Array(count);
    this.#valid = new Uint8Array(count);
    this.#older = new Int32Array(count).fill(NONE);
    this.#newer = new Int32Array(count).fill(NONE);
    this.#free = new Int32Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.#freeCount = count;
  }

  /** Slabs that could be bound now: free ones and evictable ones. */
  get available(): number {
    return this.#freeCount + this.#evictableCount;
  }

  address(slab: SlabIndex): Address {
    return this.baseAddress + slab * this.slabBytes;
  }

  /** The slab bound to a part, or -1. */
  find(piece: number, part: number): SlabIndex {
    return this.#slabOf.get(piece * this.partsPerPiece + part) ?? NONE;
  }

  isValid(slab: SlabIndex): boolean {
    return this.#valid[slab] === 1;
  }

  /** Binds a slab to a part that has none: pinned once, not valid. -1 where all slabs are pinned. */
  bind(piece: number, part: number): SlabIndex {
    const key = piece * this.partsPerPiece + part;
    assert(!this.#slabOf.has(key), "a part is bound to one slab");
    if (this.#takeEvicted(key)) this.#cacheSlabs++;
    if (this.#freeCount === 0 || this.#evictableCount >= this.#cacheSlabs) {
      if (this.#oldest === NONE) return NONE;
      this.#evict(this.#oldest);
    }
    const slab = this.#free[--this.#freeCount]!;
    this.#key[slab] = key;
    this.#pins[slab] = 1;
    this.#slabOf.set(key, slab);
    return slab;
  }

  pin(slab: SlabIndex): void {
    assert(this.#key[slab] !== NONE, "only a bound slab is pinned");
    if (this.#pins[slab] === 0 && this.#valid[slab] === 1) this.#unlink(slab);
    this.#pins[slab]!++;
  }

  /** Takes one pin off. Without pins a valid slab becomes evictable, one that is not valid becomes free. */
  unpin(slab: SlabIndex): void {
    assert(this.#pins[slab]! > 0, "a pin is taken off once");
    if (--this.#pins[slab]! > 0) return;
    if (this.#valid[slab] === 1) this.#link(slab);
    else this.#release(slab);
  }

  /** The slab now holds its part's bytes. It must be pinned. */
  markValid(slab: SlabIndex): void {
    assert(this.#pins[slab]! > 0, "a slab becomes valid while it is pinned");
    this.#valid[slab] = 1;
  }

  /** Forgets the bytes of a part (its piece's hash did not match). Freed when the last pin is gone. */
  invalidate(slab: SlabIndex): void {
    if (this.#valid[slab] === 0) return;
    if (this.#pins[slab] === 0) {
      this.#release(slab);
      return;
    }
    this.#valid[slab] = 0;
  }

  #evict(slab: SlabIndex): void {
    const key = this.#key[slab]!;
    this.#evicted[key >> 3]! |= 1 << (key & 7);
    this.#release(slab);
  }

  /** Was the part evicted? Counts once for each time. */
  #takeEvicted(key: number): boolean {
    const bit = 1 << (key & 7);
    if ((this.#evicted[key >> 3]! & bit) === 0) return false;
    this.#evicted[key >> 3]! &= ~bit;
    return true;
  }

  #release(slab: SlabIndex): void {
    if (this.#valid[slab] === 1 && this.#pins[slab] === 0) this.#unlink(slab);
    this.#valid[slab] = 0;
    this.#slabOf.delete(this.#key[slab]!);
    this.#key[slab] = NONE;
    this.#free[this.#freeCount++] = slab;
  }

  #link(slab: SlabIndex): void {
    this.#older[slab] = this.#newest;
    this.#newer[slab] = NONE;
    if (this.#newest !== NONE) this.#newer[this.#newest] = slab;
    else this.#oldest = slab;
    this.#newest = slab;
    this.#evictableCount++;
  }

  #unlink(slab: SlabIndex): void {
    const older = this.#older[slab]!;
    const newer = this.#newer[slab]!;
    if (older !== NONE) this.#newer[older] = newer;
    else this.#oldest = newer;
    if (newer !== NONE) this.#older[newer] = older;
    else this.#newest = older;
    this.#evictableCount--;
  }
}
