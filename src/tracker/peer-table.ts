/**
 * The peers of one swarm and one address family, as parallel arrays: a peer costs its endpoint, its id,
 * a time and an entry of the index, and an announce of a known peer allocates nothing.
 *
 * Invariant: indices 0 to `leechers` - 1 are still downloading, `leechers` to `count` - 1 are complete,
 * so both counts and a sample without seeders are free. Indices change on every add, mark and remove.
 *
 * The table owns its arrays; endpoints and ids passed in are copied.
 */
import { assert } from "../errors.ts";

/** An address and a port as BEP 23 (4 + 2 bytes) or BEP 7 (16 + 2 bytes) pack them. */
export type EndpointBytes = 6 | 18;
/** Uniform in [0, 1), as Math.random; passed in so that runs can be repeated. */
export type RandomFraction = () => number;

const PEER_ID_BYTES = 20;
const START_CAPACITY = 16;

export class PeerTable {
  #count = 0;
  #leechers = 0;
  #endpoints: Uint8Array;
  #peerIds = new Uint8Array(START_CAPACITY * PEER_ID_BYTES);
  #seenMs = new Float64Array(START_CAPACITY);
  #completed = new Uint8Array(START_CAPACITY);
  readonly #index = new Map<number | string, number>();
  /** The number of the last sample that has that index: whether it was drawn already is one look. */
  #sampledBy = new Uint32Array(START_CAPACITY);
  #samples = 0;

  constructor(readonly endpointBytes: EndpointBytes) {
    this.#endpoints = new Uint8Array(START_CAPACITY * endpointBytes);
  }

  get count(): number {
    return this.#count;
  }

  get leechers(): number {
    return this.#leechers;
  }

  /** Index of the peer with that endpoint, or -1. */
  find(endpoint: Uint8Array): number {
    return this.#index.get(this.#key(endpoint, 0)) ?? -1;
  }

