/** Every back end of the reactor, and what the tests of all of them share. */
import { expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as abi from "../../src/kernel/abi.ts";
import { openEpoll } from "../../src/kernel/epoll.ts";
import * as libc from "../../src/kernel/libc.ts";
import { type Memory, mapMemory } from "../../src/kernel/memory.ts";
import type { Reactor } from "../../src/kernel/reactor.ts";
import { dialSocket, encodeSockaddr, listenTcp, SOCKADDR_BYTES } from "../../src/kernel/sockets.ts";
import { openUring, uringAvailable } from "../../src/kernel/uring.ts";

type Open = (queueDepth: number) => Reactor;

/** io_uring_enter(2) of a kernel that is short of memory, full and interrupted again and again. */
function troubledEnter(): typeof libc.ioUringEnter {
  let calls = 0;
  const { EAGAIN, EBUSY, EINTR } = libc.Errno;
  return (...call) => {
    const [, toSubmit] = call;
    const trouble = [EBUSY, 0, EINTR, 0, 0, EBUSY, EBUSY, 0, EINTR, 0, 0, calls % 4 === 0 ? EAGAIN : 0][calls++ % 12];
    return trouble === 0 || (trouble !== EINTR && toSubmit === 0) ? libc.ioUringEnter(...call) : -trouble;
  };
}

/** io_uring as this kernel does it best, with no flags, as 5.10 does it, and in trouble; where there is none, epoll alone. */
export const BACKENDS: [string, Open][] = [
  ...(uringAvailable().ok
    ? ([
        ["uring", (depth) => openUring(depth)],
        ["uring without flags", (depth) => openUring(depth, { setupFlags: 0 })],
        ["uring as in 5.10", (depth) => openUring(depth, { setupFlags: 0, extendedWait: false, waitAllFlag: false })],
        ["uring of a troubled kernel", (depth) => openUring(depth, { enter: troubledEnter() })],
      ] as [string, Open][])
    : []),
  ["epoll", () => openEpoll()],
];

/** Longest wait for something that must happen; a test that gets there fails. */
const PATIENCE_MS = 20_000;

/** A reactor with memory, descriptors and files that are all gone after `close`, and the results by token. */
export class Harness {
  readonly reactor: Reactor;
  readonly memory: Memory;
  readonly results = new Map<number, number>();
  readonly order: number[] = [];
  readonly #fds: number[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), "reactor-"));
  #allocated = 0;
  #files = 0;
  #token = 1_000_000;

  constructor(open: Open, queueDepth = 64, memoryBytes = 4 << 20) {
    this.reactor = open(queueDepth);
    this.memory = mapMemory(memoryBytes);
  }

  readonly handler = (token: number, result: number) => {
    expect(this.results.has(token)).toBe(false);
    this.results.set(token, result);
    this.order.push(token);
  };

  /** A range of the memory, page aligned: offset in it, address, bytes. */
  buffer(lengthBytes: number): { address: number; bytes: Uint8Array } {
    const offset = this.#allocated;
    this.#allocated += Math.ceil(lengthBytes / abi.PAGE_BYTES) * abi.PAGE_BYTES;
    expect(this.#allocated).toBeLessThanOrEqual(this.memory.lengthBytes);
    return { address: this.memory.address + offset, bytes: this.memory.bytes.subarray(offset, offset + lengthBytes) };
  }

  /** An array of `struct iovec`. Returns its address. */
  iovecs(parts: { address: number; lengthBytes: number }[]): number {
    const { address, bytes } = this.buffer(parts.length * abi.IOVEC_BYTES);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    parts.forEach((part, index) => {
      view.setBigUint64(index * abi.IOVEC_BYTES, BigInt(part.address), true);
      view.setBigUint64(index * abi.IOVEC_BYTES + 8, BigInt(part.lengthBytes), true);
    });
    return address;
  }

  /** A token that no test writes by hand. */
  token(): number {
    return this.#token++;
  }

  /** Runs until the operation is complete and returns its result, once. */
  wait(token: number): number {
    const end = performance.now() + PATIENCE_MS;
    while (!this.results.has(token)) {
      if (performance.now() > end) throw new Error(`operation ${token} does not complete`);
      this.reactor.run(1000, this.handler);
    }
    const result = this.results.get(token)!;
    this.results.delete(token);
    return result;
  }

  own(fd: number): number {
    expect(fd).toBeGreaterThanOrEqual(0);
    this.#fds.push(fd);
    return fd;
  }

  closeFd(fd: number): void {
    expect(libc.close(fd)).toBe(0);
    this.#fds.splice(this.#fds.indexOf(fd), 1);
  }

  path(): string {
    return join(this.#directory, `file-${this.#files++}`);
  }

  /** A new file of this size, open for reading and writing. */
  file(lengthBytes: number, flags = 0): number {
    const fd = this.own(libc.open(this.path(), abi.O_RDWR | abi.O_CREAT | abi.O_EXCL | flags));
    expect(libc.ftruncate(fd, lengthBytes)).toBe(0);
    return fd;
  }

  /** Two connected sockets, made with the reactor's own accept and connect. */
  pair(host = "127.0.0.1"): [dialled: number, accepted: number] {
    const listener = listenTcp(host, 0);
    this.own(listener.fd);
    const address = { host, port: listener.port };
    const dialled = this.own(dialSocket(address));
    const sockaddr = this.buffer(SOCKADDR_BYTES).address;
    const [accept, connect] = [this.token(), this.token()];
    this.reactor.accept(listener.fd, accept);
    this.reactor.connect(dialled, sockaddr, encodeSockaddr(sockaddr, address), connect);
    expect(this.wait(connect)).toBe(0);
    const accepted = this.own(this.wait(accept));
    this.closeFd(listener.fd);
    return [dialled, accepted];
  }

  close(): void {
    expect(this.reactor.inFlight).toBe(0);
    this.reactor.close();
    for (const fd of this.#fds) libc.close(fd);
    this.memory.free();
    rmSync(this.#directory, { recursive: true });
  }
}

/** Runs a test body with a harness that is closed when it returns; a failing body's own error is what shows. */
export function withHarness(
  open: Open,
  body: (harness: Harness) => void,
  queueDepth?: number,
  memoryBytes?: number,
): () => void {
  return () => {
    const harness = new Harness(open, queueDepth, memoryBytes);
    body(harness);
    harness.close();
  };
}

/** Bytes that say where they belong: a misplaced or torn copy does not compare equal. */
export function fillPattern(bytes: Uint8Array, seed: number): void {
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let index = 0; index < bytes.length; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = state;
  }
}
