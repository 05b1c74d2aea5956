/**
 * Reads pieces from a disk in order and hashes them: verify, seed --check and --delta are this.
 *
 * The whole of it runs inside `run`, in the caller's thread, on a reactor with nothing else in flight.
 * Reads go in payload order with as many in flight as the memory has buffers, so a rotating disk is read
 * once from front to back, and the hash workers share the pieces whose bytes are there.
 *
 * The memory is the region that the hasher was opened with; it belongs to the caller and is used until
 * `run` returns or throws. Nothing is in flight then.
 *
 * A buffer's way: free -> reading -> landed -> hashing -> free. A context holds one piece from its first
 * read to its digest.
 */
import { assert } from "../errors.ts";
import type { Address, Reactor } from "../kernel/reactor.ts";
import { KiB, MiB, type PieceIndex, pieceIndex } from "../units.ts";
import type { HashHandler, Hasher } from "./hasher.ts";
import { type DiskFiles, DiskQueue, type SegmentLocator } from "./queue.ts";

const NONE = -1;
/** Reads in the kernel at once. A chunk of many small extents takes several. */
const READS_MAX = 64;
/** Bytes read and hashed in one go: one transfer of the largest size. */
const CHUNK_BYTES_MAX = 1 * MiB;
const CHUNK_BYTES_MIN = 16 * KiB;
const SLEEP_MS = 1_000;
const POLL_TOKEN = READS_MAX;

/** Memory with which a scan keeps a fast disk and four hash workers busy, in bytes. */
export const SCAN_MEMORY_BYTES = 32 * MiB;

export interface ScanOptions {
  readonly reactor: Reactor;
  readonly hasher: Hasher;
  readonly files: DiskFiles;
  readonly segments: SegmentLocator;
  /** Page aligned. */
  readonly memoryAddress: Address;
  readonly memoryBytes: number;
  readonly pieceBytes: number;
  /** Bytes of the payload. */
  readonly totalBytes: number;
}

export interface ScanHandler {
  /** The digest of a piece is known; the view is valid during the call only. Pieces may come out of order. */
  piece(index: PieceIndex, digest: Uint8Array): void;
  /** Asked once per turn: true ends the scan early. */
  stopped?(): boolean;
}

export class PieceScan implements HashHandler {
  readonly #options: ScanOptions;
  readonly #queue: DiskQueue;
  readonly #pieceCount: number;
  readonly #chunkBytes: number;
  readonly #chunksPerPiece: number;
  readonly #freeBuffers: number[] = [];
  readonly #bufferContext: Int32Array;
  readonly #bufferChunk: Int32Array;
  /** Taken from the front, given back at the end: the workers take turns. */
  readonly #freeContexts: number[] = [];
  readonly #piece: Int32Array;
  /** Buffer of a context's chunk once it landed, by context and chunk. */
  readonly #landed: Int32Array;
  /** First chunk of a context that is not with the hasher; and not yet hashed. */
  readonly #chunksSubmitted: Int32Array;
  readonly #chunksHashed: Int32Array;
  #handler: ScanHandler | null = null;
  #wanted: ((piece: PieceIndex) => boolean) | null = null;
  /** The next piece to open, the context being read into and its next chunk. */
  #nextPiece = 0;
  #context = NONE;
  #nextChunk = 0;
  #hashJobs = 0;
  #bytesRead = 0;
  /** A hash job did not fit its queue. */
  #stalled = false;
  #pollArmed = false;
  #fault: unknown = null;

