/**
 * The way in: from blocks that landed in slabs to a piece that is proven.
 *
 * Each piece being received has a context (a small integer, also its hash context): which slabs it holds,
 * which 16 KiB units landed, how far it is hashed, which parts are on the disk. Landed bytes are hashed in
 * order, a part is written as soon as all of it landed, and its slab goes to the cache when it is both
 * hashed and written; a 16 MiB piece therefore needs a slab or two, not 16 MiB.
 *
 * Invariant: a context ends exactly once, after every hash job and every write of it has completed: as
 * verified, as failed, or as discarded.
 */
import { assert } from "../errors.ts";
import type { Address } from "../kernel/reactor.ts";
import type { HashHandler, Hasher } from "../disk/hasher.ts";
import { BLOCK_BYTES } from "../limits.ts";
import type { PieceDigests } from "../torrent/piece-digests.ts";
import type { Metainfo } from "../torrent/types.ts";
import type { SlabIndex, SlabPool } from "./slabs.ts";

const NONE = -1;

/** What became of a context. */
const enum Fate {
  receiving,
  /** The digest is known and right; writes may still be under way. */
  matched,
  mismatched,
  /** Given up by the swarm: ends when nothing of it is pending. */
  discarded,
}

export interface IntakeHandler {
  /** Writes `lengthBytes` at `address` to the payload's offset; `written(tag)` is called when all of it is on its way through the kernel in full. */
  write(tag: number, torrentOffsetBytes: number, lengthBytes: number, address: Address): void;
  /** The piece's hash matched and every write of it completed. */
  verified(piece: number): void;
  /** The piece's hash did not match. */
  failed(piece: number): void;
}

export class Intake implements HashHandler {
  readonly #contextOf: Int16Array;
  readonly #piece: Int32Array;
  readonly #fate: Uint8Array;
  readonly #lengthBytes: Int32Array;
  readonly #hashSubmittedBytes: Int32Array;
  readonly #hashDoneBytes: Int32Array;
  readonly #finishSubmitted: Uint8Array;
  readonly #partsOpen: Int32Array;
  readonly #writesPending: Int32Array;
  readonly #slab: Int32Array;
  readonly #partLandedBytes: Int32Array;
  readonly #partWritten: Uint8Array;
  readonly #unitLanded: Uint8Array;
  readonly #parts: number;
  readonly #units: number;
  readonly #free: number[] = [];
  /** Landed blocks wait for `pump`, to be hashed together. */
  #hashDue = false;
  /** Contexts whose hash jobs did not fit the hasher's queue. */
  #stalled = false;
  /** Slabs bound to contexts that still need them. */
  #slabsHeld = 0;
  /** A reserve was turned down since the last `takeRelief`. */
  #refused = false;

  constructor(
    readonly metainfo: Metainfo,
    /** What `hasher` computes is compared with these. */
    readonly digests: PieceDigests,
    readonly pool: SlabPool,
    readonly hasher: Hasher,
    readonly handler: IntakeHandler,
    /** Slabs that receiving may hold at most; the rest is for serving. */
    readonly slabsMax: number,
  ) {
    const contexts = hasher.contextsMax;
    assert(contexts < 32768, "a context fits 15 bits");
    this.#parts = pool.partsPerPiece;
    this.#units = Math.ceil(metainfo.pieceBytes / BLOCK_BYTES);
    this.#contextOf = new Int16Array(metainfo.pieceCount).fill(NONE);
    this.#piece = new Int32Array(contexts).fill(NONE);
    this.#fate = new Uint8Array(contexts);
    this.#lengthBytes = new Int32Array(contexts);
    this.#hashSubmittedBytes = new Int32Array(contexts);
    this.#hashDoneBytes = new Int32Array(contexts);
    this.#finishSubmitted = new Uint8Array(contexts);
    this.#partsOpen = new Int32Array(contexts);
    this.#writesPending = new Int32Array(contexts);
    this.#slab = new Int32Array(contexts * this.#parts).fill(NONE);
    this.#partLandedBytes = new Int32Array(contexts * this.#parts);
    this.#partWritten = new Uint8Array(contexts * this.#parts);
    this.#unitLanded = new Uint8Array(contexts * this.#units);
    for (let context = contexts - 1; context >= 0; context--) this.#free.push(context);
  }

  /** Pieces with a context. Zero means that nothing is on its way to the disk. */
  get active(): number {
    return this.hasher.contextsMax - this.#free.length;
  }

