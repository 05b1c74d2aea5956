/** Several remote peers: addresses, slots, blame, peer exchange. */
import { describe, expect, test } from "bun:test";
import { OFFERS, SLOT_BYTES_MIN, SLOT_MS_MIN_FOREIGN } from "../../src/swarm/policy.ts";
import { pieceIndex } from "../../src/units.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { BLOCK, Host, PIECE_BYTES, Remote } from "./harness.ts";

const at = (n: number): PeerAddress => ({ host: `10.0.1.${n}`, port: 6881 });
const idOf = (n: number): Uint8Array => new Uint8Array(20).fill(n);
const remoteOf = (host: Host, n: number, outgoing = false): Remote => new Remote(host, idOf(n), at(n), outgoing);

/** Fetches the whole of the next piece from a source that has unchoked us; returns its index. */
function fetchPiece(remote: Remote): number {
  const requests = remote.named("request");
  const piece = requests[0][1];
  for (const [, each, begin, length] of requests) if (each === piece) remote.block(each, begin, length);
  return piece;
}

describe("addresses", () => {
  test("are dialled up to the limit, and again after a wait that grows", () => {
    const host = new Host({ dialMax: 2 });
    host.swarm.addPeers(host.nowMs, [at(1), at(2), at(3)], "tracker");
    expect(host.dialled.length).toBe(2);
    const [first] = host.dialled;
    host.swarm.dialFailed(host.nowMs, first);
    expect(host.dialled.length).toBe(3);
    host.swarm.dialFailed(host.nowMs, host.dialled[1]);
    host.swarm.dialFailed(host.nowMs, host.dialled[2]);
    expect(host.dialled.length).toBe(3);
    const gaps: number[] = [];
    for (let round = 0, since = host.nowMs; round < 4; round++) {
      const before = host.dialled.length;
      while (host.dialled.length === before) host.tick(50);
      gaps.push(host.nowMs - since);
      since = host.nowMs;
      while (host.dialled.length > before) {
        host.swarm.dialFailed(host.nowMs, host.dialled.pop()!);
        if (host.dialled.length === before) break;
      }
    }
    expect(gaps[gaps.length - 1]).toBeGreaterThan(gaps[0]);
  });

  test("of ourselves are dialled once", () => {
    const host = new Host();
    host.swarm.addPeers(host.nowMs, [at(1)], "tracker");
    const self = new Remote(host, new Uint8Array(20).fill(100), at(1), true).open();
    expect(self.closedAs).toBe("self");
    self.disconnect();
    for (let i = 0; i < 200; i++) host.tick(1000);
    expect(host.dialled.length).toBe(1);
  });

  test("no place: refused, but somebody useless makes room for a newcomer", () => {
    const host = new Host({ acceptMax: 2 });
    const first = remoteOf(host, 1).open();
    const second = remoteOf(host, 2).open();
    expect(host.swarm.incoming(host.nowMs, at(3), { outbox: new Uint8Array(4096) })).toBeNull();
    for (let i = 0; i < 20; i++) {
      host.tick(250);
      second.send(frames.writeInterested);
    }
    const third = host.swarm.incoming(host.nowMs, at(3), { outbox: new Uint8Array(4096) });
    expect(third).not.toBeNull();
    expect([first.closedAs, second.closedAs]).toEqual(["full", null]);
  });

  test("are exchanged with those who offer it, and not in a private torrent", () => {
    for (const isPrivate of [false, true]) {
      const host = new Host({ isPrivate });
      const told: number[] = [];
      const payload = new TextEncoder().encode("d1:md6:ut_pexi9ee1:pi7000ee");
      for (const n of [1, 2])
        remoteOf(host, n)
          .open()
          .send((target, offset) => frames.writeExtended(target, offset, 0, payload));
      host.tick(250);
      for (const session of host.swarm.sessions) {
        const bytes = session.outbox.buffer.subarray(0, session.outbox.lengthBytes);
        told.push(Buffer.from(bytes).includes("added") ? 1 : 0);
      }
      expect(told).toEqual(isPrivate ? [0, 0] : [1, 1]);
    }
  });
});

