/**
 * SHA-1 of streams (FIPS 180-4, 5 and 6.1), several at a time: what of an update is whole blocks runs in a lane beside those
 * of others, what is less than a block waits with its context for the next update or for the digest.
 *
 * States, tails and the table for the code lie in memory of its own. Nothing is allocated for an update.
 */
import { assert } from "../../errors.ts";
import { copyMemory } from "../../kernel/libc.ts";
import { type Memory, mapMemory } from "../../kernel/memory.ts";
import type { Address } from "../../kernel/reactor.ts";
import { KiB } from "../../units.ts";
import type { HashLanes } from "../hash-lanes.ts";
import { BLOCK_BYTES, LANES_MAX, ROW_BYTES, STATE_BYTES } from "./listing.ts";

/** FIPS 180-4, 5.3.1. */
const INITIAL = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0] as const;
/** The message's length in bits, at the end of the last block (5.1.1). */
const LENGTH_BYTES = 8;

/** A lane that others may join stops after so much: 35 microseconds alone, and a call costs 0.04. */
const SLICE_BLOCKS = (64 * KiB) / BLOCK_BYTES;

/** The table of rows, then the last one or two blocks of a message that is being ended, then all states, then all tails. */
const LAST_OFFSET = LANES_MAX * ROW_BYTES;
const STATES_OFFSET = LAST_OFFSET + 2 * BLOCK_BYTES;

/** What `Sha1Code` is. */
export interface Compression {
  compress(lanes: number, table: Address, blocks: number): void;
  free(): void;
}

export class Sha1Lanes implements HashLanes {
  readonly lanesMax = LANES_MAX;
  #active = 0;
  /** Of each lane at work. */
  readonly #tag = new Int32Array(LANES_MAX);
  readonly #context = new Int32Array(LANES_MAX);
  readonly #data = new Float64Array(LANES_MAX);
  readonly #blocks = new Int32Array(LANES_MAX);
  /** Of each context: its bytes so far. */
  readonly #lengthBytes: Float64Array;
  readonly #isBegun: Uint8Array;
  readonly #tailsOffset: number;
  readonly #memory: Memory;
  readonly #words: Uint32Array;

