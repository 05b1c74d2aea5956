/** One remote peer: what the session accepts, answers and refuses. */
import { describe, expect, test } from "bun:test";
import { Random } from "../../src/swarm/random.ts";
import { Phase } from "../../src/swarm/session.ts";
import { KiB } from "../../src/units.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { encodeHandshake } from "../../src/wire/handshake.ts";
import { BLOCK, Host, INFO_HASH, OUR_ID, PIECE_BYTES, Remote } from "./harness.ts";

const request =
  (piece: number, begin: number, length = BLOCK) =>
  (target: Uint8Array, at: number) =>
    frames.writeRequest(target, at, piece, begin, length);
const piece0 = [0, BLOCK, 2 * BLOCK, 3 * BLOCK];

describe("handshake", () => {
  test("is answered after the info hash was right, byte by byte too", () => {
    const remote = new Remote(new Host());
    expect(remote.session.outbox.lengthBytes).toBe(0);
    for (const byte of encodeHandshake(INFO_HASH, remote.peerId)) {
      expect(remote.session.controlWanted()).toBeGreaterThan(0);
      remote.feed(Uint8Array.of(byte));
    }
    expect(remote.session.isOpen).toBe(true);
    expect(remote.sent()).toEqual([["have-none"], ["extended", 0]]);
  });

  test.each([
    ["encrypted", (bytes: Uint8Array) => bytes.fill(0x55)],
    ["wrong-torrent", (bytes: Uint8Array) => bytes.fill(1, 28, 48)],
    ["fault", (bytes: Uint8Array) => bytes.fill(1, 5, 10)],
    ["self", (bytes: Uint8Array) => bytes.set(OUR_ID, 48)],
  ] as const)("ends as %s", (kind, spoil) => {
    const remote = new Remote(new Host());
    const bytes = encodeHandshake(INFO_HASH, remote.peerId);
    spoil(bytes);
    remote.feed(bytes);
    expect(remote.closedAs).toBe(kind);
    expect(remote.session.controlWanted()).toBe(0);
  });

  test("that never comes times out", () => {
    const host = new Host();
    const remote = new Remote(host);
    host.tick(9_999);
    expect(remote.closedAs).toBeNull();
    host.tick(1);
    expect(remote.closedAs).toBe("timeout");
  });

  test("of one peer on two connections leaves the same one on both ends", () => {
    for (const theirs of [50, 200]) {
      const host = new Host();
      const peerId = new Uint8Array(20).fill(theirs);
      const accepted = new Remote(host, peerId, { host: "10.0.0.9", port: 50_000 }).open();
      const dialled = new Remote(host, peerId, { host: "10.0.0.9", port: 6881 }, true).open();
      const weAreSmaller = OUR_ID[0] < theirs;
      expect([accepted.closedAs, dialled.closedAs]).toEqual(weAreSmaller ? ["duplicate", null] : [null, "duplicate"]);
    }
  });
});

describe("what the remote peer has", () => {
  test("may come as a bitfield in the middle of a session (aria2), which only adds", () => {
    const remote = new Remote(new Host()).open().has(1);
    const more = new Bitfield(8);
    for (const piece of [0, 5]) more.set(piece);
    remote.send((t, at) => frames.writeBitfield(t, at, more));
    expect(remote.closedAs).toBeNull();
    const has = [0, 1, 2, 3, 4, 5, 6, 7].filter((piece) => remote.session.remoteHave.has(piece));
    expect(has).toEqual([0, 1, 5]);
  });
});