  constructor(options: ScanOptions) {
    const { hasher, pieceBytes, totalBytes, memoryBytes } = options;
    this.#options = options;
    this.#pieceCount = Math.ceil(totalBytes / pieceBytes);
    this.#chunkBytes = chunkSize(pieceBytes, memoryBytes);
    this.#chunksPerPiece = Math.ceil(pieceBytes / this.#chunkBytes);
    const buffers = Math.floor(memoryBytes / this.#chunkBytes);
    for (let buffer = buffers - 1; buffer >= 0; buffer--) this.#freeBuffers.push(buffer);
    this.#bufferContext = new Int32Array(buffers).fill(NONE);
    this.#bufferChunk = new Int32Array(buffers);
    for (let context = 0; context < hasher.contextsMax; context++) this.#freeContexts.push(context);
    this.#piece = new Int32Array(hasher.contextsMax).fill(NONE);
    this.#landed = new Int32Array(hasher.contextsMax * this.#chunksPerPiece).fill(NONE);
    this.#chunksSubmitted = new Int32Array(hasher.contextsMax);
    this.#chunksHashed = new Int32Array(hasher.contextsMax);
    const done = (_isWrite: boolean, buffer: number) => this.#chunkLanded(buffer);
    this.#queue = new DiskQueue(
      options.reactor,
      options.files,
      options.segments,
      null,
      done,
      (op) => op,
      buffers,
      READS_MAX,
    );
  }

  /** Bytes read and hashed so far. */
  get bytesDone(): number {
    return this.#bytesRead;
  }