  /** True while a hash worker or the disk may still touch a slab. */
  get busy(): boolean {
    for (let context = 0; context < this.#piece.length; context++) {
      if (this.#piece[context] === NONE) continue;
      if (this.#writesPending[context]! > 0 || this.#finishSubmitted[context] === 1) return true;
      if (this.#hashDoneBytes[context]! < this.#hashSubmittedBytes[context]!) return true;
    }
    return false;
  }

  /** Keeps memory for bytes [begin, begin + length) of a piece, which lie in one part. False: none now. */
  reserve(piece: number, begin: number): boolean {
    let context = this.#contextOf[piece]!;
    if (context !== NONE && this.#fate[context] !== Fate.receiving) return this.#refuse();
    const part = Math.floor(begin / this.pool.slabBytes);
    if (context !== NONE && this.#slab[context * this.#parts + part] !== NONE) return true;
    if (this.#slabsHeld >= this.slabsMax) return this.#refuse();
    if (context === NONE && this.#free.length === 0) return this.#refuse();
    if (this.pool.find(piece, part) !== NONE) return this.#refuse();
    const slab = this.pool.bind(piece, part);
    if (slab === NONE) return this.#refuse();
    if (context === NONE) context = this.#open(piece);
    this.#slab[context * this.#parts + part] = slab;
    this.#slabsHeld++;
    return true;
  }

  /** Where byte `begin` of a reserved block goes. */
  addressOf(piece: number, begin: number): Address {
    const context = this.#contextOf[piece]!;
    assert(context !== NONE, "a block is received into a reserved piece");
    const slab = this.#slab[context * this.#parts + Math.floor(begin / this.pool.slabBytes)]!;
    assert(slab !== NONE, "a block is received into a reserved slab");
    return this.pool.address(slab) + (begin % this.pool.slabBytes);
  }

  /** A whole block is in its slab: what is in order is hashed (by `pump` at the latest), a whole part is written. */
  landed(piece: number, begin: number, lengthBytes: number): void {
    const context = this.#contextOf[piece]!;
    assert(context !== NONE, "a block lands in a reserved piece");
    const firstUnit = context * this.#units + Math.floor(begin / BLOCK_BYTES);
    const unitCount = Math.ceil(lengthBytes / BLOCK_BYTES);
    for (let i = 0; i < unitCount; i++) {
      assert(this.#unitLanded[firstUnit + i] === 0, "a unit lands once");
      this.#unitLanded[firstUnit + i] = 1;
    }
    const part = Math.floor(begin / this.pool.slabBytes);
    const partSlot = context * this.#parts + part;
    this.#partLandedBytes[partSlot]! += lengthBytes;
    if (this.#partLandedBytes[partSlot] !== this.#partBytes(context, part)) {
      // Small blocks come in batches, and a hash job is worth more than one of them.
      this.#hashDue = true;
    } else {
      this.#hash(context);
      this.#writesPending[context]!++;
      const offset = piece * this.metainfo.pieceBytes + part * this.pool.slabBytes;
      this.handler.write(partSlot, offset, this.#partBytes(context, part), this.pool.address(this.#slab[partSlot]!));
    }
  }

  /** All writes of a part completed in full. */
  written(tag: number): void {
    const context = Math.floor(tag / this.#parts);
    const part = tag % this.#parts;
    this.#writesPending[context]!--;
    this.#partWritten[tag] = 1;
    this.#releasePart(context, part);
    this.#settle(context);
  }

  /** The swarm gave up what it has of the piece; no session receives into it any more. */
  discard(piece: number): void {
    const context = this.#contextOf[piece]!;
    if (context === NONE) return;
    assert(this.#hashSubmittedBytes[context]! < this.#lengthBytes[context]!, "a whole piece is judged, not given up");
    this.#fate[context] = Fate.discarded;
    this.#settle(context);
  }

  /** There is something to do for `pump`. */
  get hashDue(): boolean {
    return this.#hashDue;
  }

  /** Hands the hasher what landed since the last call and what did not fit before. */
  pump(): void {
    if (!this.#hashDue && !this.#stalled) return;
    this.#hashDue = false;
    this.#stalled = false;
    for (let context = 0; context < this.#piece.length; context++) {
      if (this.#piece[context] !== NONE && this.#fate[context] === Fate.receiving) this.#hash(context);
    }
  }

  /** True once after a reserve was turned down and there is memory again. */
  takeRelief(): boolean {
    if (!this.#refused || this.#slabsHeld >= this.slabsMax || this.#free.length === 0 || this.pool.available === 0) {
      return false;
    }
    this.#refused = false;
    return true;
  }

  /** HashHandler: bytes of a context are hashed. */
  updated(context: number, lengthBytes: number): void {
    const before = this.#hashDoneBytes[context]!;
    const after = before + lengthBytes;
    this.#hashDoneBytes[context] = after;
    const slabBytes = this.pool.slabBytes;
    for (let part = Math.floor(before / slabBytes); part < this.#parts && part * slabBytes < after; part++) {
      this.#releasePart(context, part);
    }
    this.#settle(context);
  }

  /** HashHandler: the digest of a context is known. */
  finished(context: number, digest: Uint8Array): void {
    const equal = this.digests.isRight(this.#piece[context]!, digest);
    this.#finishSubmitted[context] = 0;
    if (this.#fate[context] === Fate.receiving) this.#fate[context] = equal ? Fate.matched : Fate.mismatched;
    this.#settle(context);
  }

  #refuse(): boolean {
    this.#refused = true;
    return false;
  }

  #open(piece: number): number {
    const context = this.#free.pop()!;
    this.#contextOf[piece] = context;
    this.#piece[context] = piece;
    this.#fate[context] = Fate.receiving;
    const startBytes = piece * this.metainfo.pieceBytes;
    this.#lengthBytes[context] = Math.min(this.metainfo.pieceBytes, this.metainfo.extents.totalBytes - startBytes);
    this.#hashSubmittedBytes[context] = 0;
    this.#hashDoneBytes[context] = 0;
    this.#finishSubmitted[context] = 0;
    this.#writesPending[context] = 0;
    this.#partsOpen[context] = Math.ceil(this.#lengthBytes[context]! / this.pool.slabBytes);
    this.#partLandedBytes.fill(0, context * this.#parts, (context + 1) * this.#parts);
    this.#partWritten.fill(0, context * this.#parts, (context + 1) * this.#parts);
    this.#unitLanded.fill(0, context * this.#units, (context + 1) * this.#units);
    this.hasher.begin(context);
    return context;
  }

  #partBytes(context: number, part: number): number {
    return Math.min(this.pool.slabBytes, this.#lengthBytes[context]! - part * this.pool.slabBytes);
  }

  /** Submits the landed bytes behind what is submitted already, slab by slab. */
  #hash(context: number): void {
    const slabBytes = this.pool.slabBytes;
    const lengthBytes = this.#lengthBytes[context]!;
    for (;;) {
      const from = this.#hashSubmittedBytes[context]!;
      if (from === lengthBytes) break;
      const part = Math.floor(from / slabBytes);
      const partEnd = part * slabBytes + this.#partBytes(context, part);
      let to = from;
      while (to < partEnd && this.#unitLanded[context * this.#units + to / BLOCK_BYTES] === 1) {
        to = Math.min(to + BLOCK_BYTES, partEnd);
      }
      if (to === from) return;
      const address = this.pool.address(this.#slab[context * this.#parts + part]!) + (from % slabBytes);
      if (!this.hasher.update(context, address, to - from)) {
        this.#stalled = true;
        return;
      }
      this.#hashSubmittedBytes[context] = to;
    }
    if (this.#finishSubmitted[context] === 1) return;
    if (this.hasher.finish(context)) this.#finishSubmitted[context] = 1;
    else this.#stalled = true;
  }

  /** The slab of a part that is hashed and written goes to the cache. */
  #releasePart(context: number, part: number): void {
    const slot = context * this.#parts + part;
    const slab = this.#slab[slot]!;
    if (slab === NONE || this.#partWritten[slot] === 0) return;
    if (this.#hashDoneBytes[context]! < part * this.pool.slabBytes + this.#partBytes(context, part)) return;
    this.pool.markValid(slab);
    this.pool.unpin(slab);
    this.#slab[slot] = NONE;
    this.#slabsHeld--;
    this.#partsOpen[context]!--;
  }

  /** Ends the context when nothing of it is pending. */
  #settle(context: number): void {
    const fate = this.#fate[context] as Fate;
    if (fate === Fate.receiving || this.#writesPending[context]! > 0) return;
    if (this.#hashDoneBytes[context]! < this.#hashSubmittedBytes[context]! || this.#finishSubmitted[context] === 1)
      return;
    const piece = this.#piece[context]!;
    if (fate !== Fate.matched) this.#dropSlabs(context, piece);
    else assert(this.#partsOpen[context] === 0, "a verified piece is written whole");
    this.#contextOf[piece] = NONE;
    this.#piece[context] = NONE;
    this.#free.push(context);
    if (fate === Fate.matched) this.handler.verified(piece);
    else if (fate === Fate.mismatched) this.handler.failed(piece);
  }

  /** Bytes that are not proven are not served: neither held slabs nor cached parts of the piece stay. */
  #dropSlabs(context: number, piece: number): void {
    for (let part = 0; part < this.#parts; part++) {
      const held: SlabIndex = this.#slab[context * this.#parts + part]!;
      if (held !== NONE) {
        this.pool.unpin(held);
        this.#slab[context * this.#parts + part] = NONE;
        this.#slabsHeld--;
        continue;
      }
      const cached = this.pool.find(piece, part);
      if (cached !== NONE) this.pool.invalidate(cached);
    }
  }
}
