/**
 * The table of operations of an epoll reactor: parallel arrays and linked lists of indexes, so that an
 * operation allocates nothing.
 *
 * An operation is in one of four places: free, in a queue to be tried, parked in the list of its descriptor
 * and direction, or with the disk threads. `next` links it in the list where it is.
 */
import type { Token } from "./reactor.ts";
import type { SendList } from "./send-list.ts";

export const Kind = {
  accept: 0,
  connect: 1,
  recv: 2,
  sendmsg: 3,
  pollIn: 4,
  read: 5,
  write: 6,
  fallocate: 7,
  sync: 8,
  sendList: 9,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

export const Place = { free: 0, queued: 1, parked: 2, disk: 3 } as const;
export type Place = (typeof Place)[keyof typeof Place];

const NONE = -1;
const SIZE_START = 256;

type Column = Uint8Array | Int32Array | Float64Array;

function wider<T extends Column>(from: T, to: T): T {
  to.set(from);
  return to;
}

export class Operations {
  kind = new Uint8Array(SIZE_START);
  place = new Uint8Array(SIZE_START);
  /** recv: complete in full only. connect: connect(2) was called. */
  flag = new Uint8Array(SIZE_START);
  cancelled = new Uint8Array(SIZE_START);
  token = new Int32Array(SIZE_START);
  fd = new Int32Array(SIZE_START);
  next = new Int32Array(SIZE_START);
  /** fallocate's mode, the count of sendmsg, the bytes of a sockaddr. */
  argument = new Int32Array(SIZE_START);
  address = new Float64Array(SIZE_START);
  lengthBytes = new Float64Array(SIZE_START);
  offsetBytes = new Float64Array(SIZE_START);
  doneBytes = new Float64Array(SIZE_START);
  /** What a sendList sends. */
  readonly list: (SendList | null)[] = [];
  #free = NONE;
  #used = 0;

  allocate(kind: Kind, fd: number, token: Token): number {
    let index = this.#free;
    if (index === NONE) {
      if (this.#used === this.kind.length) this.#grow();
      index = this.#used++;
    } else {
      this.#free = this.next[index];
    }
    this.kind[index] = kind;
    this.place[index] = Place.queued;
    this.flag[index] = 0;
    this.cancelled[index] = 0;
    this.token[index] = token;
    this.fd[index] = fd;
    this.next[index] = NONE;
    this.argument[index] = 0;
    this.doneBytes[index] = 0;
    this.list[index] = null;
    return index;
  }

  release(index: number): void {
    this.list[index] = null;
    this.place[index] = Place.free;
    this.next[index] = this.#free;
    this.#free = index;
  }

  /** Index of the operation in flight with that token, or -1. */
  find(token: Token): number {
    for (let index = 0; index < this.#used; index++) {
      if (this.token[index] === token && this.place[index] !== Place.free) return index;
    }
    return NONE;
  }

  #grow(): void {
    const size = this.kind.length * 2;
    this.kind = wider(this.kind, new Uint8Array(size));
    this.place = wider(this.place, new Uint8Array(size));
    this.flag = wider(this.flag, new Uint8Array(size));
    this.cancelled = wider(this.cancelled, new Uint8Array(size));
    this.token = wider(this.token, new Int32Array(size));
    this.fd = wider(this.fd, new Int32Array(size));
    this.next = wider(this.next, new Int32Array(size));
    this.argument = wider(this.argument, new Int32Array(size));
    this.address = wider(this.address, new Float64Array(size));
    this.lengthBytes = wider(this.lengthBytes, new Float64Array(size));
    this.offsetBytes = wider(this.offsetBytes, new Float64Array(size));
    this.doneBytes = wider(this.doneBytes, new Float64Array(size));
  }
}

/** First in, first out lists of operations, one for each key (a descriptor); an operation is in one list at most. */
export class Lists {
  #head = new Int32Array(SIZE_START).fill(NONE);
  #tail = new Int32Array(SIZE_START).fill(NONE);

  constructor(readonly operations: Operations) {}

  head(key: number): number {
    return key < this.#head.length ? this.#head[key] : NONE;
  }

  push(key: number, index: number): void {
    while (key >= this.#head.length) this.#grow();
    this.operations.next[index] = NONE;
    if (this.#tail[key] === NONE) this.#head[key] = index;
    else this.operations.next[this.#tail[key]] = index;
    this.#tail[key] = index;
  }

  shift(key: number): number {
    const index = this.head(key);
    if (index === NONE) return NONE;
    this.#head[key] = this.operations.next[index];
    if (this.#head[key] === NONE) this.#tail[key] = NONE;
    return index;
  }

  remove(key: number, index: number): boolean {
    let before = NONE;
    for (let at = this.head(key); at !== NONE; before = at, at = this.operations.next[at]) {
      if (at !== index) continue;
      const next = this.operations.next[at];
      if (before === NONE) this.#head[key] = next;
      else this.operations.next[before] = next;
      if (next === NONE) this.#tail[key] = before;
      return true;
    }
    return false;
  }

  #grow(): void {
    const size = this.#head.length * 2;
    this.#head = wider(this.#head, new Int32Array(size).fill(NONE));
    this.#tail = wider(this.#tail, new Int32Array(size).fill(NONE));
  }
}

/** A queue of pairs of small integers (token and result) that grows to the most it ever held. */
export class PairQueue {
  #pairs = new Int32Array(2 * SIZE_START);
  #first = 0;
  #count = 0;

  get length(): number {
    return this.#count;
  }

  push(left: number, right: number): void {
    if (this.#count * 2 === this.#pairs.length) this.#grow();
    const at = ((this.#first + this.#count) * 2) % this.#pairs.length;
    this.#pairs[at] = left;
    this.#pairs[at + 1] = right;
    this.#count++;
  }

  get left(): number {
    return this.#pairs[this.#first * 2];
  }
  get right(): number {
    return this.#pairs[this.#first * 2 + 1];
  }

  drop(): void {
    this.#first = (this.#first + 1) % (this.#pairs.length / 2);
    this.#count--;
  }

  #grow(): void {
    const pairs = new Int32Array(this.#pairs.length * 2);
    const start = this.#first * 2;
    pairs.set(this.#pairs.subarray(start));
    pairs.set(this.#pairs.subarray(0, start), this.#pairs.length - start);
    this.#pairs = pairs;
    this.#first = 0;
  }
}
