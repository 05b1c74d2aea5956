/**
 * Requests that are not the tracker's, handed to the pages' server (Bun.serve on an abstract Unix socket of this
 * process): bytes are passed both ways until it has answered. So one port serves announces at full speed and
 * everything else with a complete HTTP server behind it.
 *
 * One request for each connection: the head that is passed on says `Connection: close`, and so does the reply,
 * because what comes next may be an announce again. An upgrade (WebSocket) is left alone and lasts.
 *
 * Each direction has one buffer and one operation in flight; a handover ends when the server closes, when
 * the client fails, or when nothing moved for `PAUSE_MS_MAX`. Descriptors are closed once no operation is left.
 *
 * A server that has heard enough of a request answers it and closes. What the client still sends is then read and
 * thrown away until it closes or `DRAIN_MS` are over: a socket that is closed with bytes unread resets the
 * connection, and that takes the answer away.
 */
import { assert } from "../errors.ts";
import * as abi from "../kernel/abi.ts";
import * as libc from "../kernel/libc.ts";
import { type Memory, mapMemory } from "../kernel/memory.ts";
import type { Reactor, Token } from "../kernel/reactor.ts";
import { encodeAbstractSockaddr } from "../kernel/sockets.ts";
import { HTTP_HANDOVERS_MAX, HTTP_HEAD_BYTES_MAX } from "../limits.ts";
import type { HttpHead } from "./http-head.ts";
import { SlotMemory } from "./slot-memory.ts";

export interface HandoverOptions {
  readonly reactor: Reactor;
  /** Abstract name of the pages' server's socket. */
  readonly pagesSocket: string;
  readonly now: () => number;
  /** The first of `HANDOVER_TOKENS` tokens that are the handovers'. */
  readonly tokenBase: Token;
}

const SLOTS = HTTP_HANDOVERS_MAX;
/** For each slot: connect, then one operation for each direction. */
const Way = { connect: 0, up: 1, down: 2 } as const;
type Way = (typeof Way)[keyof typeof Way];
const WAYS = 3;
export const HANDOVER_TOKENS = SLOTS * WAYS;

/** Longer than the pages' server takes for anything, and than a network is gone for. */
const PAUSE_MS_MAX = 60_000;
/** After its reply a client that sends a body has this long to read it and close. */
const DRAIN_MS = 2_000;
/** One line more than the longest head. */
const BUFFER_BYTES = HTTP_HEAD_BYTES_MAX + 64;
const SOCKADDR_ROOM = 112;
/** As long as `Connection`, whose name it takes: what the client said of its connection is not for the server. */
const REPLACED_NAME = new TextEncoder().encode("X-Replaced");
const CLOSE_LINE = new TextEncoder().encode("Connection: close\r\n");

class Handover {
  client = -1;
  server = -1;
  /** Operations in flight. */
  pending = 0;
  isEnding = false;
  /** The reply's status line was passed on. */
  hasReplied = false;
  isUpgrade = false;
  /** The client says more than a head. */
  hasBody = false;
  /** The client has closed its side. */
  hasSaidAll = false;
  /** The server has closed: what the client says is thrown away. */
  isDraining = false;
  deadlineMs = 0;
  /** What of a buffer is still to be sent, by way: positions in that buffer. */
  readonly from = [0, 0, 0];
  readonly to = [0, 0, 0];
  /** Whether the way's operation in flight is a send. */
  readonly isSending = [false, false, false];
}

export class Handovers {
  readonly #options: HandoverOptions;
  readonly #slots: (Handover | null)[] = new Array<Handover | null>(SLOTS).fill(null);
  /** A buffer for each way of each slot. */
  readonly #buffers = new SlotMemory(BUFFER_BYTES);
  readonly #iovs: Memory = mapMemory(SLOTS * 2 * abi.IOVEC_BYTES);
  readonly #sockaddr: Memory = mapMemory(SOCKADDR_ROOM);
  readonly #sockaddrBytes: number;
  #count = 0;
  #isStopping = false;

  constructor(options: HandoverOptions) {
    this.#options = options;
    this.#sockaddrBytes = encodeAbstractSockaddr(this.#sockaddr.address, options.pagesSocket);
  }

  get count(): number {
    return this.#count;
  }

