/**
 * Which blocks are worth a try at packing them.
 *
 * Files lie together on a disk, so a piece is judged by the block that was tried last: after one that became smaller
 * all of the piece is tried. What did not (archives, films, encrypted data) is tried ever more rarely, up to one block
 * of 8, whichever piece it is of, until one becomes smaller again; and each block is decided on once.
 */
import { BLOCK_BYTES_MAX } from "../limits.ts";
import { KiB } from "../units.ts";

/** A block is sent packed only where it is at most this part of what it was: below, inflating it costs more than it saves. */
export const PACKED_SHARE_MAX = 0.9;
/**
 * One block of 2^3 is tried of an image in which nothing becomes smaller: zstd goes through such data at 1.7 GiB/s, so a
 * line of a gigabit costs less than 1 % of a core. Rarer tries would miss more of the blocks that do become smaller.
 */
const RARITY_MAX = 3;
/** So many dense blocks in a row make nothing rarer: single archives lie between other files everywhere. */
const DENSE_RUN_BORNE = 4;
/** What was decided is kept in cells of this many bytes: three bits each, 192 KiB for an image of 128 GiB. */
const CELL_BYTES = 256 * KiB;
const CELLS_OF_BLOCK_MAX = BLOCK_BYTES_MAX / CELL_BYTES;

export class PackSampler {
  /** One bit for each piece: the block of it that was tried last became smaller. */
  readonly #isLoose: Uint8Array;
  /** One bit for each cell: a block that covers it was tried and did not become smaller. */
  readonly #isDense: Uint8Array;
  /** One bit for each cell: chosen to be tried. */
  readonly #isChosen: Uint8Array;
  /** One bit for each cell: passed over. Counts only as long as its piece is not known to become smaller. */
  readonly #isPassed: Uint8Array;
  /** Blocks that were tried and did not become smaller since one did where it was not expected. */
  #denseRun = 0;
  /** Blocks that are passed over before the next is tried. */
  #passOver = 0;

  constructor(
    readonly pieceBytes: number,
    pieceCount: number,
  ) {
    this.#isLoose = new Uint8Array(Math.ceil(pieceCount / 8));
    const cellsBytes = Math.ceil((pieceCount * pieceBytes) / CELL_BYTES / 8) + CELLS_OF_BLOCK_MAX;
    this.#isDense = new Uint8Array(cellsBytes);
    this.#isPassed = new Uint8Array(cellsBytes);
    this.#isChosen = new Uint8Array(cellsBytes);
  }

  /** Whether the block is to be tried now. */
  wants(piece: number, begin: number): boolean {
    const cell = this.#cell(piece, begin);
    if (hasBit(this.#isDense, cell)) return false;
    if (hasBit(this.#isLoose, piece) || hasBit(this.#isChosen, cell)) return true;
    if (hasBit(this.#isPassed, cell)) return false;
    if (this.#passOver === 0) {
      // What comes before the result of this one is passed over too.
      this.#passOver = this.#passOverNow;
      setBit(this.#isChosen, cell, true);
      return true;
    }
    this.#passOver--;
    setBit(this.#isPassed, cell, true);
    return false;
  }

  /** A block that was tried became small enough, or not. */
  tried(piece: number, begin: number, length: number, isSmaller: boolean): void {
    if (isSmaller) {
      // Found where it was not expected: what follows is looked at afresh.
      if (!hasBit(this.#isLoose, piece)) {
        this.#denseRun = 0;
        this.#passOver = 0;
      }
      setBit(this.#isLoose, piece, true);
      return;
    }
    setBit(this.#isLoose, piece, false);
    const last = this.#cell(piece, begin + length - 1);
    for (let cell = this.#cell(piece, begin); cell <= last; cell++) setBit(this.#isDense, cell, true);
    this.#denseRun++;
    this.#passOver = this.#passOverNow;
  }

  get #passOverNow(): number {
    return 2 ** Math.max(0, Math.min(RARITY_MAX, this.#denseRun - DENSE_RUN_BORNE)) - 1;
  }

  #cell(piece: number, offsetBytes: number): number {
    return Math.floor((piece * this.pieceBytes + offsetBytes) / CELL_BYTES);
  }
}

function hasBit(bits: Uint8Array, index: number): boolean {
  return (bits[index >> 3]! & (1 << (index & 7))) !== 0;
}

function setBit(bits: Uint8Array, index: number, value: boolean): void {
  const mask = 1 << (index & 7);
  if (value) bits[index >> 3]! |= mask;
  else bits[index >> 3]! &= ~mask;
}