describe("faults of the remote peer", () => {
  const cases: [string, (remote: Remote) => void][] = [
    ["have-none after other messages", (remote) => remote.has(1).send(frames.writeHaveNone)],
    ["bitfield with spare bits", (remote) => remote.feed(Uint8Array.of(0, 0, 0, 3, 5, 0, 1))],
    ["have out of range", (remote) => remote.has(8)],
    ["request outside the piece", (remote) => remote.send(frames.writeInterested, request(0, PIECE_BYTES - BLOCK + 1))],
    ["request of nothing", (remote) => remote.send(request(0, 0, 0))],
    ["request above the limit", (remote) => remote.send(request(0, 0, 2 * BLOCK))],
    ["reject of nothing", (remote) => remote.send((t, at) => frames.writeReject(t, at, 0, 0, BLOCK))],
    ["oversized frame", (remote) => remote.feed(Uint8Array.of(0x7f, 0, 0, 0, 1))],
    [
      "malformed extension handshake",
      (remote) => remote.send((t, at) => frames.writeExtended(t, at, 0, Uint8Array.of(0x64, 0x31))),
    ],
  ];
  test.each(cases)("%s", (_name, act) => {
    const remote = new Remote(new Host()).open();
    act(remote);
    expect(remote.closedAs).toBe("fault");
  });

  test("messages of BEP 6 that was not agreed on", () => {
    const remote = new Remote(new Host()).open({ fast: false });
    remote.haveAll();
    expect(remote.closedAs).toBe("fault");
  });

  test("blocks that nobody asked for are thrown away, and in the end the peer is", () => {
    const remote = new Remote(new Host()).open().haveAll();
    for (let i = 0; i < 32; i++) {
      remote.block(0, 0);
      expect(remote.session.payloadLength).toBe(0);
    }
    expect(remote.closedAs).toBeNull();
    remote.block(0, 0);
    expect(remote.closedAs).toBe("fault");
  });

  test("rejects pile up only so far when the peer does not read", () => {
    const remote = new Remote(new Host({}, Bitfield.full(8)), undefined, undefined, false, 2 * KiB).open();
    let sentRequests = 0;
    while (remote.closedAs === null && sentRequests < 10_000) {
      remote.send(request(sentRequests % 8, 0));
      sentRequests++;
    }
    expect(remote.closedAs).toBe("fault");
    expect(remote.session.controlWanted()).toBe(0);
    expect(sentRequests).toBeLessThan(1300);
  });
});

