/**
 * The tracker's HTTP port on a reactor: accepts, reads heads, answers announces and scrapes at once, and hands
 * every other request to the pages' server. What a fleet's announces cost is accept, receive, send and close,
 * so there is nothing else on their way: no object, promise or timer for a request.
 *
 * A reply is short and goes out by one call; a client whose window has no room for it does not read, and is
 * dropped. A request must be whole within `idleMs` of the connection's start or of the reply before it. Where
 * connections run short, the one that waits longest makes room: idle clients cannot lock others out.
 *
 * A slot holds one connection with its descriptor and buffer; at most one operation of a slot is in flight.
 */
import { assert } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import * as libc from "../kernel/libc.ts";
import { type Memory, mapMemory } from "../kernel/memory.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import { peerHostBytes } from "../kernel/sockets.ts";
import { HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX } from "../limits.ts";
import type { Handovers } from "./handover.ts";
import { HTTP_REPLY_BYTES_MAX, HttpTracker, type HttpTrackerOptions } from "./http.ts";
import { HttpHead, headEnd, Target } from "./http-head.ts";
import { SlotMemory } from "./slot-memory.ts";

export interface HttpServerOptions extends Omit<HttpTrackerOptions, "buffer"> {
  readonly reactor: Reactor;
  /** A listening socket, which stays the caller's. */
  readonly listenFd: number;
  readonly idleMs: number;
  /** The first of `HTTP_TOKENS` tokens that are this server's. */
  readonly tokenBase: Token;
  readonly handovers: Handovers;
}

const ACCEPTS = 16;
const SLOTS = HTTP_CONNECTIONS_MAX;
export const HTTP_TOKENS = ACCEPTS + SLOTS;
/** Free slots below which an accepted connection makes the longest waiting one end: more than accepts in flight. */
const RESERVE = 2 * ACCEPTS;
/** After a refusal the client has this long to read it and close, or its reset would take the reply away. */
const DRAIN_MS = 2000;
/** After a failed accept the next try is this much later. */
const ACCEPT_RETRY_MS = 200;

const State = { free: 0, reading: 1, draining: 2, evicted: 3 } as const;

/** Layout of the reply's memory: `struct msghdr`, `struct iovec`, room for the head, the body. */
const IOV_AT = 64;
const BODY_AT = 512;
const HEAD_ALIVE = head("200 OK", "Cache-Control: no-store\r\nConnection: keep-alive\r\n");
const HEAD_CLOSE = head("200 OK", "Cache-Control: no-store\r\nConnection: close\r\n");

/** Replies to what is no request that can be served. */
const Refusal = {
  malformed: refusal("400 Bad Request", "this is no HTTP request"),
  withBody: refusal("413 Content Too Large", "an announce or a scrape has no body"),
  headTooLong: refusal("431 Request Header Fields Too Large", "the request is too long"),
  methodNotAllowed: refusal("405 Method Not Allowed", "only GET is answered here", "Allow: GET\r\n"),
  busy: refusal("503 Service Unavailable", "too many downloads at once, come back later", "Retry-After: 1\r\n"),
} as const;

export class HttpServer {
  readonly #options: HttpServerOptions;
  readonly #tracker: HttpTracker;
  readonly #head = new HttpHead();
  readonly #requests = new SlotMemory(HTTP_HEAD_BYTES_MAX);
  readonly #reply: Memory = mapMemory(BODY_AT + HTTP_REPLY_BYTES_MAX);
  readonly #fds = new Int32Array(SLOTS).fill(-1);
  readonly #states = new Uint8Array(SLOTS);
  readonly #filled = new Int32Array(SLOTS);
  /** How much of what is there was looked at in vain for the end of a head. */
  readonly #scanned = new Int32Array(SLOTS);
  readonly #deadlineMs = new Float64Array(SLOTS);
  readonly #hosts: (Uint8Array | null)[] = new Array<Uint8Array | null>(SLOTS).fill(null);
  readonly #isTuned = new Uint8Array(SLOTS);
  readonly #free = Int32Array.from({ length: SLOTS }, (_, n) => SLOTS - 1 - n);
  #freeCount = SLOTS;
  /** Accepts that wait for descriptors; their tokens, and when to try again. */
  #acceptsLeft: number[] = [];
  #acceptAtMs = 0;
  #isStopping = false;

  constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#tracker = new HttpTracker({ ...options, buffer: this.#reply.bytes.subarray(BODY_AT) });
    const view = this.#reply.view;
    setPointer(view, 16, this.#reply.address + IOV_AT);
    view.setUint32(24, 1, true);
    for (let accept = 0; accept < ACCEPTS; accept++) this.#accept(accept);
  }

  /** Whether `sweep` has nothing to do before something else happens. */
  get isQuiet(): boolean {
    return this.#freeCount === SLOTS && this.#acceptsLeft.length === 0;
  }

