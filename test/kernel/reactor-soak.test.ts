import { describe, expect, test } from "bun:test";
import { BACKENDS, type Harness, withHarness } from "./harness.ts";

const SEED = Number(process.env.SOAK_SEED ?? 20_240_601);
const STEPS = Number(process.env.SOAK_STEPS ?? 3000);
const BLOCK_BYTES = 4096;
const FILE_BLOCKS = 256;
const PAIRS = 6;

/** mulberry32: the same sequence for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % below;
  };
}

/** Every 8 bytes carry where they belong and how often that place was written. */
function stamp(bytes: Uint8Array, place: number, version: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  for (let index = 0; index < words.length; index += 2) {
    words[index] = place * BLOCK_BYTES + index;
    words[index + 1] = version;
  }
}

/** The file: every block has at most one operation in flight, and reads must find the last version written. */
class FileLoad {
  readonly versions = new Int32Array(FILE_BLOCKS);
  readonly fd: number;
  constructor(
    readonly h: Harness,
    readonly random: (below: number) => number,
  ) {
    this.fd = h.file(FILE_BLOCKS * BLOCK_BYTES);
  }
  readonly busy = new Set<number>();
  readonly expected = new Uint8Array(BLOCK_BYTES);

  start(token: number, buffer: { address: number; bytes: Uint8Array }): (result: number) => void {
    let block = this.random(FILE_BLOCKS);
    while (this.busy.has(block)) block = (block + 1) % FILE_BLOCKS;
    this.busy.add(block);
    const writes = this.random(2) === 0;
    if (writes) {
      stamp(buffer.bytes, block, ++this.versions[block]);
      this.h.reactor.write(this.fd, buffer.address, BLOCK_BYTES, block * BLOCK_BYTES, token);
    } else {
      buffer.bytes.fill(0xee);
      this.h.reactor.read(this.fd, buffer.address, BLOCK_BYTES, block * BLOCK_BYTES, token);
    }
    return (result) => {
      expect(result).toBe(BLOCK_BYTES);
      this.busy.delete(block);
      if (writes) return;
      if (this.versions[block] === 0) this.expected.fill(0);
      else stamp(this.expected, block, this.versions[block]!);
      expect(Buffer.compare(buffer.bytes, this.expected)).toBe(0);
    };
  }
}

/** A stream whose bytes are a function of their position: sends and receives of any size must agree with it. */
class StreamLoad {
  sent = 0;
  received = 0;
  sending = false;
  receiving = false;
  constructor(
    readonly h: Harness,
    readonly random: (below: number) => number,
    readonly left: number,
    readonly right: number,
    readonly seed: number,
  ) {}

  byteAt(position: number): number {
    return (Math.imul(position + this.seed, 2654435761) >>> 24) & 0xff;
  }

  send(token: number, buffer: { address: number; bytes: Uint8Array }, iov: number): (result: number) => void {
    const lengthBytes = 1 + this.random(BLOCK_BYTES);
    for (let index = 0; index < lengthBytes; index++) buffer.bytes[index] = this.byteAt(this.sent + index);
    const view = new DataView(this.h.memory.bytes.buffer, iov - this.h.memory.address, 32);
    const firstBytes = this.random(lengthBytes + 1);
    view.setBigUint64(0, BigInt(buffer.address), true);
    view.setBigUint64(8, BigInt(firstBytes), true);
    view.setBigUint64(16, BigInt(buffer.address + firstBytes), true);
    view.setBigUint64(24, BigInt(lengthBytes - firstBytes), true);
    this.sending = true;
    this.h.reactor.sendmsg(this.left, iov, 2, token);
    return (result) => {
      expect(result).toBeGreaterThan(0);
      this.sent += result;
      this.sending = false;
    };
  }

  /** With waitAll only what was sent for certain is asked for, so that the run can end. */
  receive(token: number, buffer: { address: number; bytes: Uint8Array }): (result: number) => void {
    const waitAll = this.random(2) === 0;
    const lengthBytes = waitAll ? Math.min(BLOCK_BYTES, this.sent - this.received) : 1 + this.random(BLOCK_BYTES);
    this.receiving = true;
    this.h.reactor.recv(this.right, buffer.address, lengthBytes, waitAll, token);
    return (result) => {
      expect(result).toBeGreaterThan(0);
      if (waitAll) expect(result).toBe(lengthBytes);
      let wrong = 0;
      for (let index = 0; index < result; index++)
        if (buffer.bytes[index] !== this.byteAt(this.received + index)) wrong++;
      expect(wrong).toBe(0);
      this.received += result;
      this.receiving = false;
    };
  }
}

function soak(h: Harness): void {
  const random = generator(SEED);
  const file = new FileLoad(h, random);
  const streams = Array.from({ length: PAIRS }, (_, index) => new StreamLoad(h, random, ...h.pair(), index * 1000));
  const slots = Array.from({ length: 40 }, () => ({ buffer: h.buffer(BLOCK_BYTES), iov: h.buffer(32).address }));
  const free = slots.map((_, index) => index);
  const pending = new Map<number, (result: number) => void>();
  const handler = (token: number, result: number) => {
    const check = pending.get(token)!;
    pending.delete(token);
    check(result);
    free.push(token);
  };
  const begin = (token: number): ((result: number) => void) | null => {
    const { buffer, iov } = slots[token]!;
    const stream = streams[random(PAIRS)]!;
    const choice = random(4);
    if (choice === 0 && !stream.sending) return stream.send(token, buffer, iov);
    if (choice === 1 && !stream.receiving && stream.sent > stream.received) return stream.receive(token, buffer);
    return choice >= 2 ? file.start(token, buffer) : null;
  };
  for (let step = 0; step < STEPS; step++) {
    for (let starts = random(12); starts > 0 && free.length > 0; starts--) {
      const token = free.pop()!;
      const check = begin(token);
      if (check === null) free.push(token);
      else pending.set(token, check);
    }
    h.reactor.run(random(3) === 0 && pending.size > 0 ? 5 : 0, handler);
  }
  while (pending.size > 0) expect(h.reactor.run(20_000, handler)).toBeGreaterThan(0);
  expect(streams.every((stream) => stream.received > 0)).toBe(true);
}

describe.each(BACKENDS)("soak on %s", (_name, open) => {
  test(`random operations, seed ${SEED}: all data is where it belongs`, withHarness(open, soak, 16));
});
