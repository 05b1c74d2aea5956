/** Many small blocks in one receive, from a remote peer that answers in every way that the protocol allows. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Errno } from "../../src/kernel/libc.ts";
import { mapMemory, type Memory, viewAt } from "../../src/kernel/memory.ts";
import type { Reactor } from "../../src/kernel/reactor.ts";
import { BatchReceive, type BatchSink } from "../../src/peer/batch-receive.ts";
import type { Intake } from "../../src/peer/intake.ts";
import { Random } from "../../src/swarm/random.ts";
import { KiB } from "../../src/units.ts";
import * as frames from "../../src/wire/frames.ts";
import { BLOCK, Host, PIECE_BYTES, Remote } from "../swarm/harness.ts";

const PIECES = 8;
const TOTAL_BYTES = PIECES * PIECE_BYTES;
const CHANGE = { pieceCount: PIECES, outstandingBytesPerSource: 512 * KiB, piecesInFlightMax: PIECES };

type Block = readonly [piece: number, begin: number];

const payload = new Uint8Array(TOTAL_BYTES);
for (let i = 0; i < TOTAL_BYTES; i++) payload[i] = (Math.imul(i, 0x9e3779b1) >>> 13) & 0xff;

let memory: Memory;
let batch: BatchReceive;

beforeEach(() => {
  memory = mapMemory(TOTAL_BYTES);
  batch = new BatchReceive();
});

afterEach(() => {
  batch.free();
  memory.free();
});

const addressOf = (piece: number, begin: number) => memory.address + piece * PIECE_BYTES + begin;

/** A socket on which bytes arrive as the test says, and the connection that takes them. */
class Receiver implements BatchSink {
  #stream = new Uint8Array(0);
  readonly batches: number[] = [];
  strays = 0;

  constructor(readonly remote: Remote) {}

  arrive(...parts: Uint8Array[]): void {
    this.#stream = Buffer.concat([this.#stream, ...parts]);
  }