  /** A completion whose token is one of this server's. */
  onCompletion(token: Token, result: number): void {
    const index = token - this.#options.tokenBase;
    if (index < ACCEPTS) this.#accepted(index, result);
    else this.#received(index - ACCEPTS, result);
  }

  /** Ends what has waited for too long. */
  sweep(nowMs: number): void {
    for (let slot = 0; slot < SLOTS; slot++)
      if (this.#fds[slot]! >= 0 && this.#deadlineMs[slot]! <= nowMs) this.#evict(slot);
    if (this.#acceptsLeft.length === 0 || nowMs < this.#acceptAtMs) return;
    const again = this.#acceptsLeft;
    this.#acceptsLeft = [];
    for (const accept of again) this.#accept(accept);
  }

  /** Ends everything; it has ended when the reactor has no operation in flight any more. */
  stop(): void {
    this.#isStopping = true;
    this.#acceptsLeft = [];
    for (let accept = 0; accept < ACCEPTS; accept++) this.#options.reactor.cancel(this.#options.tokenBase + accept);
    for (let slot = 0; slot < SLOTS; slot++) if (this.#fds[slot]! >= 0) this.#evict(slot);
  }

  free(): void {
    this.#requests.free();
    this.#reply.free();
  }

  #accept(accept: number): void {
    this.#options.reactor.accept(this.#options.listenFd, this.#options.tokenBase + accept);
  }

  #accepted(accept: number, result: number): void {
    if (this.#isStopping) {
      if (result >= 0) closeSocket(result);
      return;
    }
    if (result < 0) {
      // Mostly a want of descriptors, which the next clients that leave give back.
      this.#acceptAtMs = this.#options.now() + ACCEPT_RETRY_MS;
      this.#acceptsLeft.push(accept);
      return;
    }
    this.#open(result);
    this.#accept(accept);
  }

  #open(fd: number): void {
    if (this.#freeCount <= RESERVE) this.#evictLongest();
    const slot = this.#freeCount > 0 ? this.#free[--this.#freeCount]! : -1;
    if (slot < 0) return closeSocket(fd);
    this.#fds[slot] = fd;
    this.#filled[slot] = 0;
    this.#scanned[slot] = 0;
    this.#hosts[slot] = null;
    this.#isTuned[slot] = 0;
    this.#states[slot] = State.reading;
    this.#deadlineMs[slot] = this.#options.now() + this.#options.idleMs;
    this.#receive(slot);
  }

  #receive(slot: number): void {
    const filled = this.#states[slot] === State.draining ? 0 : this.#filled[slot]!;
    const address = this.#requests.address(slot) + filled;
    const token = this.#options.tokenBase + ACCEPTS + slot;
    this.#options.reactor.recv(this.#fds[slot]!, address, HTTP_HEAD_BYTES_MAX - filled, false, token);
  }

