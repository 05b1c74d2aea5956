/**
 * The way out of packed blocks: packs what is asked for ahead of its turn, once for all who ask, and says what a
 * request is answered with.
 *
 * A block is packed by the hash workers, out of its slab into the cache of packed blocks; what arrived packed lies
 * there already and is passed on as it came. The line does not wait for it long: a block that is in the works when its
 * turn comes goes out plain if the socket is empty and stays so for a few milliseconds.
 */
import type { Packer } from "../disk/hasher.ts";
import * as abi from "../kernel/abi.ts";
import { nowMs } from "../kernel/clock.ts";
import { ioctlGet } from "../kernel/libc.ts";
import { BLOCK_BYTES } from "../limits.ts";
import type { Session } from "../swarm/session.ts";
import { MiB } from "../units.ts";
import { PACKED_SHARE_MAX, PackSampler } from "./pack-sampler.ts";
import { PackSwitch } from "./pack-switch.ts";
import { NO_ENTRY, type PackedCache, type PackedEntry } from "./packed-cache.ts";
import type { Serving } from "./serving.ts";
import type { SlabIndex } from "./slabs.ts";

/** What `choose` answers instead of an entry. */
export const SEND_PLAIN = -1;
export const WAIT_FOR_IT = -2;

/** Requests of one peer that are looked at ahead of the first: what a connection gathers into one send, twice. */
const LOOK_AHEAD_REQUESTS = 16;
/** How long an empty socket waits for a block in the works: several times what packing 1 MiB takes. */
const WAIT_MS_MAX = 20;
/** Plain bytes being packed at once, for each thread: 7 ms, so that hashes do not wait longer behind them. */
const PENDING_BYTES_PER_THREAD = 2 * MiB;

export class Packing {
  readonly #sampler: PackSampler;
  readonly #switch: PackSwitch;
  readonly #pendingMax: number;
  /** What is being packed, by entry. */
  readonly #jobs = new Map<PackedEntry, PackJob>();
  #pendingBytes = 0;
  /** For how long blocks were in the works until now, and since when they are; -1: none is. */
  #workMs = 0;
  #workSinceMs = -1;

  constructor(
    readonly serving: Serving,
    readonly cache: PackedCache,
    readonly packer: Packer,
    threads: number,
  ) {
    const { pieceBytes, pieceCount } = serving.metainfo;
    this.#sampler = new PackSampler(pieceBytes, pieceCount);
    this.#switch = new PackSwitch(threads);
    this.#pendingMax = Math.max(1, threads) * PENDING_BYTES_PER_THREAD;
  }

  /** Blocks are being packed: their slabs are in use. */
  get busy(): boolean {
    return this.#jobs.size > 0;
  }

  /** A connection with requests to serve is about to send more. */
  look(session: Session, socketFd: number): void {
    if (session.packedId === 0) return;
    const now = nowMs();
    const workMs = this.#workMs + (this.#workSinceMs < 0 ? 0 : now - this.#workSinceMs);
    this.#switch.look(now, heldBytes(socketFd), workMs);
  }

  /** A queued request's block is to be packed and is not in the works yet. */
  needsMemory(session: Session, upload: number): boolean {
    const begin = session.uploadBegin(upload);
    if (session.packedId === 0 || !this.#switch.isOn || begin % BLOCK_BYTES !== 0) return false;
    const piece = session.uploadPiece(upload);
    const isKnown = this.cache.find(piece, begin, session.uploadLength(upload)) !== NO_ENTRY;
    return !isKnown && this.#sampler.wants(piece, begin);
  }

  /** Starts packing what a remote peer has asked for and what is worth it. */
  lookAhead(session: Session): void {
    if (session.packedId === 0 || !this.#switch.isOn) return;
    const requests = Math.min(session.queuedCount, LOOK_AHEAD_REQUESTS);
    for (let i = 0; i < requests && this.#pendingBytes < this.#pendingMax; i++) {
      const slab = this.serving.slabOf(session, i);
      if (slab < 0 || !this.needsMemory(session, i)) continue;
      this.#pack(session.uploadPiece(i), session.uploadBegin(i), session.uploadLength(i), slab);
    }
  }

  /** What the first request is answered with: a packed block (pinned for the caller), SEND_PLAIN or WAIT_FOR_IT. */
  choose(session: Session, socketFd: number): PackedEntry {
    const begin = session.uploadBegin(0);
    if (session.packedId === 0 || begin % BLOCK_BYTES !== 0) return SEND_PLAIN;
    const entry = this.cache.find(session.uploadPiece(0), begin, session.uploadLength(0));
    if (entry === NO_ENTRY) {
      // While others are read or packed, this one's turn to be comes.
      const isUnderWay = this.#jobs.size > 0 || this.serving.reading > 0;
      return isUnderWay && this.needsMemory(session, 0) && heldBytes(socketFd) > 0 ? WAIT_FOR_IT : SEND_PLAIN;
    }
    // Even while nothing is packed here: it came packed, because somebody's line is slow.
    if (this.cache.isReady(entry)) {
      this.cache.pin(entry);
      return entry;
    }
    if (heldBytes(socketFd) > 0) return WAIT_FOR_IT;
    this.#switch.ranEmpty();
    return nowMs() - this.#jobs.get(entry)!.sinceMs < WAIT_MS_MAX ? WAIT_FOR_IT : SEND_PLAIN;
  }

  /** A block was handed to a socket as so many bytes. */
  sent(session: Session, wireBytes: number): void {
    if (session.packedId > 0) this.#switch.sent(wireBytes);
  }

  /** PackHandler: a block was packed, or did not become small enough. */
  packed(entry: PackedEntry, packedBytes: number): void {
    const { piece, begin, length, slab } = this.#jobs.get(entry)!;
    this.#jobs.delete(entry);
    this.#pendingBytes -= length;
    if (this.#jobs.size === 0) {
      this.#workMs += nowMs() - this.#workSinceMs;
      this.#workSinceMs = -1;
    }
    this.serving.pool.unpin(slab);
    if (packedBytes > 0) this.cache.markReady(entry, packedBytes);
    this.cache.unpin(entry);
    this.#sampler.tried(piece, begin, length, packedBytes > 0);
  }

  #pack(piece: number, begin: number, length: number, slab: SlabIndex): void {
    const roomBytes = Math.floor(length * PACKED_SHARE_MAX);
    const entry = roomBytes > 0 ? this.cache.take(roomBytes) : NO_ENTRY;
    if (entry === NO_ENTRY) return;
    const source = this.serving.addressOf(slab, begin);
    if (!this.packer.pack(entry, source, length, this.cache.address(entry), roomBytes)) {
      this.cache.unpin(entry);
      return;
    }
    this.cache.name(entry, piece, begin, length);
    this.serving.pool.pin(slab);
    const sinceMs = nowMs();
    if (this.#jobs.size === 0) this.#workSinceMs = sinceMs;
    this.#jobs.set(entry, { piece, begin, length, slab, sinceMs });
    this.#pendingBytes += length;
  }
}

interface PackJob {
  readonly piece: number;
  readonly begin: number;
  readonly length: number;
  readonly slab: SlabIndex;
  readonly sinceMs: number;
}

/** Bytes that a socket holds because the other end has not acknowledged them yet; a socket that fails holds none. */
function heldBytes(socketFd: number): number {
  return Math.max(0, ioctlGet(socketFd, abi.SIOCOUTQ, 32));
}
