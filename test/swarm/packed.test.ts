/** Packed blocks (`ds_zstd`): offered or not, sent, received, and what becomes of those that do not inflate. */
import { describe, expect, test } from "bun:test";
import { Phase } from "../../src/swarm/session.ts";
import { pieceIndex } from "../../src/units.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { BLOCK, Host, Remote } from "./harness.ts";

const PACKED = 1000;

/** A source that takes our requests, and the blocks we asked of it. */
function source(host: Host, n = 50): { remote: Remote; blocks: (readonly [piece: number, begin: number])[] } {
  const address = { host: `10.0.1.${n}`, port: 6881 };
  const remote = new Remote(host, new Uint8Array(20).fill(n), address).open().haveAll().unchoke();
  return { remote, blocks: remote.named("request").map(([, piece, begin]) => [piece, begin] as const) };
}

function packedOf(remote: Remote, [piece, begin]: readonly [number, number]) {
  return { piece, begin, length: BLOCK, banKey: remote.session.banKey };
}

describe("a packed block that was received", () => {
  test("is said to be payload of its packed length, and claimed until it was inflated", () => {
    const host = new Host({ packedBlocks: true });
    const { remote, blocks } = source(host);
    const [piece, begin] = blocks[0];
    const id = frames.OUR_PACKED_ID;
    remote.send((target, at) => frames.writePackedHeader(target, at, id, piece, begin, BLOCK, PACKED));
    const { session } = remote;
    expect([session.payloadPiece, session.payloadBegin, session.payloadLength]).toEqual([piece, begin, BLOCK]);
    expect([session.payloadBytes, session.payloadPacked, session.payloadDiscard]).toEqual([PACKED, true, false]);
    host.swarm.receivedPayload(host.nowMs, session, PACKED);
    expect(session.payloadLength).toBe(0);
    expect(host.swarm.picker.progress(piece)!.claimedCount).toBe(1);
    expect(host.swarm.downloadedBytes).toBe(0);
    host.swarm.inflated(host.nowMs, packedOf(remote, blocks[0]), true);
    expect(host.swarm.picker.progress(piece)!.receivedCount).toBe(1);
    expect(host.swarm.downloadedBytes).toBe(BLOCK);
  });

  test("completes its piece when it was inflated", () => {
    const host = new Host({ packedBlocks: true });
    const { remote, blocks } = source(host);
    const piece = blocks[0][0];
    const ofPiece = blocks.filter((block) => block[0] === piece);
    for (const [each, begin] of ofPiece) remote.packedBlock(each, begin, BLOCK, PACKED);
    expect(host.swarm.picker.progress(piece)!.complete).toBe(false);
    for (const block of ofPiece) host.swarm.inflated(host.nowMs, packedOf(remote, block), true);
    expect(host.swarm.picker.progress(piece)!.complete).toBe(true);
    host.swarm.pieceVerified(host.nowMs, pieceIndex(piece));
    expect(host.swarm.haveCount).toBe(1);
  });

  test("and does not inflate bans its sender, and others are asked for the block", () => {
    const host = new Host({ packedBlocks: true });
    const { remote: liar, blocks } = source(host, 51);
    liar.packedBlock(...blocks[0], BLOCK, PACKED);
    const { remote: honest } = source(host, 52);
    host.swarm.inflated(host.nowMs, packedOf(liar, blocks[0]), false);
    expect(liar.closedAs).toBe("banned");
    expect(liar.session.phase).toBe(Phase.closing);
    liar.disconnect();
    const asked = new Set<string>();
    for (let more = honest.outstanding; more.length > 0; more = honest.outstanding) {
      for (const [piece, begin] of more) {
        asked.add(`${piece}:${begin}`);
        honest.block(piece, begin);
      }
    }
    expect(asked.has(blocks[0].join(":"))).toBe(true);
    expect(honest.closedAs).toBeNull();
  });

  test("may be inflated after its sender has gone", () => {
    for (const isGood of [true, false]) {
      const host = new Host({ packedBlocks: true });
      const { remote, blocks } = source(host, 51);
      const block = packedOf(remote, blocks[0]);
      remote.packedBlock(...blocks[0], BLOCK, PACKED);
      remote.disconnect();
      host.swarm.inflated(host.nowMs, block, isGood);
      expect(host.swarm.picker.progress(block.piece)!.receivedCount).toBe(isGood ? 1 : 0);
      expect(host.swarm.picker.progress(block.piece)!.claimedCount).toBe(0);
      expect(host.swarm.peers.isBanned(block.banKey)).toBe(!isGood);
    }
  });

  test("that nobody asked for is thrown away, and too many are a fault", () => {
    const host = new Host({ packedBlocks: true });
    const { remote } = source(host);
    for (let i = 0; i < 32; i++) remote.packedBlock(7, 3 * BLOCK, BLOCK - 1, PACKED);
    expect(remote.closedAs).toBeNull();
    remote.packedBlock(7, 3 * BLOCK, BLOCK - 1, PACKED);
    expect(remote.closedAs).toBe("fault");
  });

  test("is skipped like any extended message where it was never offered", () => {
    const host = new Host();
    const { remote, blocks } = source(host);
    const [piece, begin] = blocks[0];
    const id = frames.OUR_PACKED_ID;
    const wire = new Uint8Array(frames.PACKED_HEADER_BYTES + 5);
    frames.writePackedHeader(wire, 0, id, piece, begin, BLOCK, 5);
    remote.feed(wire);
    expect([remote.session.payloadLength, remote.closedAs]).toEqual([0, null]);
  });
});

describe("a packed block to be sent", () => {
  const serving = (change: { packedId?: number }) => {
    const host = new Host({ packedBlocks: true, blockBytesMax: BLOCK }, Bitfield.full(8));
    const remote = new Remote(host).open({ ours: true, ...change });
    remote.send(frames.writeInterested, (target, at) => frames.writeRequest(target, at, 2, BLOCK, BLOCK));
    remote.sent();
    return { host, remote };
  };

  test("has the id that the remote peer gave", () => {
    const { host, remote } = serving({ packedId: 77 });
    expect(remote.session.packedId).toBe(77);
    host.swarm.uploadStarted(host.nowMs, remote.session, PACKED);
    const head = remote.session.outbox.buffer.slice(0, remote.session.outbox.lengthBytes);
    const expected = new Uint8Array(frames.PACKED_HEADER_BYTES);
    frames.writePackedHeader(expected, 0, 77, 2, BLOCK, BLOCK, PACKED);
    expect(head).toEqual(expected);
    host.swarm.uploadSent(host.nowMs, remote.session, BLOCK);
    expect(host.swarm.uploadedBytes).toBe(BLOCK);
  });

  test("goes to nobody who did not offer it", () => {
    const { host, remote } = serving({});
    expect(remote.session.packedId).toBe(0);
    expect(() => host.swarm.uploadStarted(host.nowMs, remote.session, PACKED)).toThrow();
  });
});
