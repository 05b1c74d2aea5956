/**
 * A simulated disk and slab pool: which units are there, who spoilt them, and when they are written.
 *
 * The hash of a piece is known from the marks: it matches when no unit was spoilt. Knobs: memory in slabs, write
 * rate. The invariants of the real host are asserted: a block lands in reserved memory, a unit lands once.
 */
import { assert } from "../../src/errors.ts";
import type { SimClock } from "./clock.ts";

const UNIT_BYTES = 16 * 1024;

export interface DiskOptions {
  readonly pieceBytes: number;
  readonly totalBytes: number;
  readonly slabBytes: number;
  /** Slabs that receiving may hold. */
  readonly slabsMax: number;
  readonly writeBytesPerMs: number;
}

interface Receiving {
  readonly slabs: Map<number, number>;
  readonly landed: Uint8Array;
  landedUnits: number;
  pendingWrites: number;
  spoilt: boolean;
  dropped: boolean;
}

export class SimDisk {
  slabsHeld = 0;
  slabsPeak = 0;
  refusals = 0;
  writtenBytes = 0;
  private readonly pieces = new Map<number, Receiving>();
  private writerFreeMs = 0;
  private refused = false;

  constructor(
    private readonly clock: SimClock,
    private readonly options: DiskOptions,
    /** A piece's hash is known and all of it written. */
    private readonly judged: (piece: number, good: boolean) => void,
    private readonly freed: () => void,
  ) {}

  reserve(piece: number, begin: number, length: number): boolean {
    const slab = Math.floor(begin / this.options.slabBytes);
    assert(slab === Math.floor((begin + length - 1) / this.options.slabBytes), "a request crosses no slab");
    let receiving = this.pieces.get(piece);
    if (receiving?.slabs.has(slab)) return true;
    if (this.slabsHeld >= this.options.slabsMax) {
      this.refusals++;
      this.refused = true;
      return false;
    }
    if (receiving === undefined) {
      const landed = new Uint8Array(Math.ceil(this.pieceLength(piece) / UNIT_BYTES));
      receiving = { slabs: new Map(), landed, landedUnits: 0, pendingWrites: 0, spoilt: false, dropped: false };
      this.pieces.set(piece, receiving);
    }
    receiving.slabs.set(slab, 0);
    this.slabsHeld++;
    this.slabsPeak = Math.max(this.slabsPeak, this.slabsHeld);
    return true;
  }

  /** A part of a block arrived; only spoilt marks are kept. */
  spoil(piece: number): void {
    this.pieces.get(piece)!.spoilt = true;
  }

  /** A whole block landed. */
  landed(piece: number, begin: number, length: number): void {
    const receiving = this.pieces.get(piece);
    assert(receiving !== undefined, "a block lands in a reserved piece");
    for (let unit = begin / UNIT_BYTES; unit * UNIT_BYTES < begin + length; unit++) {
      assert(receiving.landed[unit] === 0, "a unit lands once");
      receiving.landed[unit] = 1;
      receiving.landedUnits++;
    }
    const slab = Math.floor(begin / this.options.slabBytes);
    const held = receiving.slabs.get(slab);
    assert(held !== undefined, "a block lands in a reserved slab");
    receiving.slabs.set(slab, held + length);
    const slabLength = Math.min(this.options.slabBytes, this.pieceLength(piece) - slab * this.options.slabBytes);
    if (held + length < slabLength) return;
    receiving.pendingWrites++;
    this.writerFreeMs = Math.max(this.writerFreeMs, this.clock.nowMs) + slabLength / this.options.writeBytesPerMs;
    this.clock.at(this.writerFreeMs, () => this.written(piece, receiving, slab, slabLength));
  }

  discard(piece: number): void {
    const receiving = this.pieces.get(piece);
    if (receiving === undefined) return;
    receiving.dropped = true;
    this.pieces.delete(piece);
    this.slabsHeld -= receiving.slabs.size;
    receiving.slabs.clear();
    this.relieve();
  }

  private written(piece: number, receiving: Receiving, slab: number, bytes: number): void {
    receiving.pendingWrites--;
    this.writtenBytes += bytes;
    if (receiving.dropped) return;
    receiving.slabs.delete(slab);
    this.slabsHeld--;
    if (receiving.landedUnits === receiving.landed.length && receiving.pendingWrites === 0) {
      this.pieces.delete(piece);
      this.judged(piece, !receiving.spoilt);
    }
    this.relieve();
  }

  private relieve(): void {
    if (!this.refused || this.slabsHeld >= this.options.slabsMax) return;
    this.refused = false;
    this.clock.after(0, this.freed);
  }

  private pieceLength(piece: number): number {
    return Math.min(this.options.pieceBytes, this.options.totalBytes - piece * this.options.pieceBytes);
  }
}
