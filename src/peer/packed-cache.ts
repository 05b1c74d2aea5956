/**
 * Packed blocks in memory: those that are arriving, being packed or being sent, and those kept to be sent again.
 *
 * One region of the pool, used as a ring: each block takes one stretch of it, behind the one before, and the oldest
 * make room. A stretch that somebody uses (a pin) is stepped over, so a slow remote peer costs its own stretch and no
 * more. Found are only blocks that are packed in full and whose plain bytes were asked for by this exact range.
 *
 * Invariant: entries in the list have offsets in rising order and do not overlap; `#hand` is the first entry at or
 * behind `#headBytes`, or NONE.
 */
import { assert } from "../errors.ts";
import type { Address } from "../kernel/reactor.ts";
import { BLOCK_BYTES, BLOCK_BYTES_MAX } from "../limits.ts";

export type PackedEntry = number;

export const NO_ENTRY = -1;
const NONE = -1;
const NO_KEY = -1;
/** Blocks that pack to next to nothing are many: 2048 of 256 KiB are half a gigabyte of image. */
const ENTRIES_MAX = 2048;
const UNITS_MAX = BLOCK_BYTES_MAX / BLOCK_BYTES;

export class PackedCache {
  readonly #offset = new Float64Array(ENTRIES_MAX);
  readonly #length = new Int32Array(ENTRIES_MAX);
  readonly #pins = new Int32Array(ENTRIES_MAX);
  readonly #ready = new Uint8Array(ENTRIES_MAX);
  readonly #key = new Float64Array(ENTRIES_MAX).fill(NO_KEY);
  readonly #piece = new Int32Array(ENTRIES_MAX);
  readonly #before = new Int32Array(ENTRIES_MAX);
  readonly #after = new Int32Array(ENTRIES_MAX);
  readonly #free: PackedEntry[] = [];
  readonly #entryOf = new Map<number, PackedEntry>();
  #first = NONE;
  #last = NONE;
  #headBytes = 0;
  #hand = NONE;

  constructor(
    readonly baseAddress: Address,
    readonly lengthBytes: number,
    readonly pieceBytes: number,
  ) {
    for (let entry = ENTRIES_MAX - 1; entry >= 0; entry--) this.#free.push(entry);
  }

  /** The entry of a block that is packed or being packed, or NO_ENTRY. */
  find(piece: number, begin: number, length: number): PackedEntry {
    return this.#entryOf.get(this.#keyOf(piece, begin, length)) ?? NO_ENTRY;
  }

  isReady(entry: PackedEntry): boolean {
    return this.#ready[entry] === 1;
  }

  address(entry: PackedEntry): Address {
    return this.baseAddress + this.#offset[entry]!;
  }

  /** Bytes that it takes, packed bytes once it is ready. */
  length(entry: PackedEntry): number {
    return this.#length[entry]!;
  }

  /** A stretch for a block, pinned once and not found by anybody; the oldest give way. NO_ENTRY: all is in use. */
  take(lengthBytes: number): PackedEntry {
    assert(lengthBytes > 0, "a packed block has bytes");
    let startBytes = this.#headBytes;
    let next = this.#hand;
    for (let isSecondRound = false; ; ) {
      const endBytes = next === NONE ? this.lengthBytes : this.#offset[next]!;
      if (endBytes - startBytes >= lengthBytes && this.#free.length > 0)
        return this.#insert(startBytes, lengthBytes, next);
      if (next === NONE) {
        if (isSecondRound) return NO_ENTRY;
        isSecondRound = true;
        startBytes = 0;
        next = this.#first;
      } else if (this.#pins[next]! > 0) {
        startBytes = this.#offset[next]! + this.#length[next]!;
        next = this.#after[next]!;
      } else {
        const gone = next;
        next = this.#after[gone]!;
        this.#remove(gone);
      }
    }
  }

  /** From now on the entry is found as this block, ready or not; another one of the same block keeps its place. */
  name(entry: PackedEntry, piece: number, begin: number, length: number): void {
    const key = this.#keyOf(piece, begin, length);
    if (this.#entryOf.has(key)) return;
    this.#entryOf.set(key, entry);
    this.#key[entry] = key;
    this.#piece[entry] = piece;
  }

  /** The block is packed, into this many bytes; the rest of its stretch is free again. */
  markReady(entry: PackedEntry, lengthBytes: number): void {
    assert(lengthBytes <= this.#length[entry]! && this.#pins[entry]! > 0, "a packed block fits its stretch");
    this.#length[entry] = lengthBytes;
    this.#ready[entry] = 1;
  }

  pin(entry: PackedEntry): void {
    this.#pins[entry]!++;
  }

  /** Takes one pin off. One that nobody can find goes with its last pin. */
  unpin(entry: PackedEntry): void {
    assert(this.#pins[entry]! > 0, "a pin is taken off once");
    if (--this.#pins[entry]! === 0 && (this.#key[entry] === NO_KEY || this.#ready[entry] === 0)) this.#remove(entry);
  }

  /** The piece was not what it should be: none of its blocks is found any more. */
  dropPiece(piece: number): void {
    for (let entry = this.#first; entry !== NONE; ) {
      const after = this.#after[entry]!;
      if (this.#key[entry] !== NO_KEY && this.#piece[entry] === piece) {
        this.#unname(entry);
        if (this.#pins[entry] === 0) this.#remove(entry);
      }
      entry = after;
    }
  }

  /** A block's range as a number: it begins with a unit of 16 KiB and has at most 64 of them. */
  #keyOf(piece: number, begin: number, length: number): number {
    const unit = (piece * this.pieceBytes + begin) / BLOCK_BYTES;
    return unit * (UNITS_MAX + 1) + Math.ceil(length / BLOCK_BYTES);
  }

  #insert(offsetBytes: number, lengthBytes: number, next: PackedEntry): PackedEntry {
    const entry = this.#free.pop()!;
    const before = next === NONE ? this.#last : this.#before[next]!;
    this.#offset[entry] = offsetBytes;
    this.#length[entry] = lengthBytes;
    this.#pins[entry] = 1;
    this.#ready[entry] = 0;
    this.#before[entry] = before;
    this.#after[entry] = next;
    if (before === NONE) this.#first = entry;
    else this.#after[before] = entry;
    if (next === NONE) this.#last = entry;
    else this.#before[next] = entry;
    this.#headBytes = offsetBytes + lengthBytes;
    this.#hand = next;
    return entry;
  }

  #remove(entry: PackedEntry): void {
    const before = this.#before[entry]!;
    const after = this.#after[entry]!;
    if (before === NONE) this.#first = after;
    else this.#after[before] = after;
    if (after === NONE) this.#last = before;
    else this.#before[after] = before;
    if (this.#hand === entry) this.#hand = after;
    this.#unname(entry);
    this.#free.push(entry);
  }

  #unname(entry: PackedEntry): void {
    if (this.#key[entry] !== NO_KEY) this.#entryOf.delete(this.#key[entry]!);
    this.#key[entry] = NO_KEY;
  }
}