  /** Takes everything that has arrived: in batches as far as they go, the rest as a connection does. */
  takeAll(): void {
    const { session } = this.remote;
    while (this.#stream.length > 0 && session.isOpen) {
      const result = batch.run(session, 3, this.#reactor, this.#intake, this);
      if (batch.strayed) this.strays++;
      if (result !== null) this.batches.push(result);
      else if (session.payloadLength > 0) {
        const bytes = this.#take(session.payloadBytes - session.payloadReceived);
        const address = this.payloadAddress(session);
        if (address > 0) viewAt(address, bytes.length).set(bytes);
        this.payload(bytes.length);
      } else this.control(this.#take(session.controlWanted()));
    }
  }

  control(bytes: Uint8Array): void {
    this.remote.feed(bytes.slice());
  }

  payload(lengthBytes: number): void {
    this.remote.host.swarm.receivedPayload(this.remote.host.nowMs, this.remote.session, lengthBytes);
  }

  payloadAddress(session: Remote["session"]): number {
    if (session.payloadDiscard) return 0;
    return addressOf(session.payloadPiece, session.payloadBegin + session.payloadReceived);
  }

  mayLand(session: Remote["session"], request: number): boolean {
    return this.remote.host.swarm.mayLand(session, request);
  }

  readonly #intake = { addressOf } as unknown as Intake;

  readonly #reactor = {
    receiveNow: (_fd: number, iov: number, iovCount: number): number => {
      if (this.#stream.length === 0) return -Errno.EAGAIN;
      const entries = new BigUint64Array(viewAt(iov, iovCount * 16).slice().buffer);
      let received = 0;
      for (let i = 0; i < iovCount && this.#stream.length > 0; i++) {
        const bytes = this.#take(Number(entries[2 * i + 1]));
        viewAt(Number(entries[2 * i]), bytes.length).set(bytes);
        received += bytes.length;
      }
      return received;
    },
  } as unknown as Reactor;

  #take(lengthBytes: number): Uint8Array {
    expect(lengthBytes).toBeGreaterThan(0);
    const bytes = this.#stream.slice(0, lengthBytes);
    this.#stream = this.#stream.slice(bytes.length);
    return bytes;
  }
}

function piece([index, begin]: Block): Uint8Array {
  const bytes = new Uint8Array(frames.PIECE_HEADER_BYTES + BLOCK);
  frames.writePieceHeader(bytes, 0, index, begin, BLOCK);
  bytes.set(
    payload.subarray(index * PIECE_BYTES + begin, index * PIECE_BYTES + begin + BLOCK),
    frames.PIECE_HEADER_BYTES,
  );
  return bytes;
}

function have(index: number): Uint8Array {
  const bytes = new Uint8Array(64);
  return bytes.slice(0, frames.writeHave(bytes, 0, index));
}

const KEEP_ALIVE = new Uint8Array(4);

function connected(host: Host): Receiver {
  return new Receiver(new Remote(host).open().haveAll().unchoke());
}

/** Fetches the whole image: `answer` makes bytes of the requests that wait, `cut` says how many of them arrive next. */
function fetchAll(answer: (blocks: Block[]) => Uint8Array, cut: (left: number) => number = (left) => left): Receiver {
  const host = new Host(CHANGE);
  const receiver = connected(host);
  let rounds = 0;
  while (host.swarm.downloadedBytes < TOTAL_BYTES) {
    expect(++rounds).toBeLessThan(1000);
    host.tick(250);
    const bytes = answer([...receiver.remote.outstanding]);
    receiver.remote.sent();
    for (let at = 0; at < bytes.length; ) {
      const next = at + Math.max(1, cut(bytes.length - at));
      receiver.arrive(bytes.subarray(at, next));
      receiver.takeAll();
      at = next;
    }
  }
  expect(host.closed).toEqual([]);
  expect(Buffer.compare(memory.bytes, payload)).toBe(0);
  return receiver;
}

describe("blocks of 16 KiB", () => {
  test("in the order of the requests come many at a time, in place", () => {
    const { batches, strays } = fetchAll((blocks) => Buffer.concat(blocks.map(piece)));
    expect(strays).toBe(0);
    expect(batches.reduce((sum, bytes) => sum + bytes)).toBe((TOTAL_BYTES / BLOCK) * (BLOCK + 13));
    expect(batches.length).toBeLessThan(PIECES);
  });

  test("cut anywhere", () => {
    for (const seed of [1, 2, 3]) {
      const random = new Random(seed);
      const sizes = [1, 12, 13, 14, 4, 5, 16_000, BLOCK, BLOCK + 13, 50_000, 200_000];
      const { strays } = fetchAll(
        (blocks) => Buffer.concat(blocks.map(piece)),
        () => sizes[random.below(sizes.length)]!,
      );
      expect(strays).toBe(0);
      memory.bytes.fill(0);
    }
  });

  test("with other messages before, between and behind them", () => {
    const between = (blocks: Block[]) =>
      Buffer.concat([
        KEEP_ALIVE,
        ...blocks.flatMap((block, i) => (i % 3 === 1 ? [have(i % 8), piece(block)] : [piece(block)])),
        have(0),
      ]);
    expect(fetchAll(between).strays).toBeGreaterThan(0);
  });

  test("in the reverse order and in any other", () => {
    expect(fetchAll((blocks) => Buffer.concat(blocks.reverse().map(piece))).strays).toBeGreaterThan(0);
    const random = new Random(5);
    memory.bytes.fill(0);
    const shuffled = (blocks: Block[]) => {
      for (let i = blocks.length - 1; i > 0; i--) {
        const k = random.below(i + 1);
        [blocks[i], blocks[k]] = [blocks[k]!, blocks[i]!];
      }
      return Buffer.concat(blocks.map(piece));
    };
    fetchAll(shuffled, () => 1 + random.below(100_000));
  });

  test("and blocks that nobody asked for harm none that was", () => {
    const wrong = piece([0, 0]);
    wrong.fill(0xee, frames.PIECE_HEADER_BYTES);
    let done = 0;
    const answer = (blocks: Block[]) => {
      const unasked = blocks.every(([index]) => index !== 0) && done++ < 3;
      return Buffer.concat([
        ...blocks.slice(0, 2).map(piece),
        ...(unasked ? [wrong] : []),
        ...blocks.slice(2).map(piece),
      ]);
    };
    fetchAll(answer);
  });

  test("a fault in the middle ends the session and nothing behind it is read", () => {
    const host = new Host(CHANGE);
    const receiver = connected(host);
    const blocks = receiver.remote.outstanding.slice(0, 4);
    const broken = Uint8Array.from([0, 0, 0, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
    receiver.arrive(piece(blocks[0]!), broken, piece(blocks[1]!));
    receiver.takeAll();
    expect(host.closed.length).toBe(1);
    expect(host.swarm.downloadedBytes).toBe(BLOCK);
  });
});

test("a block that another session was asked for too is not received unseen", () => {
  const host = new Host({ pieceCount: 1, outstandingBytesPerSource: 64 * KiB });
  const first = connected(host);
  expect(first.remote.outstanding.length).toBe(4);
  expect(host.swarm.mayLand(first.remote.session, 0)).toBe(true);
  const second = new Remote(host, new Uint8Array(20).fill(51), { host: "10.0.0.10", port: 50_000 });
  second.open().haveAll().unchoke();
  // Nothing is left to begin, so it fetches copies.
  expect(second.outstanding.length).toBeGreaterThan(0);
  const copied = second.outstanding[0]![1];
  const request = first.remote.outstanding.findIndex(([, begin]) => begin === copied);
  expect(host.swarm.mayLand(first.remote.session, request)).toBe(false);
  expect(host.swarm.mayLand(second.session, 0)).toBe(false);
});
