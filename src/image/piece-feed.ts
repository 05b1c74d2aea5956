/**
 * Cuts the payload into pieces and has them hashed, several at a time.
 *
 * Payload arrives as runs of memory (slabs) and runs of zeros; a piece may be made of many. Piece i goes to
 * context i mod contexts, so that consecutive pieces are hashed by different workers. The queue holds what
 * the hasher has no room for; whoever fills it sees to it that it is empty before the next slab.
 *
 * Slabs belong to the caller; every run that is not hashed yet holds its slab.
 */
import { assert, ExitCode, Failure } from "../errors.ts";
import type { HashHandler, Hasher } from "../disk/hasher.ts";
import type { Address } from "../kernel/reactor.ts";
import { TORRENT_BYTES_MAX } from "../limits.ts";

/** Marks a run that lies in no slab. */
const NO_SLAB = -1;

/** Counts who still needs the bytes of a slab. */
export interface SlabHolds {
  hold(slab: number): void;
  release(slab: number): void;
}

export interface ZeroMemory {
  readonly address: Address;
  readonly lengthBytes: number;
}

export class PieceFeed implements HashHandler {
  #pieces = 0;
  #digests: Uint8Array;
  #payloadBytes = 0;
  #hashedBytes = 0;
  /** What the current piece still lacks; a piece that lacks nothing waits for `finish` to be accepted. */
  #pieceLeftBytes = 0;
  #pieceOpen = false;
  #ended = false;
  #unfinished = 0;
  readonly #queue = new RunQueue();
  readonly #pieceOfContext: Float64Array;
  /** Slabs of the updates that each context has pending, oldest first. */
  readonly #pending: RunQueue[] = [];

  constructor(
    readonly hasher: Hasher,
    readonly pieceBytes: number,
    readonly zeros: ZeroMemory,
    readonly slabs: SlabHolds,
    /** Of one piece, as `hasher` gives it. */
    readonly digestBytes: number,
  ) {
    this.#digests = new Uint8Array(1024 * digestBytes);
    this.#pieceOfContext = new Float64Array(hasher.contextsMax).fill(-1);
    for (let i = 0; i < hasher.contextsMax; i++) this.#pending.push(new RunQueue());
  }

  get pieceCount(): number {
    return this.#pieces;
  }

