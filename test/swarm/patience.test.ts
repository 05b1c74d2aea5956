/** Peers that cost and bring nothing: what they were asked for goes to others, and they are dropped in bounded time. */
import { describe, expect, test } from "bun:test";
import {
  FUTILE_FRAMES_PER_TICK_MAX,
  SEND_TIMEOUT_MS,
  SNUBS_BORNE,
  TICK_MS,
  TUNING_DEFAULT,
} from "../../src/swarm/policy.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { BLOCK, Host, Remote } from "./harness.ts";

const idOf = (n: number): Uint8Array => new Uint8Array(20).fill(n);
const remoteOf = (host: Host, n: number): Remote => new Remote(host, idOf(n), { host: `10.0.1.${n}`, port: 6881 });
const { snubTimeoutMs } = TUNING_DEFAULT;

/** Lets the time pass; `each` happens in every tick. */
function pass(host: Host, ms: number, each: () => void = () => {}): void {
  for (let passed = 0; passed < ms; passed += TICK_MS) {
    host.tick(TICK_MS);
    each();
  }
}

/** Answers all that was asked of an honest source, in order. */
function serve(host: Host, remote: Remote): void {
  for (let next = remote.outstanding[0]; next !== undefined; next = remote.outstanding[0]) {
    const [piece, begin] = next;
    remote.block(piece, begin);
    remote.sent();
    if (host.swarm.picker.progress(piece)?.complete) host.swarm.pieceVerified(host.nowMs, piece as never);
  }
}

describe("a source", () => {
  test("that sends a byte a second in the middle of a block loses it to another, and its connection", () => {
    const host = new Host({ pieceCount: 2 });
    const slow = remoteOf(host, 1).open().haveAll().unchoke();
    const [[piece, begin]] = slow.outstanding;
    slow.send((target, at) => frames.writePieceHeader(target, at, piece, begin, BLOCK));
    const honest = remoteOf(host, 2).open().haveAll().unchoke();
    pass(host, 2 * snubTimeoutMs, () => {
      if (slow.closedAs === null) host.swarm.receivedPayload(host.nowMs, slow.session, 1);
      serve(host, honest);
    });
    expect(slow.closedAs).toBe("timeout");
    slow.disconnect();
    serve(host, honest);
    expect(host.swarm.haveCount).toBe(2);
  });

  test("that is slow but brings a unit within the time-out is kept", () => {
    const host = new Host({ pieceCount: 2 });
    const slow = remoteOf(host, 1).open().haveAll().unchoke();
    for (let blocks = 0; blocks < 4; blocks++) {
      const [[piece, begin]] = slow.outstanding;
      slow.send((target, at) => frames.writePieceHeader(target, at, piece, begin, BLOCK));
      for (let quarter = 0; quarter < 4; quarter++) {
        pass(host, snubTimeoutMs / 5);
        host.swarm.receivedPayload(host.nowMs, slow.session, BLOCK / 4);
      }
    }
    expect(slow.closedAs).toBeNull();
  });

  test("that answers nothing is snubbed, and dropped when it stays so", () => {
    const host = new Host({ pieceCount: 3 });
    const mute = remoteOf(host, 1).open().haveAll().unchoke();
    expect(mute.outstanding.length).toBeGreaterThan(0);
    pass(host, snubTimeoutMs + TICK_MS);
    expect(mute.outstanding).toEqual([]);
    const honest = remoteOf(host, 2).open().has(0, 1).unchoke();
    serve(host, honest);
    expect(host.swarm.haveCount).toBe(2);
    // Keep-alives change nothing.
    pass(host, SNUBS_BORNE * snubTimeoutMs, () => mute.closedAs ?? mute.send(frames.writeKeepAlive));
    expect(mute.closedAs).toBe("timeout");
  });
});

describe("a taker", () => {
  test("that reads nothing of what it asked for is dropped", () => {
    const host = new Host({ pieceCount: 2, seedOnly: true }, Bitfield.full(2));
    const blind = remoteOf(host, 1).open().send(frames.writeInterested);
    blind.send((target, at) => frames.writeRequest(target, at, 0, 0, BLOCK));
    host.swarm.uploadStarted(host.nowMs, blind.session);
    // It goes on talking.
    pass(host, SEND_TIMEOUT_MS - TICK_MS, () => blind.send(frames.writeKeepAlive));
    expect(blind.closedAs).toBeNull();
    pass(host, 2 * TICK_MS);
    expect(blind.closedAs).toBe("timeout");
  });

  test("that reads slowly is kept", () => {
    const host = new Host({ pieceCount: 2, seedOnly: true }, Bitfield.full(2));
    const slow = remoteOf(host, 1).open().send(frames.writeInterested);
    for (let blocks = 0; blocks < 4; blocks++) {
      slow.send((target, at) => frames.writeRequest(target, at, 0, blocks * BLOCK, BLOCK));
      host.swarm.uploadStarted(host.nowMs, slow.session);
      pass(host, SEND_TIMEOUT_MS / 2, () => slow.send(frames.writeKeepAlive));
      host.swarm.uploadSent(host.nowMs, slow.session, BLOCK);
    }
    expect(slow.closedAs).toBeNull();
  });
});

describe("a flood", () => {
  const floods: Record<string, (target: Uint8Array, at: number) => number> = {
    interest: (target, at) => frames.writeNotInterested(target, frames.writeInterested(target, at)),
    "the same HAVE": (target, at) => frames.writeHave(target, frames.writeHave(target, at, 1), 1),
    "requests and cancels": (target, at) =>
      frames.writeCancel(target, frames.writeRequest(target, at, 0, 0, BLOCK), 0, 0, BLOCK),
  };
  for (const [name, write] of Object.entries(floods)) {
    test(`of ${name} ends the connection; a few are nothing`, () => {
      const host = new Host({ pieceCount: 2, seedOnly: true }, Bitfield.full(2));
      const loud = remoteOf(host, 1).open().send(frames.writeInterested);
      for (let i = 0; i < 100; i++) loud.send(write);
      loud.sent();
      host.tick(TICK_MS);
      expect(loud.closedAs).toBeNull();
      for (let i = 0; i <= FUTILE_FRAMES_PER_TICK_MAX; i++) {
        loud.send(write);
        loud.sent();
      }
      host.tick(TICK_MS);
      expect(loud.closedAs).toBe("fault");
    });
  }
});