describe("fetching", () => {
  test("asks in order, keeps the requests outstanding and claims what arrives", () => {
    const remote = new Remote(new Host()).open();
    remote.has(3).unchoke();
    expect(remote.named("request")).toEqual(piece0.map((begin) => ["request", 3, begin, BLOCK]));
    remote.block(3, 0);
    expect(remote.session.outstandingBytes).toBe(3 * BLOCK);
    expect(remote.host.swarm.downloadedBytes).toBe(BLOCK);
  });

  test("control reads leave payload in the socket while it may come", () => {
    const remote = new Remote(new Host()).open();
    expect(remote.session.controlWanted()).toBeGreaterThan(1000);
    remote.has(3).unchoke();
    remote.sent();
    expect(remote.session.controlWanted()).toBe(frames.PIECE_HEADER_BYTES);
    remote.send((t, at) => frames.writePieceHeader(t, at, 3, 0, BLOCK));
    expect(remote.session.controlWanted()).toBe(0);
    expect([
      remote.session.payloadPiece,
      remote.session.payloadBegin,
      remote.session.payloadLength,
      remote.session.payloadDiscard,
    ]).toEqual([3, 0, BLOCK, false] as never);
  });

  test("payload among control bytes is asked for again", () => {
    const remote = new Remote(new Host()).open();
    remote.has(3).unchoke();
    remote.sent();
    const bytes = new Uint8Array(frames.PIECE_HEADER_BYTES + 5);
    frames.writePieceHeader(bytes, 0, 3, 0, BLOCK);
    remote.feed(bytes);
    expect(remote.session.payloadDiscard).toBe(true);
    remote.host.swarm.receivedPayload(remote.host.nowMs, remote.session, BLOCK - 5);
    expect(remote.named("request")).toEqual([["request", 3, 0, BLOCK]]);
    expect(remote.closedAs).toBeNull();
  });

  test("without BEP 6 a choke drops the requests, with it each is rejected", () => {
    for (const fast of [false, true]) {
      const remote = new Remote(new Host()).open({ fast });
      remote.has(3).unchoke();
      expect(remote.named("request").length).toBe(4);
      remote.send(frames.writeChoke);
      expect(remote.session.outstanding.count).toBe(fast ? 4 : 0);
      if (fast) for (const begin of piece0) remote.send((t, at) => frames.writeReject(t, at, 3, begin, BLOCK));
      expect(remote.session.outstanding.count).toBe(0);
      remote.unchoke();
      expect(remote.named("request").length).toBe(4);
    }
  });

  test("a block of a cancelled request is thrown away without blame", () => {
    const host = new Host();
    const remote = new Remote(host).open();
    remote.has(3).unchoke();
    remote.sent();
    host.tick(10_000);
    expect(remote.named("cancel").length).toBe(4);
    expect(host.reports.some((event) => event.kind === "snubbed")).toBe(true);
    remote.block(3, 0);
    expect(remote.closedAs).toBeNull();
    // It is alive again, and is asked again.
    expect(remote.named("request").length).toBe(4);
  });

  test("an end inside a block is a time-out, and only then is the claim given to another", () => {
    const host = new Host();
    const slow = new Remote(host).open();
    slow.has(3).unchoke();
    slow.send((t, at) => frames.writePieceHeader(t, at, 3, 0, BLOCK));
    const other = new Remote(host, new Uint8Array(20).fill(51), { host: "10.0.0.10", port: 1 }).open();
    other.has(3).unchoke();
    host.tick(10_000);
    expect(slow.closedAs).toBe("timeout");
    const before = other.named("request");
    expect(before.every((message) => message[2] !== 0)).toBe(true);
    slow.disconnect();
    expect([...before, ...other.named("request")].some((message) => message[2] === 0)).toBe(true);
  });

  test("no memory: asked again when there is some, those waiting longest first", () => {
    const host = new Host();
    host.mayReserve = () => false;
    const remotes = [1, 2, 3].map((n) =>
      new Remote(host, new Uint8Array(20).fill(n), { host: `10.0.1.${n}`, port: 1 }).open(),
    );
    for (const [n, remote] of remotes.entries()) remote.has(n).unchoke();
    for (const remote of remotes) expect(remote.named("request")).toEqual([]);
    const order: number[] = [];
    let left = 1;
    host.mayReserve = (piece, begin) => {
      if (begin === 0 && !order.includes(piece) && left-- <= 0) return false;
      if (begin === 0 && !order.includes(piece)) order.push(piece);
      return order.includes(piece);
    };
    for (let i = 0; i < 3; i++) {
      left = 1;
      host.swarm.memoryFreed(host.nowMs);
    }
    expect(order).toEqual([0, 1, 2]);
  });
});