  /**
   * Scans the pieces for which `wanted` is true (all of them without it). Returns true when all were
   * reported, false when the handler stopped it. Throws DiskFault when a read fails.
   */
  run(handler: ScanHandler, wanted: ((piece: PieceIndex) => boolean) | null = null): boolean {
    assert(this.#freeContexts.length === this.#options.hasher.contextsMax, "a scan runs once at a time");
    assert(this.#options.reactor.inFlight === 0, "a scan has the reactor to itself");
    this.#handler = handler;
    this.#wanted = wanted;
    this.#nextPiece = 0;
    this.#fault = null;
    let isStopped = false;
    for (;;) {
      isStopped ||= handler.stopped?.() ?? false;
      if (this.#fault === null) this.#read(!isStopped);
      if (this.#fault === null) this.#queue.pump();
      if (this.#stalled) this.#hashAll();
      if (this.#fault !== null || this.#isIdle()) break;
      this.#turn();
    }
    this.#settle();
    if (this.#fault !== null) throw this.#fault;
    return !isStopped;
  }

  /** HashHandler: a chunk is hashed, its buffer is free. */
  updated(context: number, lengthBytes: number): void {
    this.#hashJobs--;
    this.#bytesRead += lengthBytes;
    const slot = context * this.#chunksPerPiece + this.#chunksHashed[context]++;
    this.#freeBuffers.push(this.#landed[slot]);
    this.#landed[slot] = NONE;
  }

  /** HashHandler: a piece is done. */
  finished(context: number, digest: Uint8Array): void {
    this.#hashJobs--;
    const piece = this.#piece[context];
    this.#piece[context] = NONE;
    this.#freeContexts.push(context);
    if (this.#fault === null) this.#handler!.piece(pieceIndex(piece), digest);
  }

  /** Nothing is read, hashed or left to be read. */
  #isIdle(): boolean {
    return this.#context === NONE && this.#queue.pending === 0 && this.#hashJobs === 0 && !this.#stalled;
  }

  /** Starts reads while there are buffers and contexts. A piece that was begun is read to its end. */
  #read(mayOpen: boolean): void {
    while (this.#freeBuffers.length > 0) {
      if (this.#context === NONE && !(mayOpen && this.#openPiece())) return;
      this.#readChunk(this.#freeBuffers.pop()!);
    }
  }

  #openPiece(): boolean {
    while (this.#nextPiece < this.#pieceCount && this.#wanted !== null && !this.#wanted(pieceIndex(this.#nextPiece)))
      this.#nextPiece++;
    if (this.#nextPiece === this.#pieceCount) return false;
    const context = this.#freeContexts.shift();
    if (context === undefined) return false;
    this.#context = context;
    this.#nextChunk = 0;
    this.#piece[context] = this.#nextPiece++;
    this.#chunksSubmitted[context] = 0;
    this.#chunksHashed[context] = 0;
    this.#options.hasher.begin(context);
    return true;
  }

  #readChunk(buffer: number): void {
    const context = this.#context;
    const chunk = this.#nextChunk++;
    this.#bufferContext[buffer] = context;
    this.#bufferChunk[buffer] = chunk;
    const offset = this.#piece[context] * this.#options.pieceBytes + chunk * this.#chunkBytes;
    this.#queue.submit(false, buffer, offset, this.#chunkLength(context, chunk), this.#address(buffer));
    if (this.#nextChunk === this.#chunkCount(context)) this.#context = NONE;
  }

  #chunkLanded(buffer: number): void {
    const context = this.#bufferContext[buffer];
    this.#landed[context * this.#chunksPerPiece + this.#bufferChunk[buffer]] = buffer;
    this.#hash(context);
  }

  /** Gives the hasher what landed, in order; behind the last chunk it is asked for the digest. */
  #hash(context: number): void {
    const { hasher } = this.#options;
    const chunks = this.#chunkCount(context);
    while (this.#chunksSubmitted[context] < chunks) {
      const chunk = this.#chunksSubmitted[context];
      const buffer = this.#landed[context * this.#chunksPerPiece + chunk];
      if (buffer === NONE) return;
      const isTaken = hasher.update(context, this.#address(buffer), this.#chunkLength(context, chunk));
      if (!isTaken) return this.#stall();
      this.#hashJobs++;
      this.#chunksSubmitted[context]++;
    }
    // One more than the chunks: the digest is asked for.
    if (this.#chunksSubmitted[context] > chunks) return;
    if (!hasher.finish(context)) return this.#stall();
    this.#hashJobs++;
    this.#chunksSubmitted[context]++;
  }

  #stall(): void {
    this.#stalled = true;
  }

  #hashAll(): void {
    this.#stalled = false;
    for (let context = 0; context < this.#piece.length; context++) {
      if (this.#piece[context] !== NONE) this.#hash(context);
    }
  }

  /** Waits for reads or hashes. */
  #turn(): void {
    const { reactor, hasher } = this.#options;
    if (!this.#pollArmed) {
      this.#pollArmed = true;
      reactor.pollIn(hasher.wakeFd, POLL_TOKEN);
    }
    hasher.sleeping(true);
    const drained = hasher.drain(this);
    reactor.run(drained > 0 || this.#stalled ? 0 : SLEEP_MS, this.#completed);
    hasher.sleeping(false);
    hasher.drain(this);
  }

  readonly #completed = (token: number, result: number): void => {
    if (token === POLL_TOKEN) {
      this.#pollArmed = false;
      return;
    }
    // After a fault the rest only has to end, so that the buffers are free again.
    if (this.#fault !== null) return;
    try {
      this.#queue.completed(token, result);
    } catch (error) {
      // Thrown on by `run` when nothing is in flight any more.
      this.#fault = error;
    }
  };

  /** Waits until neither the kernel nor the hasher touches the memory. */
  #settle(): void {
    const { reactor, hasher } = this.#options;
    if (this.#pollArmed) reactor.cancel(POLL_TOKEN);
    while (reactor.inFlight > 0 || this.#hashJobs > 0) {
      reactor.run(reactor.inFlight > 0 && this.#hashJobs === 0 ? SLEEP_MS : 1, this.#completed);
      hasher.drain(this);
    }
    assert(!this.#pollArmed, "the poll ended");
  }

  #address(buffer: number): Address {
    return this.#options.memoryAddress + buffer * this.#chunkBytes;
  }

  #pieceLength(context: number): number {
    const start = this.#piece[context] * this.#options.pieceBytes;
    return Math.min(this.#options.pieceBytes, this.#options.totalBytes - start);
  }

  #chunkCount(context: number): number {
    return Math.ceil(this.#pieceLength(context) / this.#chunkBytes);
  }

  #chunkLength(context: number, chunk: number): number {
    return Math.min(this.#chunkBytes, this.#pieceLength(context) - chunk * this.#chunkBytes);
  }
}

/** A power of two: at most 1 MiB and hardly more than a piece, and at least eight of them in the memory. */
function chunkSize(pieceBytes: number, memoryBytes: number): number {
  let bytes = CHUNK_BYTES_MAX;
  while (bytes > CHUNK_BYTES_MIN && (bytes / 2 >= pieceBytes || bytes * 8 > memoryBytes)) bytes /= 2;
  assert(memoryBytes >= bytes, "a scan has memory for one chunk");
  return bytes;
}