  /** The same `lengthBytes` at `offsetBytes` of each piece's digest, in order; complete once `done`. */
  digests(offsetBytes: number, lengthBytes: number): Uint8Array {
    const column = new Uint8Array(this.#pieces * lengthBytes);
    for (let piece = 0; piece < this.#pieces; piece++) {
      const at = piece * this.digestBytes + offsetBytes;
      column.set(this.#digests.subarray(at, at + lengthBytes), piece * lengthBytes);
    }
    return column;
  }

  /** Payload told so far, in bytes. */
  get payloadBytes(): number {
    return this.#payloadBytes;
  }

  /** Everything that was told went to the hasher. */
  get isEmpty(): boolean {
    return this.#queue.isEmpty && !(this.#pieceOpen && this.#pieceLeftBytes === 0);
  }

  /** `end` was called and every hash is there. */
  get done(): boolean {
    return (
      this.#ended &&
      this.isEmpty &&
      !this.#pieceOpen &&
      this.#unfinished === 0 &&
      this.#hashedBytes === this.#payloadBytes
    );
  }

  /** Payload goes on with memory of a slab. */
  data(address: Address, lengthBytes: number, slab: number): void {
    this.slabs.hold(slab);
    this.#queue.push(address, lengthBytes, slab);
    this.#payloadBytes += lengthBytes;
  }

  /** Payload goes on with zeros, any number of them. */
  zero(lengthBytes: number): void {
    this.#queue.push(this.zeros.address, lengthBytes, NO_SLAB);
    this.#payloadBytes += lengthBytes;
  }

  /** There is no more payload: the last piece may be short. */
  end(): void {
    this.#ended = true;
  }

  /** Gives the hasher what it takes. */
  pump(): void {
    for (;;) {
      if (this.#pieceOpen && this.#pieceIsWhole() && !this.#closePiece()) return;
      if (this.#queue.isEmpty) return;
      if (!this.#pieceOpen && !this.#openPiece()) return;
      if (!this.#updateOnce()) return;
    }
  }

  updated(context: number, lengthBytes: number): void {
    const pending = this.#pending[context];
    const slab = pending.slab;
    assert(pending.lengthBytes === lengthBytes, "updates are reported in order");
    pending.shift();
    this.#hashedBytes += lengthBytes;
    if (slab !== NO_SLAB) this.slabs.release(slab);
  }

  finished(context: number, digest: Uint8Array): void {
    this.#digests.set(digest, this.#pieceOfContext[context] * this.digestBytes);
    this.#pieceOfContext[context] = -1;
    this.#unfinished--;
  }

  get #context(): number {
    return (this.#pieces - 1) % this.hasher.contextsMax;
  }

  #pieceIsWhole(): boolean {
    return this.#pieceLeftBytes === 0 || (this.#ended && this.#queue.isEmpty);
  }

  /** False when the piece's context is still busy with an earlier piece. */
  #openPiece(): boolean {
    const context = this.#pieces % this.hasher.contextsMax;
    if (this.#pieceOfContext[context] !== -1) return false;
    this.#pieceOfContext[context] = this.#pieces;
    this.#pieces++;
    this.#growDigests();
    this.#pieceLeftBytes = this.pieceBytes;
    this.#pieceOpen = true;
    this.hasher.begin(context);
    return true;
  }

  #closePiece(): boolean {
    if (!this.hasher.finish(this.#context)) return false;
    this.#unfinished++;
    this.#pieceOpen = false;
    return true;
  }

  #updateOnce(): boolean {
    const { address, slab } = this.#queue;
    let lengthBytes = Math.min(this.#queue.lengthBytes, this.#pieceLeftBytes);
    if (slab === NO_SLAB) lengthBytes = Math.min(lengthBytes, this.zeros.lengthBytes);
    if (!this.hasher.update(this.#context, address, lengthBytes)) return false;
    const isLast = lengthBytes === this.#queue.lengthBytes;
    // Contexts run apart, so each part of a run that goes on in the next piece holds the slab by itself.
    if (!isLast && slab !== NO_SLAB) this.slabs.hold(slab);
    this.#pending[this.#context].push(address, lengthBytes, slab);
    if (isLast) this.#queue.shift();
    else this.#queue.advance(lengthBytes, slab !== NO_SLAB);
    this.#pieceLeftBytes -= lengthBytes;
    return true;
  }

  #growDigests(): void {
    const neededBytes = this.#pieces * this.digestBytes;
    if (neededBytes > TORRENT_BYTES_MAX / 2) {
      const text = `${this.#pieces} pieces make a torrent that is too large; give a larger --piece-size`;
      throw new Failure(ExitCode.usage, "usage", text);
    }
    if (neededBytes <= this.#digests.length) return;
    const larger = new Uint8Array(this.#digests.length * 2);
    larger.set(this.#digests);
    this.#digests = larger;
  }
}

/** A queue of (address, length, slab) without an object per run. */
class RunQueue {
  #numbers = new Float64Array(3 * 64);
  #head = 0;
  #tail = 0;

  get isEmpty(): boolean {
    return this.#head === this.#tail;
  }

  get address(): number {
    return this.#numbers[this.#head];
  }

  get lengthBytes(): number {
    return this.#numbers[this.#head + 1];
  }

  get slab(): number {
    return this.#numbers[this.#head + 2];
  }

  push(address: number, lengthBytes: number, slab: number): void {
    if (this.#tail === this.#numbers.length) this.#makeRoom();
    this.#numbers[this.#tail] = address;
    this.#numbers[this.#tail + 1] = lengthBytes;
    this.#numbers[this.#tail + 2] = slab;
    this.#tail += 3;
  }

  shift(): void {
    assert(!this.isEmpty, "the queue holds a run");
    this.#head += 3;
    if (this.#head === this.#tail) this.#head = this.#tail = 0;
  }

  /** Takes the first `bytes` off the oldest run. */
  advance(bytes: number, movesAddress: boolean): void {
    if (movesAddress) this.#numbers[this.#head] += bytes;
    this.#numbers[this.#head + 1] -= bytes;
  }

  #makeRoom(): void {
    const used = this.#tail - this.#head;
    const target = used * 2 > this.#numbers.length ? new Float64Array(this.#numbers.length * 2) : this.#numbers;
    if (target === this.#numbers) target.copyWithin(0, this.#head, this.#tail);
    else target.set(this.#numbers.subarray(this.#head, this.#tail));
    this.#numbers = target;
    this.#head = 0;
    this.#tail = used;
  }
}