  #received(slot: number, result: number): void {
    if (result <= 0 || this.#states[slot] === State.evicted) return this.#close(slot);
    if (this.#states[slot] === State.draining) return this.#receive(slot);
    this.#filled[slot]! += result;
    this.#serve(slot);
  }

  /** Answers the requests that are there, then waits for more or closes. */
  #serve(slot: number): void {
    const bytes = this.#requests.buffer(slot);
    const base = this.#requests.offset(slot);
    let from = base;
    const to = base + this.#filled[slot]!;
    for (;;) {
      const end = headEnd(bytes, Math.max(from, from + this.#scanned[slot]! - 3), to);
      if (end < 0) break;
      if (!this.#head.parse(bytes, from, end)) return this.#refuse(slot, Refusal.malformed);
      if (this.#head.target === Target.other) return this.#handOver(slot, from, to);
      if (!this.#head.isGet) return this.#refuse(slot, Refusal.methodNotAllowed);
      if (this.#head.hasBody) return this.#refuse(slot, Refusal.withBody);
      if (!this.#answer(slot)) return this.#close(slot);
      from = end;
      this.#scanned[slot] = 0;
    }
    if (from === base && to - from === HTTP_HEAD_BYTES_MAX) return this.#refuse(slot, Refusal.headTooLong);
    if (from > base) {
      bytes.copyWithin(base, from, to);
      this.#deadlineMs[slot] = this.#options.now() + this.#options.idleMs;
    }
    this.#filled[slot] = to - from;
    this.#scanned[slot] = to - from;
    this.#receive(slot);
  }

  /** Returns whether the connection goes on. */
  #answer(slot: number): boolean {
    const head = this.#head;
    const bytes = this.#requests.buffer(slot);
    let bodyBytes: number;
    if (head.target === Target.scrape)
      bodyBytes = this.#tracker.scrape(bytes.toString("latin1", head.queryFrom, head.queryTo));
    else {
      const host = this.#hosts[slot] ?? peerHostBytes(this.#fds[slot]!);
      if (host === null) return false;
      this.#hosts[slot] = host;
      bodyBytes = this.#tracker.announce(bytes, head.queryFrom, head.queryTo, host);
    }
    const sent = this.#send(slot, head.keepAlive ? HEAD_ALIVE : HEAD_CLOSE, bodyBytes);
    if (!head.keepAlive || !sent) return false;
    if (this.#isTuned[slot] === 0) {
      // The next replies must not wait for the acknowledgement of this one. A socket whose end is gone may refuse.
      libc.setsockoptInt(this.#fds[slot]!, abi.IPPROTO_TCP, abi.TCP_NODELAY, 1);
      this.#isTuned[slot] = 1;
    }
    return true;
  }

  /** Sends a head and the body in the reply's memory. False where not all of it went out. */
  #send(slot: number, head: Uint8Array, bodyBytes: number): boolean {
    const bytes = this.#reply.bytes;
    // Head, length and empty line stand right before the body: one piece of memory goes out.
    let at = BODY_AT;
    at = putBefore(bytes, at, END_OF_HEAD);
    for (let rest = bodyBytes; ; ) {
      bytes[--at] = 0x30 + (rest % 10);
      rest = (rest - (rest % 10)) / 10;
      if (rest === 0) break;
    }
    at = putBefore(bytes, at, head);
    const view = this.#reply.view;
    const lengthBytes = BODY_AT + bodyBytes - at;
    setPointer(view, IOV_AT, this.#reply.address + at);
    view.setUint32(IOV_AT + 8, lengthBytes, true);
    const flags = abi.MSG_DONTWAIT | abi.MSG_NOSIGNAL;
    return libc.sendmsg(this.#fds[slot]!, this.#reply.address, flags) === lengthBytes;
  }

  /** Says why, and goes on reading until the client closes or its time is up. */
  #refuse(slot: number, reason: { head: Uint8Array; body: Uint8Array }): void {
    this.#reply.bytes.set(reason.body, BODY_AT);
    const sent = this.#send(slot, reason.head, reason.body.length);
    if (!sent || libc.shutdown(this.#fds[slot]!, abi.SHUT_WR) < 0) return this.#close(slot);
    this.#states[slot] = State.draining;
    this.#deadlineMs[slot] = this.#options.now() + DRAIN_MS;
    this.#receive(slot);
  }

  /** From now on the connection is the pages' server's, with all that was read of it. */
  #handOver(slot: number, from: number, to: number): void {
    const request = this.#requests.buffer(slot).subarray(from, to);
    if (!this.#options.handovers.take(this.#fds[slot]!, request, this.#head, from)) {
      return this.#refuse(slot, Refusal.busy);
    }
    this.#release(slot);
  }

  #evictLongest(): void {
    let longest = -1;
    for (let slot = 0; slot < SLOTS; slot++) {
      const waits = this.#states[slot] === State.reading || this.#states[slot] === State.draining;
      if (waits && (longest < 0 || this.#deadlineMs[slot]! < this.#deadlineMs[longest]!)) longest = slot;
    }
    if (longest >= 0) this.#evict(longest);
  }

  /** Ends a connection: its receive comes back at once and closes it. */
  #evict(slot: number): void {
    if (this.#states[slot] === State.evicted) return;
    this.#states[slot] = State.evicted;
    this.#deadlineMs[slot] = Number.POSITIVE_INFINITY;
    this.#options.reactor.cancel(this.#options.tokenBase + ACCEPTS + slot);
  }

  #close(slot: number): void {
    closeSocket(this.#fds[slot]!);
    this.#release(slot);
  }

  #release(slot: number): void {
    this.#fds[slot] = -1;
    this.#states[slot] = State.free;
    this.#free[this.#freeCount++] = slot;
  }
}

const END_OF_HEAD = ascii("\r\n\r\n");

function head(status: string, headers: string): Uint8Array {
  return ascii(`HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\n${headers}Content-Length: `);
}

function refusal(status: string, text: string, headers = ""): { head: Uint8Array; body: Uint8Array } {
  return { head: head(status, `${headers}Connection: close\r\n`), body: ascii(`${text}\n`) };
}

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Copies `what` so that it ends at `at`. Returns where it begins. */
function putBefore(bytes: Uint8Array, at: number, what: Uint8Array): number {
  bytes.set(what, at - what.length);
  return at - what.length;
}

function setPointer(view: DataView, at: number, address: number): void {
  view.setUint32(at, address >>> 0, true);
  view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
}

function closeSocket(fd: number): void {
  const result = libc.close(fd);
  // The other end's reset may be told once more; the descriptor is gone all the same.
  if (result < 0) assert(result === -libc.Errno.ECONNRESET, `closing a connection: ${libc.errnoText(result)}`);
}
