/**
 * One reading of a source: data ranges in, extents and piece hashes out, and the copy of `--save` beside it.
 *
 * A single thread drives it: reads run ahead into slabs, slabs are looked at in disk order for blocks of
 * zeros, and what is payload goes from the slab to the hash workers without being copied. The pass owns its
 * reactor, hasher and memory and gives them back when `run` ends, however it ends.
 */
import { availableParallelism } from "node:os";
import { openHasher } from "../disk/hash-pool.ts";
import { CONTEXTS_PER_THREAD, DIGEST_BYTES, type HashAlgorithm, type Hasher } from "../disk/hasher.ts";
import { type Memory, mapMemory } from "../kernel/memory.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import { MiB } from "../units.ts";
import {
  Classifier,
  type ClassifierOptions,
  CLASSIFY_BLOCK_BYTES,
  type ExtentSource,
  type PayloadSink,
} from "./classify.ts";
import { GivenExtents } from "./exact-extents.ts";
import { PieceFeed } from "./piece-feed.ts";
import type { RangeList } from "./range-list.ts";
import { ReadAhead, READS_MAX, type ReadSource } from "./read-ahead.ts";
import { type SaveFile, SaveWriter } from "./save-file.ts";
import { Interrupted, type WorkControl } from "./work-thread.ts";
import { ZeroScanner } from "./zero-blocks.ts";

/** One read and one hash job: as long as in a verification; shorter ones cost a tenth more time per byte. */
const SLAB_BYTES = 1 * MiB;
/** Runs of one slab, each at least one block. */
const RUNS_PER_SLAB_MAX = SLAB_BYTES / CLASSIFY_BLOCK_BYTES;
/** Most memory for slabs: four threads hash four pieces of 16 MiB each at a time, more than any disk can feed. */
const SLABS_BYTES_MAX = 256 * MiB;
/** Zeros that are hashed lie here; long, so that they cost few jobs. */
const ZERO_BYTES = 1 * MiB;
/** Longest sleep: a request to stop is seen within it. */
const SLEEP_MS = 200;

const WAKE_TOKEN: Token = 0;
const READ_TOKENS: Token = 1;
const SAVE_TOKENS: Token = 1 << 20;

export interface PassOptions {
  readonly source: ReadSource;
  /** What is read; the rest of the source is zeros. */
  readonly ranges: RangeList;
  readonly classify: ClassifierOptions;
  /** Extents that are sent as they are; null: they are found. */
  readonly given: RangeList | null;
  readonly pieceBytes: number;
  /** SHA-256 of each piece is computed as well, for a signature. */
  readonly sha256: boolean;
  readonly save: SaveFile | null;
  /** Zero: hash in this thread. Default: every core. */
  readonly hashWorkers?: number;
  openReactor(queueDepth: number): Reactor;
}

export interface PassResult {
  readonly extents: RangeList;
  readonly payloadBytes: number;
  readonly mergedZeroBytes: number;
  readonly pieceCount: number;
  /** SHA-1, 20 bytes for each piece. */
  readonly pieceHashes: Uint8Array;
  /** 32 bytes for each piece; null where it was not asked for. */
  readonly sha256: Uint8Array | null;
}

/** Outcome of a pass that found more extents than allowed. */
export interface PassOverflow {
  readonly widerGapBytes: number;
}

/** Reads the source once. Throws DiskFault, Interrupted, or a usage failure for too many pieces. */
export function runPass(options: PassOptions, control: WorkControl): PassResult | PassOverflow {
  const workers = options.hashWorkers ?? availableParallelism();
  const contextsMax = Math.max(workers, 1) * CONTEXTS_PER_THREAD;
  const slabCount = slabsFor(contextsMax, options.pieceBytes, options.ranges.totalBytes);
  const memory = mapMemory(slabCount * SLAB_BYTES + ZERO_BYTES);
  const reactor = options.openReactor(READS_MAX + RUNS_PER_SLAB_MAX * 2);
  const algorithm = algorithmOf(options);
  const hasher = openHasher({
    address: memory.address,
    lengthBytes: memory.lengthBytes,
    contextsMax,
    workers,
    algorithm,
  });
  const pass = new CapturePass(options, control, memory, slabCount, reactor, hasher);
  try {
    return pass.run();
  } finally {
    pass.quiesce();
    reactor.close();
    hasher.close();
    memory.free();
  }
}

function algorithmOf({ sha256 }: PassOptions): HashAlgorithm {
  return sha256 ? "sha1+sha256" : "sha1";
}

/** Each context is hashed while the next piece is being read. */
function slabsFor(contexts: number, pieceBytes: number, bytes: number): number {
  const wantedBytes = (contexts + 1) * pieceBytes + READS_MAX * SLAB_BYTES;
  return Math.ceil(Math.min(wantedBytes, SLABS_BYTES_MAX, Math.max(bytes, SLAB_BYTES)) / SLAB_BYTES);
}

class CapturePass implements PayloadSink {
  readonly #reads: ReadAhead;
  readonly #feed: PieceFeed;
  readonly #classifier: ExtentSource;
  readonly #scanner: ZeroScanner;
  readonly #save: SaveWriter | null;
  /** The slab that is being looked at. */
  #slab = -1;
  #wakeArmed = false;
  #ended = false;
  /** What a completion said, thrown outside of the reactor so that it forgets no other one. */
  #fault: Error | null = null;