  /** `code` belongs to these lanes from now on. */
  constructor(
    readonly code: Compression,
    /** Where the offsets of updates begin. */
    readonly regionAddress: Address,
    contextsMax: number,
  ) {
    this.#lengthBytes = new Float64Array(contextsMax);
    this.#isBegun = new Uint8Array(contextsMax);
    this.#tailsOffset = STATES_OFFSET + contextsMax * STATE_BYTES;
    this.#memory = mapMemory(this.#tailsOffset + contextsMax * BLOCK_BYTES);
    const { bytes } = this.#memory;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }

  get active(): number {
    return this.#active;
  }

  begin(context: number): void {
    assert(!this.isBusy(context), "a context is not begun while an update of it is at work");
    this.#words.set(INITIAL, this.#stateOffset(context) / 4);
    this.#lengthBytes[context] = 0;
    this.#isBegun[context] = 1;
  }

  isBusy(context: number): boolean {
    for (let lane = 0; lane < this.#active; lane++) if (this.#context[lane] === context) return true;
    return false;
  }

  start(tag: number, context: number, offsetBytes: number, lengthBytes: number): boolean {
    assert(this.#isBegun[context] === 1, "a hash context is begun before it is used");
    assert(this.#active < LANES_MAX, "an update is given a lane of its own");
    const data = this.regionAddress + offsetBytes;
    const headBytes = this.#fillTail(context, data, lengthBytes);
    const blocks = Math.floor((lengthBytes - headBytes) / BLOCK_BYTES);
    const restBytes = lengthBytes - headBytes - blocks * BLOCK_BYTES;
    this.#lengthBytes[context] += lengthBytes;
    // Its place is free: where the tail is not full yet, all the bytes went into it.
    if (restBytes > 0) copyMemory(this.#tail(context), data + lengthBytes - restBytes, restBytes);
    if (blocks === 0) return false;
    const lane = this.#active++;
    this.#tag[lane] = tag;
    this.#context[lane] = context;
    this.#data[lane] = data + headBytes;
    this.#blocks[lane] = blocks;
    return true;
  }

  work(done: (tag: number) => void): void {
    const lanes = this.#active;
    let blocks = lanes < LANES_MAX ? SLICE_BLOCKS : Number.POSITIVE_INFINITY;
    for (let lane = 0; lane < lanes; lane++) {
      blocks = Math.min(blocks, this.#blocks[lane]);
      this.#setRow(lane, this.#context[lane], this.#data[lane]);
    }
    this.code.compress(lanes, this.#memory.address, blocks);
    // From the last, since the last one takes the place of one that is done.
    for (let lane = lanes - 1; lane >= 0; lane--) {
      this.#data[lane] += blocks * BLOCK_BYTES;
      this.#blocks[lane] -= blocks;
      if (this.#blocks[lane] === 0) done(this.#remove(lane));
    }
  }

  digest(context: number, target: Uint8Array): void {
    assert(this.#isBegun[context] === 1 && !this.isBusy(context), "a digest is of a context that was begun and rests");
    this.#compressOne(context, this.#memory.address + LAST_OFFSET, this.#padLast(context));
    const state = this.#stateOffset(context) / 4;
    for (let word = 0; word < INITIAL.length; word++) putWord(target, 4 * word, this.#words[state + word]);
    this.#isBegun[context] = 0;
  }

  free(): void {
    this.#memory.free();
    this.code.free();
  }

  /** Completes a block of which a part is there. Returns how many of the bytes went into it. */
  #fillTail(context: number, data: Address, lengthBytes: number): number {
    const tailBytes = this.#lengthBytes[context] % BLOCK_BYTES;
    if (tailBytes === 0) return 0;
    const takenBytes = Math.min(BLOCK_BYTES - tailBytes, lengthBytes);
    copyMemory(this.#tail(context) + tailBytes, data, takenBytes);
    if (tailBytes + takenBytes === BLOCK_BYTES) this.#compressOne(context, this.#tail(context), 1);
    return takenBytes;
  }

  /** The tail, a bit of 1, zeros, and the length (5.1.1). Returns how many blocks that makes. */
  #padLast(context: number): number {
    const lengthBytes = this.#lengthBytes[context];
    const tailBytes = lengthBytes % BLOCK_BYTES;
    const blocks = tailBytes + 1 + LENGTH_BYTES > BLOCK_BYTES ? 2 : 1;
    const last = this.#memory.bytes.subarray(LAST_OFFSET, LAST_OFFSET + blocks * BLOCK_BYTES);
    const tailOffset = this.#tailsOffset + context * BLOCK_BYTES;
    last.set(this.#memory.bytes.subarray(tailOffset, tailOffset + tailBytes));
    last.fill(0, tailBytes);
    last[tailBytes] = 0x80;
    putWord(last, last.length - 8, Math.floor(lengthBytes / 2 ** 29));
    putWord(last, last.length - 4, lengthBytes * 8);
    return blocks;
  }

  #compressOne(context: number, data: Address, blocks: number): void {
    this.#setRow(0, context, data);
    this.code.compress(1, this.#memory.address, blocks);
  }

  #setRow(lane: number, context: number, data: Address): void {
    const row = (lane * ROW_BYTES) / 4;
    this.#setAddress(row, this.#memory.address + this.#stateOffset(context));
    this.#setAddress(row + 2, data);
  }

  #setAddress(word: number, address: Address): void {
    this.#words[word] = address;
    this.#words[word + 1] = address / 2 ** 32;
  }

  /** Takes an update out of its lane. Returns its tag. */
  #remove(lane: number): number {
    const tag = this.#tag[lane];
    const last = --this.#active;
    this.#tag[lane] = this.#tag[last];
    this.#context[lane] = this.#context[last];
    this.#data[lane] = this.#data[last];
    this.#blocks[lane] = this.#blocks[last];
    return tag;
  }

  #stateOffset(context: number): number {
    return STATES_OFFSET + context * STATE_BYTES;
  }

  #tail(context: number): Address {
    return this.#memory.address + this.#tailsOffset + context * BLOCK_BYTES;
  }
}

/** 32 bits, big-endian; of a larger number the lower ones. */
function putWord(target: Uint8Array, at: number, value: number): void {
  const word = value % 2 ** 32;
  target[at] = word >>> 24;
  target[at + 1] = word >>> 16;
  target[at + 2] = word >>> 8;
  target[at + 3] = word;
}
