/**
 * The way out: which slab holds the bytes of a request, and reading those from the disk that none holds.
 * A source that is read through the page cache is sent from there as long as it lies there, without a slab.
 *
 * A part is read whole (up to a slab), so that the requests behind the first find it in the cache. What a
 * remote peer has queued is its read-ahead: the parts of its first requests are read before they are due.
 */
import type { PageSource } from "../disk/page-source.ts";
import type { Address } from "../kernel/reactor.ts";
import type { SendList } from "../kernel/send-list.ts";
import type { Metainfo } from "../torrent/types.ts";
import type { Session } from "../swarm/session.ts";
import type { SlabIndex, SlabPool } from "./slabs.ts";

const NONE = -1;
/** Requests of one peer that are looked at ahead of the first: 4 MiB in 256 KiB blocks. */
const LOOK_AHEAD_REQUESTS = 16;
/** Parts of one peer read ahead: the one being sent and the ones behind it. */
const LOOK_AHEAD_PARTS = 3;

export interface ServingHandler {
  /** Reads `lengthBytes` of the payload into `address`; `loaded(slab)` is called when all of it is there. */
  read(slab: SlabIndex, torrentOffsetBytes: number, lengthBytes: number, address: Address): void;
}

/** Who may need the bytes of a request in a slab though they lie in the page cache. */
export interface MemoryUser {
  needsMemory(session: Session, upload: number): boolean;
}

export class Serving {
  #reading = 0;

  constructor(
    readonly metainfo: Metainfo,
    readonly pool: SlabPool,
    readonly handler: ServingHandler,
    /** Parts being read at once, for all peers together. */
    readonly readsMax: number,
    /** What can be sent from the page cache; null: nothing. */
    readonly pages: PageSource | null = null,
  ) {}

  /** Reads under way. */
  get reading(): number {
    return this.#reading;
  }

  /** The slab that holds a queued request's bytes now, or -1. */
  slabOf(session: Session, upload: number): SlabIndex {
    const slab = this.pool.find(session.uploadPiece(upload), this.#part(session, upload));
    return slab !== NONE && this.pool.isValid(slab) ? slab : NONE;
  }

  /** Address of a request's first byte inside its slab. */
  addressOf(slab: SlabIndex, begin: number): Address {
    return this.pool.address(slab) + (begin % this.pool.slabBytes);
  }

  /** True where a queued request's bytes lie in the page cache, its whole part with them. */
  isInPages(session: Session, upload: number): boolean {
    if (this.pages === null) return false;
    const piece = session.uploadPiece(upload);
    const part = this.#part(session, upload);
    return this.pages.holds(this.#partOffset(piece, part), this.#partBytes(piece, part));
  }

  /** Adds a queued request's bytes, which lie in the page cache, to what is sent. */
  addPages(list: SendList, session: Session, upload: number): void {
    const offsetBytes = session.uploadPiece(upload) * this.metainfo.pieceBytes + session.uploadBegin(upload);
    this.pages?.addTo(list, offsetBytes, session.uploadLength(upload));
  }

  /** Starts reading what the first requests of a session will need; `packer`: who needs some of it in memory. */
  readAhead(session: Session, packer: MemoryUser | null = null): void {
    const requests = Math.min(session.queuedCount, LOOK_AHEAD_REQUESTS);
    this.pages?.forget();
    let parts = 0;
    let last = NONE;
    for (let i = 0; i < requests && parts < LOOK_AHEAD_PARTS; i++) {
      const piece = session.uploadPiece(i);
      const part = this.#part(session, i);
      const key = piece * this.pool.partsPerPiece + part;
      if (key === last) continue;
      last = key;
      parts++;
      if (this.pool.find(piece, part) !== NONE) continue;
      if (this.isInPages(session, i) && !packer?.needsMemory(session, i)) continue;
      if (this.#reading >= this.readsMax) return;
      const slab = this.pool.bind(piece, part);
      if (slab === NONE) return;
      this.#reading++;
      this.handler.read(slab, this.#partOffset(piece, part), this.#partBytes(piece, part), this.pool.address(slab));
    }
  }

  /** The read of a slab completed in full. */
  loaded(slab: SlabIndex): void {
    this.#reading--;
    this.pool.markValid(slab);
    this.pool.unpin(slab);
  }

  #part(session: Session, upload: number): number {
    return Math.floor(session.uploadBegin(upload) / this.pool.slabBytes);
  }
  /** Where a part begins in the payload. */
  #partOffset(piece: number, part: number): number {
    return piece * this.metainfo.pieceBytes + part * this.pool.slabBytes;
  }

  #partBytes(piece: number, part: number): number {
    const endBytes = Math.min((piece + 1) * this.metainfo.pieceBytes, this.metainfo.extents.totalBytes);
    return Math.min(this.pool.slabBytes, endBytes - this.#partOffset(piece, part));
  }
}
