/** Among our own kind: grants, turns, and what a seeder suggests with them; as taker of grants and as giver. */
import { describe, expect, test } from "bun:test";
import {
  ENDGAME_SILENCE_FACTOR,
  ENDGAME_SILENCE_MS_MIN,
  GRANT_BYTES_MIN,
  GRANT_PIECES,
  GRANT_UNUSED_MS,
  GRANTS_FAR,
  NEAR_PEERS_MIN,
  NEED_MARGIN_PIECES,
  TUNING_DEFAULT,
  TURNS,
} from "../../src/swarm/policy.ts";
import { Random } from "../../src/swarm/random.ts";
import { MiB, pieceIndex } from "../../src/units.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { BLOCK, Host, Remote } from "./harness.ts";

const PIECE = 1 * MiB;
const PIECES = 40;
const SIZES = { pieceCount: PIECES, pieceBytes: PIECE, totalBytes: PIECES * PIECE };

const remoteOf = (host: Host, n: number): Remote =>
  new Remote(host, new Uint8Array(20).fill(n), { host: `10.0.0.${n}`, port: 50_000 }).open({ ours: true });
const request = (piece: number, begin: number) => (target: Uint8Array, at: number) =>
  frames.writeRequest(target, at, piece, begin, BLOCK);
const count = (remote: Remote, name: string): number => remote.named(name).length;