describe("blame", () => {
  test("of a bad piece with one source is exact: banned, by host, and fetched again", () => {
    const host = new Host();
    const liar = remoteOf(host, 1).open().haveAll().unchoke();
    const piece = fetchPiece(liar);
    host.swarm.pieceFailed(host.nowMs, pieceIndex(piece));
    expect(liar.closedAs).toBe("banned");
    expect(host.discarded).toEqual([piece]);
    expect(
      host.swarm.incoming(host.nowMs, { host: at(1).host, port: 4444 }, { outbox: new Uint8Array(4096) }),
    ).toBeNull();
    liar.disconnect();
    const good = remoteOf(host, 2).open().haveAll().unchoke();
    expect(host.swarm.bytesLeft).toBe(8 * PIECE_BYTES);
    const left = new Set(Array.from({ length: 8 }, (_, i) => i));
    while (left.size > 0) {
      const next = fetchPiece(good);
      host.swarm.pieceVerified(host.nowMs, pieceIndex(next));
      left.delete(next);
    }
    expect(host.swarm.bytesLeft).toBe(0);
    expect(good.closedAs).toBe("seed-to-seed");
  });

  test("of several sources bans nobody at first; the next attempt has one source", () => {
    const host = new Host({ pieceCount: 1, totalBytes: PIECE_BYTES });
    const one = remoteOf(host, 1).open().haveAll().unchoke();
    one.block(0, 0);
    one.disconnect();
    const two = remoteOf(host, 2).open().haveAll().unchoke();
    const three = remoteOf(host, 3).open().haveAll().unchoke();
    expect(fetchPiece(two)).toBe(0);
    three.sent();
    host.swarm.pieceFailed(host.nowMs, pieceIndex(0));
    expect([two.closedAs, three.closedAs]).toEqual([null, null]);
    const asked = [two.named("request").length, three.named("request").length];
    expect(asked.filter((count) => count > 0).length).toBe(1);
  });
});

describe("slots of other clients", () => {
  const seeder = (): Host =>
    new Host(
      { seedOnly: true, uploadSlots: 1, acceptMax: 30, pieceCount: 80, totalBytes: 80 * PIECE_BYTES },
      Bitfield.full(80),
    );
  const upload = (remote: Remote, bytes: number): void => {
    const { host, session } = remote;
    for (let sent = 0; sent < bytes && !session.amChoking; sent += BLOCK) {
      const piece = Math.floor(sent / PIECE_BYTES);
      remote.send((target, offset) => frames.writeRequest(target, offset, piece, sent % PIECE_BYTES, BLOCK));
      host.swarm.uploadStarted(host.nowMs, session);
      remote.sent();
      host.swarm.uploadSent(host.nowMs, session, BLOCK);
    }
  };

  test("are bounded, and pass on after whole pieces to the one with the fewest pieces", () => {
    const host = seeder();
    const remotes = Array.from({ length: OFFERS + 4 }, (_, n) => remoteOf(host, n + 1).open());
    for (const [n, remote] of remotes.entries()) {
      if (n !== OFFERS + 2) remote.has(0, 1);
      remote.send(frames.writeInterested);
    }
    const unchoked = () => remotes.filter((remote) => !remote.session.amChoking).length;
    expect(unchoked()).toBe(OFFERS + 1);
    const poorest = remotes[OFFERS + 2];
    expect(poorest.session.amChoking).toBe(true);
    host.nowMs += SLOT_MS_MIN_FOREIGN;
    upload(remotes[0], SLOT_BYTES_MIN + PIECE_BYTES);
    expect(remotes[0].session.amChoking).toBe(true);
    expect(poorest.session.amChoking).toBe(false);
    expect(unchoked()).toBe(OFFERS + 1);
  });

  test("are kept for ten seconds: two flips in five make aria2 go away", () => {
    const host = seeder();
    const foreign = remoteOf(host, 1).open().send(frames.writeInterested);
    for (let n = 2; n <= OFFERS + 3; n++) remoteOf(host, n).open().send(frames.writeInterested);
    upload(foreign, SLOT_BYTES_MIN + PIECE_BYTES);
    expect(foreign.session.amChoking).toBe(false);
    const flips: number[] = [];
    for (let ms = 250; ms <= 40_000; ms += 250) {
      host.tick(250);
      for (const [name] of foreign.sent()) if (name === "choke" || name === "unchoke") flips.push(ms);
    }
    expect(flips[0]).toBeGreaterThanOrEqual(10_000);
    expect(flips.length).toBeGreaterThan(2);
    for (let i = 2; i < flips.length; i++) expect(flips[i] - flips[i - 2]).toBeGreaterThan(5_000);
  });
});

test("a silent peer gets a keep-alive and is dropped in the end", () => {
  const host = new Host();
  const remote = remoteOf(host, 1).open();
  remote.sent();
  host.tick(90_000);
  expect(remote.sent()).toEqual([["keep-alive"]]);
  host.tick(60_000);
  expect(remote.closedAs).toBe("idle");
});

test("a whole piece waits for its hash and its writes, however long the disk takes and whoever wants memory", () => {
  const host = new Host();
  const remote = remoteOf(host, 1).open().send(frames.writeHaveAll).send(frames.writeUnchoke);
  let whole = -1;
  // Memory for one piece: the source then waits for more.
  host.mayReserve = (piece) => {
    if (whole < 0) whole = piece;
    return piece === whole;
  };
  host.tick(0);
  const fetched = fetchPiece(remote);
  for (let i = 0; i < 40; i++) host.tick(250);
  expect(host.discarded).not.toContain(fetched);
  host.mayReserve = () => true;
  host.swarm.pieceVerified(host.nowMs, pieceIndex(fetched));
  expect(host.swarm.haveCount).toBe(1);
});