  constructor(
    readonly options: PassOptions,
    readonly control: WorkControl,
    readonly memory: Memory,
    slabCount: number,
    readonly reactor: Reactor,
    readonly hasher: Hasher,
  ) {
    const slabs = { address: memory.address, slabBytes: SLAB_BYTES, count: slabCount };
    const zeros = { address: memory.address + slabCount * SLAB_BYTES, lengthBytes: ZERO_BYTES };
    this.#reads = new ReadAhead(reactor, options.source, options.ranges, slabs, READ_TOKENS);
    this.#feed = new PieceFeed(hasher, options.pieceBytes, zeros, this.#reads, DIGEST_BYTES[algorithmOf(options)]);
    const { given, classify } = options;
    this.#classifier = given === null ? new Classifier(classify, this) : new GivenExtents(given, this);
    this.#scanner = new ZeroScanner(memory.bytes);
    this.#save = options.save && new SaveWriter(reactor, options.save, this.#reads, SAVE_TOKENS, RUNS_PER_SLAB_MAX);
  }

  run(): PassResult | PassOverflow {
    while (!this.#step()) {
      if (this.control.stopped()) throw new Interrupted("stopped");
      this.control.progress(this.#reads.bytesTaken, this.options.ranges.totalBytes);
      this.#wait();
    }
    const classifier = this.#classifier;
    if (classifier.overflowed) return { widerGapBytes: classifier.widerGapBytes() };
    return {
      extents: classifier.extents,
      payloadBytes: this.#feed.payloadBytes,
      mergedZeroBytes: classifier.mergedZeroBytes,
      pieceCount: this.#feed.pieceCount,
      pieceHashes: this.#feed.digests(0, DIGEST_BYTES.sha1),
      sha256: this.options.sha256 ? this.#feed.digests(DIGEST_BYTES.sha1, DIGEST_BYTES.sha256) : null,
    };
  }

  /** Waits for what the kernel still does: its memory may be given back afterwards. */
  quiesce(): void {
    if (this.#wakeArmed) this.reactor.cancel(WAKE_TOKEN);
    while (this.reactor.inFlight > 0) this.reactor.run(Number.POSITIVE_INFINITY, () => {});
  }

  /** The classifier's payload: memory of the slab that is being looked at. */
  data(diskOffsetBytes: number, lengthBytes: number): void {
    const address = this.#reads.address(this.#slab) + diskOffsetBytes - this.#reads.diskOffset(this.#slab);
    this.#feed.data(address, lengthBytes, this.#slab);
    this.#save?.write(diskOffsetBytes, address, lengthBytes, this.#slab);
  }

  zeros(lengthBytes: number): void {
    this.#feed.zero(lengthBytes);
  }

  /** Does what can be done without waiting. True when the pass is over. */
  #step(): boolean {
    this.#reads.pump();
    this.#feed.pump();
    while (this.#hasRoomForSlab()) {
      const slab = this.#reads.take();
      if (slab < 0) break;
      this.#lookAt(slab);
      if (this.#classifier.overflowed) return true;
      this.#reads.pump();
      this.#feed.pump();
    }
    if (this.#reads.ended) this.#end();
    return this.#feed.done && (this.#save === null || this.#save.pending === 0);
  }

  #hasRoomForSlab(): boolean {
    return this.#feed.isEmpty && (this.#save === null || this.#save.hasRoom(RUNS_PER_SLAB_MAX));
  }

  #lookAt(slab: number): void {
    const classifier = this.#classifier;
    const holeBytes = this.#reads.diskOffset(slab) - classifier.positionBytes;
    this.#slab = slab;
    if (holeBytes > 0) classifier.zero(holeBytes);
    const lengthBytes = this.#reads.lengthBytes(slab);
    if (this.options.classify.all || this.options.given !== null) classifier.data(lengthBytes);
    else this.#scanner.runs(this.#reads.address(slab) - this.memory.address, lengthBytes, classifier);
    this.#reads.release(slab);
  }

  /** The source was read to its end: the rest are zeros. */
  #end(): void {
    if (!this.#ended) {
      this.#ended = true;
      const restBytes = this.options.classify.diskBytes - this.#classifier.positionBytes;
      if (restBytes > 0) this.#classifier.zero(restBytes);
      this.#classifier.finish();
      this.#feed.end();
    }
    this.#feed.pump();
  }

  #wait(): void {
    if (this.hasher.drain(this.#feed) > 0) return;
    this.#armWake();
    this.hasher.sleeping(true);
    this.reactor.run(SLEEP_MS, this.#completed);
    this.hasher.sleeping(false);
    if (this.#fault) throw this.#fault;
    this.hasher.drain(this.#feed);
  }

  #armWake(): void {
    if (this.#wakeArmed || this.hasher.workers === 0) return;
    this.reactor.pollIn(this.hasher.wakeFd, WAKE_TOKEN);
    this.#wakeArmed = true;
  }

  readonly #completed = (token: Token, result: number): void => {
    try {
      if (token === WAKE_TOKEN) this.#wakeArmed = false;
      else if (token >= SAVE_TOKENS) this.#save!.completed(token - SAVE_TOKENS, result);
      else this.#reads.completed(token - READ_TOKENS, result);
    } catch (error) {
      this.#fault ??= error as Error;
    }
  };
}