  /**
   * Takes a client's socket over, with what was read of it: a head that begins at `headAt` in the bytes it was
   * parsed from, and maybe more. False where there are too many; then nothing is taken.
   */
  take(client: number, request: Uint8Array, head: HttpHead, headAt: number): boolean {
    const slot = this.#slots.indexOf(null);
    if (slot < 0) {
      // Whoever made no progress for longest has to go, but only for the next one that asks.
      this.#endLongest();
      return false;
    }
    const server = libc.socket(abi.AF_UNIX, abi.SOCK_STREAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC, 0);
    if (server < 0) return false;
    const one = new Handover();
    one.client = client;
    one.server = server;
    one.isUpgrade = head.hasUpgrade;
    one.hasBody = head.hasBody;
    this.#slots[slot] = one;
    this.#count++;
    this.#writeRequest(slot, one, request, head, headAt);
    this.#touch(one);
    one.pending++;
    const address = this.#sockaddr.address;
    this.#options.reactor.connect(server, address, this.#sockaddrBytes, this.#token(slot, Way.connect));
    return true;
  }

  onCompletion(token: Token, result: number): void {
    const index = token - this.#options.tokenBase;
    const way = (index % WAYS) as Way;
    const slot = (index - way) / WAYS;
    const one = this.#slots[slot];
    assert(one !== null && one !== undefined, "a completion belongs to a handover");
    one.pending--;
    if (one.isEnding) return this.#finish(slot, one);
    if (way === Way.connect) this.#connected(slot, one, result);
    else if (one.isSending[way]) this.#sent(slot, one, way, result);
    else this.#received(slot, one, way, result);
  }

  sweep(nowMs: number): void {
    for (const [slot, one] of this.#slots.entries()) if (one && one.deadlineMs <= nowMs) this.#end(slot, one);
  }

  /** Ends all; they have ended when the reactor has no operation in flight any more. */
  stop(): void {
    this.#isStopping = true;
    for (const [slot, one] of this.#slots.entries()) if (one) this.#end(slot, one);
  }

  free(): void {
    assert(this.#isStopping && this.#count === 0, "handovers end before their memory does");
    this.#buffers.free();
    this.#iovs.free();
    this.#sockaddr.free();
  }

  /** The request as the server gets it: `Connection: close` in place of what the client wanted. */
  #writeRequest(slot: number, one: Handover, request: Uint8Array, head: HttpHead, headAt: number): void {
    const buffer = this.#buffers.buffer(bufferOf(slot, Way.up));
    const at = this.#buffers.offset(bufferOf(slot, Way.up));
    if (one.isUpgrade) {
      buffer.set(request, at);
      one.to[Way.up] = request.length;
      return;
    }
    const lineBytes = head.headersFrom - headAt;
    buffer.set(request.subarray(0, lineBytes), at);
    buffer.set(CLOSE_LINE, at + lineBytes);
    buffer.set(request.subarray(lineBytes), at + lineBytes + CLOSE_LINE.length);
    for (const nameAt of head.connectionAt) buffer.set(REPLACED_NAME, at + CLOSE_LINE.length + nameAt - headAt);
    one.to[Way.up] = request.length + CLOSE_LINE.length;
  }

  #connected(slot: number, one: Handover, result: number): void {
    // The pages' server is in this process; where it is not, the program ends, and with it this connection.
    if (result < 0) return this.#end(slot, one);
    this.#send(slot, one, Way.up);
    this.#receive(slot, one, Way.down);
  }

  #received(slot: number, one: Handover, way: Way, result: number): void {
    if (result <= 0) {
      if (way === Way.down) return this.#replied(slot, one);
      one.hasSaidAll = true;
      // A client that has said all (a half-closed connection) still gets its reply; any other end is the end.
      if (result === 0 && !one.isDraining) return;
      return this.#end(slot, one);
    }
    if (one.isDraining) return this.#receive(slot, one, way);
    this.#touch(one);
    one.from[way] = 0;
    one.to[way] = result;
    if (way === Way.down && !one.hasReplied) this.#markReply(slot, one);
    this.#send(slot, one, way);
  }