describe("a giver of grants", () => {
  const seeder = (change = {}): Host => new Host({ seedOnly: true, ...SIZES, ...change }, Bitfield.full(PIECES));
  /** The host sends blocks of a session while it has the turn. */
  const serve = (remote: Remote, blocksMax = Infinity): void => {
    const { host, session } = remote;
    for (let blocks = 0; blocks < blocksMax && session.uploadCount > 0; blocks++) {
      const lengthBytes = session.uploadLength(0);
      host.swarm.uploadStarted(host.nowMs, session);
      remote.sent();
      host.swarm.uploadSent(host.nowMs, session, lengthBytes);
    }
  };

  /** Peers that hold a grant each: the first gives back what it got for being the first. */
  const granted = (host: Host, peers: number): Remote[] => {
    const remotes = Array.from({ length: peers }, (_, n) => remoteOf(host, n + 1));
    for (const remote of remotes) remote.send(frames.writeInterested);
    remotes[0].send(frames.writeNotInterested);
    return remotes;
  };

  test("gives one peer all that the line has room for, each an unchoke with a suggestion of its own", () => {
    const remote = remoteOf(seeder(), 1).send(frames.writeInterested);
    const sent = remote.sent();
    const suggested = sent.filter(([name]) => name === "suggest").map(([, piece]) => piece);
    expect(sent.filter(([name]) => name === "unchoke").length).toBe(GRANT_PIECES);
    expect(suggested.length).toBe(GRANT_PIECES);
    expect(new Set(suggested).size).toBe(GRANT_PIECES);
  });

  test("gives as many more as small pieces need", () => {
    const small = { pieceBytes: 64 * 1024, totalBytes: PIECES * 64 * 1024 };
    const remote = remoteOf(seeder(small), 1).send(frames.writeInterested);
    expect(count(remote, "unchoke")).toBe(GRANT_BYTES_MIN / small.pieceBytes);
  });

  test("gives none to whom is not interested, and takes back what such a one had", () => {
    const host = seeder();
    const first = remoteOf(host, 1).send(frames.writeInterested);
    const second = remoteOf(host, 2).send(frames.writeInterested);
    expect(count(second, "unchoke")).toBe(0);
    const suggested = first.named("suggest").map(([, piece]) => piece);
    first.send(frames.writeNotInterested);
    const sent = second.sent();
    expect(sent.filter(([name]) => name === "unchoke").length).toBe(GRANT_PIECES);
    const again = sent.filter(([name]) => name === "suggest").map(([, piece]) => piece);
    // Nobody fetches them: they are free for others again.
    expect(again.length).toBe(GRANT_PIECES);
    expect(suggested.length).toBe(GRANT_PIECES);
  });

  test("gives the next with the end of a piece, to the one with the fewest pieces", () => {
    const host = seeder();
    const first = remoteOf(host, 1).send(frames.writeInterested);
    first.sent();
    const rich = remoteOf(host, 2).has(0, 1, 2).send(frames.writeInterested);
    const poor = remoteOf(host, 3).has(0).send(frames.writeInterested);
    for (let begin = 0; begin < PIECE; begin += BLOCK) first.send(request(5, begin));
    serve(first, PIECE / BLOCK - 1);
    expect(count(poor, "unchoke")).toBe(0);
    serve(first);
    expect([count(first, "unchoke"), count(rich, "unchoke"), count(poor, "unchoke")]).toEqual([0, 0, 1]);
  });

  test("does not wait for one that neither uses its grants nor gives them back", () => {
    const host = seeder();
    const first = remoteOf(host, 1).send(frames.writeInterested);
    const second = remoteOf(host, 2).send(frames.writeInterested);
    expect(count(first, "unchoke")).toBe(GRANT_PIECES);
    host.tick(GRANT_UNUSED_MS);
    expect(count(second, "unchoke")).toBe(0);
    host.tick(1);
    expect([count(first, "unchoke"), count(second, "unchoke")]).toEqual([0, GRANT_PIECES]);
  });

  test("serves its own network first, and few of others where it has enough peers in its own", () => {
    for (const near of [NEAR_PEERS_MIN, NEAR_PEERS_MIN - 1]) {
      const host = seeder();
      // It takes all grants there are, so that the others wait in line, and then gives them back.
      const first = remoteOf(host, 1).send(frames.writeInterested);
      const open = (n: number, address: string): Remote =>
        new Remote(host, new Uint8Array(20).fill(n), { host: address, port: 50_000 })
          .open({ ours: true, yourHost: "10.1.1.200" })
          .send(frames.writeInterested);
      const others = Array.from({ length: 4 }, (_, n) => open(20 + n, `10.1.2.${20 + n}`));
      const own = Array.from({ length: near }, (_, n) => open(40 + n, `10.1.1.${40 + n}`).has(0));
      first.send(frames.writeNotInterested);
      const granted = (remotes: Remote[]) => remotes.reduce((sum, remote) => sum + count(remote, "unchoke"), 0);
      const ownGranted = granted(own);
      const farGranted = granted(others);
      expect([ownGranted, farGranted]).toEqual([Math.min(near, GRANT_PIECES), GRANT_PIECES - ownGranted]);
      for (const remote of own) remote.send(frames.writeNotInterested);
      expect(farGranted + granted(others)).toBe(near === NEAR_PEERS_MIN ? GRANTS_FAR : GRANT_PIECES);
    }
  });

  test("begins with another one of those never granted any than other givers do", () => {
    const firsts = new Set<number>();
    for (let seed = 1; seed <= 20; seed++) {
      const host = seeder({ random: new Random(seed) });
      const remotes = Array.from({ length: 8 }, (_, n) => remoteOf(host, n + 1).send(frames.writeInterested));
      // The first takes all that the line has room for, and gives it back.
      remotes[0].send(frames.writeNotInterested);
      const counts = remotes.map((remote) => count(remote, "unchoke"));
      expect(Math.max(...counts.slice(1))).toBe(1);
      firsts.add(counts.indexOf(1, 1));
    }
    expect(firsts.size).toBeGreaterThan(1);
  });

  test("never chokes", () => {
    const host = seeder();
    const remote = remoteOf(host, 1).send(frames.writeInterested);
    for (let n = 2; n < 20; n++) remoteOf(host, n).send(frames.writeInterested);
    const names = new Set(remote.sent().map(([name]) => name));
    for (let ms = 0; ms < 30_000; ms += 250) {
      host.tick(250);
      for (const [name] of remote.sent()) names.add(name);
    }
    expect(names.has("choke")).toBe(false);
  });

  test("serves few at a time, the peers that are behind first, and whole pieces", () => {
    const host = seeder();
    const remotes = granted(host, TURNS + 2);
    for (const remote of remotes.slice(0, TURNS + 1))
      remote.has(...Array.from({ length: NEED_MARGIN_PIECES + 1 }, (_, piece) => piece));
    for (const remote of remotes) remote.send(request(10, 0), request(10, BLOCK), request(11, 0));
    const served = () => remotes.flatMap((remote, n) => (remote.session.uploadCount > 0 ? [n] : []));
    for (const remote of remotes) expect(remote.session.queuedCount).toBe(3);
    expect(served()).toEqual(Array.from({ length: TURNS }, (_, n) => n));
    // The two blocks of piece 10 go out; then the turn is the last one's, which is behind all others.
    serve(remotes[0]);
    expect(remotes[0].session.queuedCount).toBe(1);
    expect(served()).toEqual([...Array.from({ length: TURNS - 1 }, (_, n) => n + 1), TURNS + 1]);
  });

  test("gives another the turn beside one that stalls", () => {
    const host = seeder();
    const remotes = granted(host, TURNS + 1);
    for (const remote of remotes) remote.send(request(10, 0), request(10, BLOCK));
    const last = remotes[TURNS].session;
    for (const remote of remotes.slice(0, TURNS)) host.swarm.uploadStarted(host.nowMs, remote.session);
    host.tick(1);
    expect(last.uploadCount).toBe(0);
    host.tick(1000);
    expect(last.uploadCount).toBe(2);
  });
});