describe("serving", () => {
  const seeder = (): Host => new Host({ seedOnly: true }, Bitfield.full(8));

  test("everyone interested at once, and a request waits for the host", () => {
    const remote = new Remote(seeder()).open();
    expect(remote.sent()).toEqual([["have-all"], ["extended", 0]]);
    remote.send(frames.writeInterested);
    const sent = remote.sent();
    expect(sent[0]).toEqual(["unchoke"]);
    expect(sent.slice(1).every((message) => message[0] === "suggest")).toBe(true);
    remote.send(request(2, BLOCK));
    expect(remote.session.uploadCount).toBe(1);
    expect([remote.session.uploadPiece(0), remote.session.uploadBegin(0), remote.session.uploadLength(0)]).toEqual([
      2,
      BLOCK,
      BLOCK,
    ]);
    remote.sent();
    remote.host.swarm.uploadStarted(remote.host.nowMs, remote.session);
    expect(remote.session.uploadCount).toBe(0);
    expect(remote.named("piece")).toEqual([["piece", 2, BLOCK, BLOCK]]);
    remote.host.swarm.uploadSent(remote.host.nowMs, remote.session, BLOCK);
    expect(remote.host.swarm.uploadedBytes).toBe(BLOCK);
  });

  test("each request of BEP 6 gets exactly one answer: choked, cancelled or not had", () => {
    const remote = new Remote(new Host({}, null)).open();
    remote.send(request(2, 0));
    expect(remote.named("reject")).toEqual([["reject", 2, 0, BLOCK]]);
    const served = new Remote(seeder())
      .open()
      .send(frames.writeInterested, request(2, 0), (t, at) => frames.writeCancel(t, at, 2, 0, BLOCK));
    served.send((t, at) => frames.writeCancel(t, at, 2, 0, BLOCK));
    expect(served.named("reject")).toEqual([["reject", 2, 0, BLOCK]]);
  });

  test("HAVE goes to all that were connected before and is in what later ones are told", () => {
    const host = new Host();
    const source = new Remote(host).open().haveAll();
    source.unchoke();
    const early = new Remote(host, new Uint8Array(20).fill(3), { host: "10.0.0.3", port: 1 }).open();
    early.sent();
    const piece = source.named("request")[0][1];
    for (const begin of piece0) source.block(piece, begin);
    host.swarm.pieceVerified(host.nowMs, piece as never);
    expect(early.named("have")).toEqual([["have", piece]]);
    const late = new Remote(host, new Uint8Array(20).fill(4), { host: "10.0.0.4", port: 1 }).open();
    expect(late.named("bitfield")).toEqual([["bitfield", 0x80 >> piece]]);
  });

  test("of a piece that it has too, one of our own kind hears with what is news to it, or at the next tick", () => {
    const host = new Host();
    const source = new Remote(host).open().haveAll();
    source.unchoke();
    const peers = [3, 4, 5].map((n) => {
      const address = { host: `10.0.0.${n}`, port: 1 };
      return new Remote(host, new Uint8Array(20).fill(n), address).open({ ours: n < 5 });
    });
    const [knows, waits, foreign] = peers;
    const complete = (piece: number): void => {
      for (const begin of piece0) source.block(piece, begin);
      host.swarm.pieceVerified(host.nowMs, piece as never);
    };
    const first = source.named("request")[0][1];
    for (const peer of peers) peer.send((t, at) => frames.writeHave(t, at, first)).sent();
    complete(first);
    expect([knows, waits, foreign].map((peer) => peer.named("have").length)).toEqual([0, 0, 1]);
    const second = source.named("request")[0][1];
    waits.send((t, at) => frames.writeHave(t, at, second)).sent();
    complete(second);
    expect(knows.named("have")).toEqual([first, second].map((piece) => ["have", piece]));
    expect(waits.named("have")).toEqual([]);
    host.swarm.tick(host.nowMs);
    expect(waits.named("have")).toEqual([first, second].map((piece) => ["have", piece]));
  });

  test("a bitfield that does not fit is told piece by piece", () => {
    const pieceCount = 40_000;
    const have = new Bitfield(pieceCount);
    for (let piece = 0; piece < pieceCount; piece += 3) have.set(piece);
    const remote = new Remote(
      new Host({ pieceCount, totalBytes: pieceCount * PIECE_BYTES }, have),
      undefined,
      undefined,
      false,
      4 * KiB,
    ).open();
    const sent = remote.sent();
    expect(sent[0]).toEqual(["have-none"]);
    expect(sent.filter((message) => message[0] === "have").length).toBe(have.count);
  });

  test("two complete peers part", () => {
    const remote = new Remote(seeder()).open().haveAll();
    expect(remote.closedAs).toBe("seed-to-seed");
  });
});