  /** The server has closed: so is this side, and where the client may still be sending it is heard to its end. */
  #replied(slot: number, one: Handover): void {
    const isOver = !one.hasBody || one.hasSaidAll || libc.shutdown(one.client, abi.SHUT_WR) < 0;
    if (isOver) return this.#end(slot, one);
    one.isDraining = true;
    one.deadlineMs = this.#options.now() + DRAIN_MS;
    if (one.pending === 0) this.#receive(slot, one, Way.up);
  }

  #sent(slot: number, one: Handover, way: Way, result: number): void {
    if (result <= 0 && !(way === Way.up && one.hasBody)) return this.#end(slot, one);
    if (one.isDraining) return this.#receive(slot, one, way);
    // The server takes no more of the request: its reply comes all the same.
    if (result <= 0) return;
    this.#touch(one);
    one.from[way]! += result;
    if (one.from[way]! < one.to[way]!) this.#send(slot, one, way);
    else this.#receive(slot, one, way);
  }

  /** Puts `Connection: close` behind the reply's status line, unless the connection is to go on. */
  #markReply(slot: number, one: Handover): void {
    one.hasReplied = true;
    const bytes = this.#buffers.buffer(bufferOf(slot, Way.down));
    const at = this.#buffers.offset(bufferOf(slot, Way.down));
    const to = at + one.to[Way.down]!;
    const line = bytes.subarray(at, to).indexOf(0x0a) + 1;
    // An interim reply (1xx) says nothing of the connection; neither does what is no reply.
    if (line === 0 || bytes[at + 9] === 0x31 || one.isUpgrade) return;
    bytes.copyWithin(at + line + CLOSE_LINE.length, at + line, to);
    bytes.set(CLOSE_LINE, at + line);
    one.to[Way.down]! += CLOSE_LINE.length;
  }

  #receive(slot: number, one: Handover, way: Way): void {
    const fd = way === Way.up ? one.client : one.server;
    const address = this.#buffers.address(bufferOf(slot, way));
    one.isSending[way] = false;
    one.pending++;
    // Room is left for the line that a reply gets.
    this.#options.reactor.recv(fd, address, HTTP_HEAD_BYTES_MAX, false, this.#token(slot, way));
  }

  #send(slot: number, one: Handover, way: Way): void {
    const iov = (slot * 2 + way - 1) * abi.IOVEC_BYTES;
    const address = this.#buffers.address(bufferOf(slot, way)) + one.from[way]!;
    const view = this.#iovs.view;
    view.setUint32(iov, address >>> 0, true);
    view.setUint32(iov + 4, Math.floor(address / 2 ** 32), true);
    view.setUint32(iov + 8, one.to[way]! - one.from[way]!, true);
    one.isSending[way] = true;
    one.pending++;
    const fd = way === Way.up ? one.server : one.client;
    this.#options.reactor.sendmsg(fd, this.#iovs.address + iov, 1, this.#token(slot, way));
  }

  #endLongest(): void {
    let longest = 0;
    for (let slot = 1; slot < SLOTS; slot++)
      if (this.#slots[slot]!.deadlineMs < this.#slots[longest]!.deadlineMs) longest = slot;
    this.#end(longest, this.#slots[longest]!);
  }

  #end(slot: number, one: Handover): void {
    if (one.isEnding) return;
    one.isEnding = true;
    one.deadlineMs = Number.POSITIVE_INFINITY;
    for (const way of [Way.connect, Way.up, Way.down]) this.#options.reactor.cancel(this.#token(slot, way));
    this.#finish(slot, one);
  }

  #finish(slot: number, one: Handover): void {
    if (one.pending > 0) return;
    for (const fd of [one.client, one.server]) {
      const result = libc.close(fd);
      assert(result === 0 || result === -libc.Errno.ECONNRESET, `closing a connection: ${libc.errnoText(result)}`);
    }
    this.#slots[slot] = null;
    this.#count--;
  }

  #touch(one: Handover): void {
    one.deadlineMs = this.#options.now() + PAUSE_MS_MAX;
  }

  #token(slot: number, way: Way): Token {
    return this.#options.tokenBase + slot * WAYS + way;
  }
}

/** Which of all buffers is a way's. */
function bufferOf(slot: number, way: Way): number {
  return slot * 2 + way - 1;
}