describe("a taker of grants", () => {
  const node = (change = {}): Host => new Host({ ...SIZES, outstandingBytesPerSource: 4 * BLOCK, ...change });
  const begun = (remote: Remote): number[] =>
    remote
      .named("request")
      .filter(([, , begin]) => begin === 0)
      .map(([, piece]) => piece);

  test("is interested while it would begin a piece, and begins as many as were granted", () => {
    const host = node({ piecesInFlightMax: 2 });
    const one = remoteOf(host, 1).haveAll();
    const two = remoteOf(host, 2).haveAll();
    expect([count(one, "interested"), count(two, "interested")]).toEqual([1, 1]);
    one.unchoke();
    expect(begun(one).length).toBe(1);
    host.tick(250);
    expect(begun(two)).toEqual([]);
    two.unchoke();
    const sent = two.sent();
    expect(sent.filter(([name]) => name === "request").length).toBeGreaterThan(0);
    // Two pieces are in flight: nobody needs to grant another.
    host.tick(250);
    expect([count(one, "not-interested"), host.swarm.picker.inFlight.length]).toEqual([1, 2]);
    one.unchoke();
    host.tick(250);
    expect(host.swarm.picker.inFlight.length).toBe(2);
  });

  test("begins more small pieces than large ones: several keep one source busy", () => {
    const pieceBytes = 64 * 1024;
    const pieces = { pieceBytes, pieceCount: 100, totalBytes: 100 * pieceBytes };
    const host = node({ ...pieces, outstandingBytesPerSource: 16 * MiB });
    const remote = remoteOf(host, 1).haveAll();
    for (let grants = 0; grants < 100; grants++) remote.unchoke();
    expect(host.swarm.picker.inFlight.length).toBeGreaterThan(4 * TUNING_DEFAULT.piecesInFlightMax);
  });

  test("asks no more without a grant, however idle the source", () => {
    const host = node();
    const remote = remoteOf(host, 1).haveAll().unchoke();
    const [piece] = begun(remote);
    for (let begin = 0; begin < PIECE; begin += BLOCK) remote.block(piece, begin);
    host.swarm.pieceVerified(host.nowMs, pieceIndex(piece));
    expect(begun(remote)).toEqual([]);
    remote.unchoke();
    expect(begun(remote).length).toBe(1);
  });

  test("leaves a source that falls silent inside a block, at the end at once", () => {
    for (const pieces of [2, 3]) {
      const host = node({ pieceCount: pieces, totalBytes: pieces * PIECE });
      const silent = remoteOf(host, 1).haveAll().unchoke();
      const [first] = begun(silent);
      host.nowMs += 10;
      for (let begin = 0; begin < PIECE; begin += BLOCK) silent.block(first, begin);
      host.swarm.pieceVerified(host.nowMs, pieceIndex(first));
      const [second] = begun(silent.unchoke());
      silent.send((target, at) => frames.writePieceHeader(target, at, second, 0, BLOCK));
      host.swarm.receivedPayload(host.nowMs, silent.session, 100);
      host.tick(ENDGAME_SILENCE_MS_MIN + 10 * ENDGAME_SILENCE_FACTOR);
      // With a piece that nobody was asked for it would get all the time there is.
      expect(silent.closedAs).toBe(pieces === 2 ? "timeout" : null);
    }
  });

  test("begins what was suggested with the grant", () => {
    const host = node();
    const remote = remoteOf(host, 1).haveAll();
    remote.send((target, at) => frames.writeSuggest(target, at, 17));
    expect(begun(remote.unchoke())).toEqual([17]);
  });

  test("gives its grants back when memory runs out, and is interested again when there is some", () => {
    const host = node();
    const remote = remoteOf(host, 1).haveAll();
    remote.sent();
    host.mayReserve = () => false;
    remote.unchoke();
    expect(remote.sent()).toEqual([["not-interested"]]);
    host.mayReserve = () => true;
    host.swarm.memoryFreed(host.nowMs);
    expect(remote.sent()).toEqual([["interested"]]);
  });
});