describe("fuzz", () => {
  /** Of the writers below, those that are no fault by themselves. */
  const POLITE = [0, 1, 2, 3, 4, 7, 8, 10, 11, 13];
  /** Frames that a real peer could send, to be mutated. */
  function stream(random: Random): Uint8Array {
    const out = new Uint8Array(64 * KiB);
    let at = 0;
    const piece = () => (random.chance(0.02) ? 8 : random.below(8));
    const begin = () => random.below(5) * BLOCK;
    const writers = [
      () => frames.writeChoke(out, at),
      () => frames.writeUnchoke(out, at),
      () => frames.writeInterested(out, at),
      () => frames.writeNotInterested(out, at),
      () => frames.writeHave(out, at, piece()),
      () => frames.writeHaveAll(out, at),
      () => frames.writeHaveNone(out, at),
      () => frames.writeRequest(out, at, piece(), begin(), BLOCK),
      () => frames.writeCancel(out, at, piece(), begin(), BLOCK),
      () => frames.writeReject(out, at, piece(), begin(), BLOCK),
      () => frames.writeSuggest(out, at, piece()),
      () => frames.writePieceHeader(out, at, piece(), begin(), 1 + random.below(64)),
      () =>
        frames.writeExtended(
          out,
          at,
          random.below(4),
          Uint8Array.from({ length: random.below(40) }, () => random.below(256)),
        ),
      () => frames.writeKeepAlive(out, at),
    ];
    if (random.chance(0.5)) at = frames.writeHaveAll(out, at);
    if (random.chance(0.7)) at = frames.writeUnchoke(out, at);
    const rough = random.chance(0.5);
    for (let i = random.below(60); i > 0; i--)
      at = writers[rough ? random.below(writers.length) : POLITE[random.below(POLITE.length)]]();
    for (let i = random.below(4); i > 0 && random.chance(0.5); i--) out[random.below(at + 1)] ^= 1 << random.below(8);
    return out.subarray(0, at);
  }

  test("whatever a peer sends, cut anyhow, only ever ends its connection", () => {
    const ends: Record<string, number> = {};
    for (let seed = 1; seed <= 1500; seed++) {
      const random = new Random(seed);
      const have = random.chance(0.5) ? Bitfield.full(8) : null;
      const remote = new Remote(
        new Host({ seedOnly: have !== null }, have),
        undefined,
        undefined,
        false,
        2 * KiB + random.below(4 * KiB),
      );
      const { session, host } = remote;
      const handshake = encodeHandshake(INFO_HASH, remote.peerId);
      const bytes = new Uint8Array(handshake.length + 64 * KiB);
      bytes.set(handshake);
      const tail = stream(random);
      bytes.set(tail, handshake.length);
      const end = handshake.length + tail.length;
      const byByte = random.chance(0.3);
      for (let at = 0; at < end && session.phase !== Phase.closing; ) {
        if (session.payloadLength > 0) {
          const taken = Math.min(end - at, session.payloadLength - session.payloadReceived, 1 + random.below(BLOCK));
          host.swarm.receivedPayload(host.nowMs, session, taken);
          at += taken;
          continue;
        }
        const taken = Math.min(end - at, byByte ? 1 : 1 + random.below(200));
        remote.feed(bytes.subarray(at, at + taken));
        at += taken;
        if (random.chance(0.1)) remote.sent();
        if (random.chance(0.05)) host.tick(250 + random.below(4000));
        if (session.uploadCount > 0 && random.chance(0.5)) {
          const length = session.uploadLength(0);
          const before = session.outbox.lengthBytes;
          host.swarm.uploadStarted(host.nowMs, session);
          if (session.outbox.lengthBytes > before) host.swarm.uploadSent(host.nowMs, session, length);
          session.swapOutbox(new Uint8Array(session.outbox.buffer.length));
        }
      }
      const ended = remote.closedAs ?? "open";
      ends[ended] = (ends[ended] ?? 0) + 1;
      remote.disconnect();
      expect(host.swarm.sessions.length).toBe(0);
      for (const progress of host.swarm.picker.inFlight) {
        expect(progress.claimedCount).toBe(0);
        expect(progress.missingCount + progress.receivedCount).toBe(progress.unitCount);
      }
    }
    // The streams reach both ends: faults, and connections that live on.
    expect(ends.fault).toBeGreaterThan(100);
    expect(ends.open).toBeGreaterThan(100);
  });
});
