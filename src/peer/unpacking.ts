/**
 * The way in of packed blocks: where their payload lands, and what becomes of it.
 *
 * It lands in the cache of packed blocks, from where it can be passed on to others as it is; where that has no room,
 * at the block's own place. A hash worker inflates it to there. Only then the block has landed, for the piece's hash,
 * for the disk and for the swarm; until then the swarm keeps it claimed.
 */
import type { Packer } from "../disk/hasher.ts";
import type { Address } from "../kernel/reactor.ts";
import type { PackedBlock } from "../swarm/download.ts";
import type { Session } from "../swarm/session.ts";
import { NO_ENTRY, type PackedCache, type PackedEntry } from "./packed-cache.ts";

/** The payload of a packed block that has not begun to arrive. */
export const NOT_BEGUN = -2;

/** What of the way in belongs to all blocks; `Intake` is it. */
export interface BlockPlaces {
  addressOf(piece: number, begin: number): Address;
  landed(piece: number, begin: number, lengthBytes: number): void;
}

interface UnpackJob extends PackedBlock {
  readonly entry: PackedEntry;
  readonly packedBytes: number;
}

export class Unpacking {
  /** By tag; null: the tag is free. As many as there are blocks claimed, so the slab pool is their limit. */
  readonly #jobs: (UnpackJob | null)[] = [];
  readonly #freeTags: number[] = [];
  /** Tags whose jobs did not fit the workers' queue, oldest first. */
  readonly #waiting: number[] = [];

  constructor(
    readonly places: BlockPlaces,
    readonly cache: PackedCache,
    readonly packer: Packer,
    /** The block was inflated into its place, or (`isGood` false) it cannot be. */
    readonly done: (block: PackedBlock, isGood: boolean) => void,
  ) {}

  /** A worker may still write into a slab. */
  get busy(): boolean {
    return this.#freeTags.length < this.#jobs.length;
  }

  /** Where the packed block that is due lands: an entry of the cache, or NO_ENTRY for the block's own place. */
  begin(session: Session): PackedEntry {
    return this.cache.take(session.payloadBytes);
  }

  /** Where its next byte goes. */
  addressOf(session: Session, entry: PackedEntry): Address {
    const start =
      entry === NO_ENTRY
        ? this.places.addressOf(session.payloadPiece, session.payloadBegin)
        : this.cache.address(entry);
    return start + session.payloadReceived;
  }

  /** The payload will not become whole. */
  abandon(entry: PackedEntry): void {
    if (entry >= 0) this.cache.unpin(entry);
  }

  /** All of the payload is there. */
  received(session: Session, entry: PackedEntry): void {
    const job: UnpackJob = {
      piece: session.payloadPiece,
      begin: session.payloadBegin,
      length: session.payloadLength,
      packedBytes: session.payloadBytes,
      banKey: session.banKey,
      entry,
    };
    const tag = this.#freeTags.pop() ?? this.#jobs.push(null) - 1;
    this.#jobs[tag] = job;
    this.#waiting.push(tag);
    this.pump();
  }

  /** Hands the workers what did not fit before. */
  pump(): void {
    while (this.#waiting.length > 0 && this.#submit(this.#waiting[0]!)) this.#waiting.shift();
  }

  /** PackHandler: a block was inflated, or its payload is not what it should be. */
  unpacked(tag: number, isSound: boolean): void {
    const job = this.#jobs[tag]!;
    this.#jobs[tag] = null;
    this.#freeTags.push(tag);
    const { piece, begin, length, packedBytes, entry } = job;
    if (entry !== NO_ENTRY) {
      if (isSound) {
        this.cache.markReady(entry, packedBytes);
        this.cache.name(entry, piece, begin, length);
      }
      this.cache.unpin(entry);
    }
    if (isSound) this.places.landed(piece, begin, length);
    this.done(job, isSound);
  }

  #submit(tag: number): boolean {
    const { piece, begin, length, packedBytes, entry } = this.#jobs[tag]!;
    const target = this.places.addressOf(piece, begin);
    const source = entry === NO_ENTRY ? target : this.cache.address(entry);
    return this.packer.unpack(tag, source, packedBytes, target, length);
  }
}
