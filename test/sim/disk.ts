/**
 * A simulated disk and slab pool: which units are there, who spoilt them, and when they are written.
 *
 * The hash of a piece is known from the marks: it matches when no unit was spoilt. Knobs: memory in slabs, write
 * rate, seek time, and whether writes are put into order (the real `WriteOrder`) or given to the disk as they come,
 * which then goes on where its head stands if it can, else with the write that waits longest. The invariants of the real host are asserted: a block lands in reserved
 * memory, a unit lands once.
 */
import { WriteOrder } from "../../src/disk/write-order.ts";
import { assert } from "../../src/errors.ts";
import { MiB } from "../../src/units.ts";
import type { SimClock, Timed } from "./clock.ts";

const UNIT_BYTES = 16 * 1024;
/** A run of writes at least this long counts as sequential. */
const LONG_RUN_BYTES = 4 * MiB;
/** How often a node looks at what its disk's order holds back: its longest sleep. */
const LOOK_MS = 500;

export interface DiskOptions {
  readonly pieceBytes: number;
  readonly totalBytes: number;
  readonly slabBytes: number;
  /** Slabs that receiving may hold. */
  readonly slabsMax: number;
  /** Infinity: writing takes no time. */
  readonly writeBytesPerMs: number;
  /** Time to get to where the next write begins; 0 for a disk without a head. */
  readonly seekMs: number;
  /** The node knows that the disk has a head. */
  readonly ordered: boolean;
}

/** A piece being received, or written. */
class Receiving implements Timed {
  piece = -1;
  /** Per slab the bytes that landed in it, or -1 where it is not held. */
  readonly slabs: Int32Array;
  readonly landed: Uint8Array;
  unitCount = 0;
  slabsHeld = 0;
  landedUnits = 0;
  pendingWrites = 0;
  spoilt = false;
  dropped = false;

  constructor(
    private readonly disk: SimDisk,
    slabsMax: number,
    unitsMax: number,
  ) {
    this.slabs = new Int32Array(slabsMax);
    this.landed = new Uint8Array(unitsMax);
  }

  begin(piece: number, unitCount: number): void {
    this.piece = piece;
    this.slabs.fill(-1);
    this.landed.fill(0);
    this.unitCount = unitCount;
    this.slabsHeld = 0;
    this.landedUnits = 0;
    this.pendingWrites = 0;
    this.spoilt = false;
    this.dropped = false;
  }

  /** A slab is written. */
  fire(slab: number): void {
    this.disk.written(this, slab);
  }
}

interface Write {
  readonly of: Receiving;
  readonly slab: number;
  readonly offsetBytes: number;
  readonly bytes: number;
}

export class SimDisk {
  slabsHeld = 0;
  slabsPeak = 0;
  refusals = 0;
  writtenBytes = 0;
  seeks = 0;
  /** Bytes written in runs of at least 4 MiB. */
  longRunBytes = 0;
  private readonly pieces = new Map<number, Receiving>();
  private readonly spare: Receiving[] = [];
  private readonly queue: Write[] = [];
  private busy = false;
  private headBytes = 0;
  private runBytes = 0;
  private refused = false;
  private readonly isInstant: boolean;
  private readonly order: WriteOrder | null;
  /** What the order holds, by its tag. */
  private readonly ordered = new Map<number, Write>();
  private tags = 0;
  private looksAgain = false;

  constructor(
    private readonly clock: SimClock,
    private readonly options: DiskOptions,
    /** A piece's hash is known and all of it written. */
    private readonly judged: (piece: number, good: boolean) => void,
    private readonly freed: () => void,
  ) {
    this.isInstant = options.writeBytesPerMs === Infinity && options.seekMs === 0 && !options.ordered;
    const { pieceBytes, totalBytes } = options;
    const pieceCount = Math.ceil(totalBytes / pieceBytes);
    const heldBytesMax = (options.slabsMax * options.slabBytes) / 2;
    this.order = options.ordered ? new WriteOrder({ pieceCount, pieceBytes, totalBytes, heldBytesMax }) : null;
  }