  /** Adds a peer that is not in the table. Returns its index. */
  add(endpoint: Uint8Array, seeding: boolean): number {
    if (this.#count === this.#seenMs.length) this.#grow();
    const index = this.#count++;
    this.#endpoints.set(endpoint, index * this.endpointBytes);
    this.#completed[index] = 0;
    this.#index.set(this.#key(endpoint, 0), index);
    return seeding ? index : this.mark(index, false);
  }

  /** Moves a peer to the side of the seeders or of the leechers. Returns its new index. */
  mark(index: number, seeding: boolean): number {
    this.#assertIndex(index);
    const wasSeeding = index >= this.#leechers;
    if (wasSeeding === seeding) return index;
    const boundary = seeding ? --this.#leechers : this.#leechers++;
    this.#swap(index, boundary);
    return boundary;
  }

  /** Notes who the peer says it is and that it was heard now. */
  touch(index: number, peerId: Uint8Array, nowMs: number): void {
    this.#assertIndex(index);
    this.#peerIds.set(peerId, index * PEER_ID_BYTES);
    this.#seenMs[index] = nowMs;
  }

  /** True the first time it is called for a peer: `completed` is counted once, however often it is sent. */
  markCompleted(index: number): boolean {
    this.#assertIndex(index);
    const first = this.#completed[index] === 0;
    this.#completed[index] = 1;
    return first;
  }

  remove(index: number): void {
    this.#assertIndex(index);
    let hole = index;
    if (hole < this.#leechers) {
      hole = --this.#leechers;
      this.#swap(index, hole);
    }
    const last = this.#count - 1;
    this.#swap(hole, last);
    this.#index.delete(this.#key(this.#endpoints, last * this.endpointBytes));
    this.#count = last;
  }

  /** Removes everyone not heard since `cutoffMs`. Returns how many. Going down, only peers already looked at move. */
  expire(cutoffMs: number): number {
    const before = this.#count;
    for (let index = this.#count - 1; index >= 0; index--) {
      if (this.#seenMs[index]! < cutoffMs) this.remove(index);
    }
    return before - this.#count;
  }

  /**
   * Writes up to `wanted` distinct random indices below `limit` (the count, or the leechers) to `picks` and returns
   * how many. Floyd's method: `wanted` numbers drawn, nothing allocated. The order is not uniform; the choice is.
   */
  sample(random: RandomFraction, limit: number, wanted: number, picks: Int32Array): number {
    const picked = Math.min(wanted, limit);
    const sample = this.#nextSample();
    for (let n = 0, ceiling = limit - picked; n < picked; n++, ceiling++) {
      const candidate = Math.floor(random() * (ceiling + 1));
      const pick = this.#sampledBy[candidate] === sample ? ceiling : candidate;
      this.#sampledBy[pick] = sample;
      picks[n] = pick;
    }
    return picked;
  }

  /** Copies a peer's endpoint to `into` at `atBytes`. */
  copyEndpoint(index: number, into: Uint8Array, atBytes: number): void {
    const from = index * this.endpointBytes;
    for (let n = 0; n < this.endpointBytes; n++) into[atBytes + n] = this.#endpoints[from + n]!;
  }

  /** Copies a peer's id to `into` at `atBytes`. */
  copyPeerId(index: number, into: Uint8Array, atBytes: number): void {
    const from = index * PEER_ID_BYTES;
    for (let n = 0; n < PEER_ID_BYTES; n++) into[atBytes + n] = this.#peerIds[from + n]!;
  }

  hasPeerId(index: number, peerId: Uint8Array): boolean {
    const from = index * PEER_ID_BYTES;
    for (let n = 0; n < PEER_ID_BYTES; n++) if (this.#peerIds[from + n] !== peerId[n]) return false;
    return true;
  }

  /** An IPv4 endpoint fits a double exactly; an IPv6 endpoint is a string of 18 code units. */
  #key(bytes: Uint8Array, at: number): number | string {
    if (this.endpointBytes === 6) {
      const high = bytes[at]! * 65536 + bytes[at + 1]! * 256 + bytes[at + 2]!;
      return high * 16777216 + bytes[at + 3]! * 65536 + bytes[at + 4]! * 256 + bytes[at + 5]!;
    }
    let key = "";
    for (let n = 0; n < 18; n++) key += String.fromCharCode(bytes[at + n]!);
    return key;
  }

  #swap(a: number, b: number): void {
    if (a === b) return;
    this.#swapBytes(this.#endpoints, this.endpointBytes, a, b);
    this.#swapBytes(this.#peerIds, PEER_ID_BYTES, a, b);
    this.#swapBytes(this.#completed, 1, a, b);
    const seenMs = this.#seenMs[a]!;
    this.#seenMs[a] = this.#seenMs[b]!;
    this.#seenMs[b] = seenMs;
    this.#index.set(this.#key(this.#endpoints, a * this.endpointBytes), a);
    this.#index.set(this.#key(this.#endpoints, b * this.endpointBytes), b);
  }

  #swapBytes(array: Uint8Array, stride: number, a: number, b: number): void {
    for (let n = 0; n < stride; n++) {
      const byte = array[a * stride + n]!;
      array[a * stride + n] = array[b * stride + n]!;
      array[b * stride + n] = byte;
    }
  }

  /** A number that no index has been marked with. */
  #nextSample(): number {
    this.#samples = (this.#samples + 1) >>> 0;
    if (this.#samples === 0) {
      this.#sampledBy.fill(0);
      this.#samples = 1;
    }
    return this.#samples;
  }

  #grow(): void {
    const capacity = this.#seenMs.length * 2;
    this.#endpoints = grown(this.#endpoints, capacity * this.endpointBytes);
    this.#peerIds = grown(this.#peerIds, capacity * PEER_ID_BYTES);
    this.#completed = grown(this.#completed, capacity);
    this.#sampledBy = new Uint32Array(capacity);
    const seenMs = new Float64Array(capacity);
    seenMs.set(this.#seenMs);
    this.#seenMs = seenMs;
  }

  #assertIndex(index: number): void {
    // The text is made for a broken invariant alone: this is asked several times for each announce.
    if (!(index >= 0 && index < this.#count)) assert(false, `peer index ${index} of ${this.#count}`);
  }
}

function grown(array: Uint8Array, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(lengthBytes);
  larger.set(array);
  return larger;
}