  reserve(piece: number, begin: number, length: number): boolean {
    const slab = Math.floor(begin / this.options.slabBytes);
    assert(slab === Math.floor((begin + length - 1) / this.options.slabBytes), "a request crosses no slab");
    let receiving = this.pieces.get(piece);
    if (receiving !== undefined && receiving.slabs[slab] >= 0) return true;
    if (this.slabsHeld >= this.options.slabsMax) {
      this.refusals++;
      this.refused = true;
      return false;
    }
    if (receiving === undefined) {
      receiving = this.spare.pop() ?? this.newReceiving();
      receiving.begin(piece, Math.ceil(this.pieceLength(piece) / UNIT_BYTES));
      this.pieces.set(piece, receiving);
    }
    receiving.slabs[slab] = 0;
    receiving.slabsHeld++;
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
    assert(receiving.slabs[slab] >= 0, "a block lands in a reserved slab");
    receiving.slabs[slab] += length;
    const bytes = this.slabLength(piece, slab);
    if (receiving.slabs[slab] < bytes) return;
    receiving.pendingWrites++;
    if (this.isInstant) return this.clock.schedule(this.clock.nowMs, receiving, slab);
    const offsetBytes = piece * this.options.pieceBytes + slab * this.options.slabBytes;
    this.enqueue({ of: receiving, slab, offsetBytes, bytes });
    this.writeNext();
  }

  discard(piece: number): void {
    const receiving = this.pieces.get(piece);
    if (receiving === undefined) return;
    receiving.dropped = true;
    this.pieces.delete(piece);
    this.order?.giveUp(piece);
    this.slabsHeld -= receiving.slabsHeld;
    if (receiving.pendingWrites === 0) this.spare.push(receiving);
    this.relieve();
  }

  /** A slab is on the disk: its memory is free, and after the last one the piece is judged. */
  written(receiving: Receiving, slab: number): void {
    if (!this.isInstant) {
      this.busy = false;
      this.writeNext();
    }
    receiving.pendingWrites--;
    this.writtenBytes += this.slabLength(receiving.piece, slab);
    if (receiving.dropped) {
      if (receiving.pendingWrites === 0) this.spare.push(receiving);
      return;
    }
    receiving.slabsHeld--;
    this.slabsHeld--;
    if (receiving.landedUnits === receiving.unitCount && receiving.pendingWrites === 0) {
      this.pieces.delete(receiving.piece);
      this.spare.push(receiving);
      this.judged(receiving.piece, !receiving.spoilt);
    }
    this.relieve();
  }

  private enqueue(write: Write): void {
    if (this.order === null) {
      this.queue.push(write);
      return;
    }
    this.ordered.set(++this.tags, write);
    this.order.add(this.tags, write.offsetBytes, write.bytes, this.clock.nowMs);
  }

  private dequeue(): Write | undefined {
    if (this.order === null) {
      const sequential = this.queue.findIndex((write) => write.offsetBytes === this.headBytes);
      return this.queue.splice(Math.max(0, sequential), 1)[0];
    }
    const tag = this.order.next(this.clock.nowMs);
    const write = this.ordered.get(tag);
    if (write !== undefined) this.ordered.delete(tag);
    // What is held back will be written at last.
    else if (this.order.count > 0 && !this.looksAgain) {
      this.looksAgain = true;
      this.clock.after(LOOK_MS, () => {
        this.looksAgain = false;
        this.writeNext();
      });
    }
    return write;
  }

  private writeNext(): void {
    if (this.busy) return;
    const write = this.dequeue();
    if (write === undefined) return;
    const { seekMs, writeBytesPerMs } = this.options;
    const isSequential = write.offsetBytes === this.headBytes;
    if (!isSequential) {
      this.seeks++;
      this.runBytes = 0;
    }
    const wasLong = this.runBytes >= LONG_RUN_BYTES;
    this.runBytes += write.bytes;
    if (this.runBytes >= LONG_RUN_BYTES) this.longRunBytes += wasLong ? write.bytes : this.runBytes;
    this.headBytes = write.offsetBytes + write.bytes;
    this.busy = true;
    const durationMs = write.bytes / writeBytesPerMs + (isSequential ? 0 : seekMs);
    this.clock.schedule(this.clock.nowMs + durationMs, write.of, write.slab);
  }

  private relieve(): void {
    if (!this.refused || this.slabsHeld >= this.options.slabsMax) return;
    this.refused = false;
    this.clock.after(0, this.freed);
  }

  private newReceiving(): Receiving {
    const { pieceBytes, slabBytes } = this.options;
    return new Receiving(this, Math.ceil(pieceBytes / slabBytes), Math.ceil(pieceBytes / UNIT_BYTES));
  }

  private slabLength(piece: number, slab: number): number {
    return Math.min(this.options.slabBytes, this.pieceLength(piece) - slab * this.options.slabBytes);
  }

  private pieceLength(piece: number): number {
    return Math.min(this.options.pieceBytes, this.options.totalBytes - piece * this.options.pieceBytes);
  }
}
