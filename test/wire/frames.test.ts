/** Frames: bytes on the wire, any cut of a stream, limits, and what may be received without swallowing payload. */
import { describe, expect, test } from "bun:test";
import { AssertionError, PeerFault } from "../../src/errors.ts";
import { BLOCK_BYTES_MAX, EXTENDED_BYTES_MAX, FRAME_BYTES_MAX } from "../../src/limits.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import { randomStream, readAsHost, readInPieces, readWhole, recorder } from "../fuzz/frames.ts";
import { seededRandom } from "../harness/random.ts";

type Write = (target: Uint8Array, offset: number) => number;

const MESSAGES: [string, Write, string, string][] = [
  ["keep-alive", (t, o) => frames.writeKeepAlive(t, o), "00000000", "keepAlive"],
  ["choke", (t, o) => frames.writeChoke(t, o), "0000000100", "choke"],
  ["unchoke", (t, o) => frames.writeUnchoke(t, o), "0000000101", "unchoke"],
  ["interested", (t, o) => frames.writeInterested(t, o), "0000000102", "interested"],
  ["not interested", (t, o) => frames.writeNotInterested(t, o), "0000000103", "notInterested"],
  ["have", (t, o) => frames.writeHave(t, o, 76), "00000005040000004c", "have 76"],
  [
    "bitfield",
    (t, o) => frames.writeBitfield(t, o, Bitfield.full(77)),
    "0000000b05fffffffffffffffffff8",
    "bitfield fffffffffffffffffff8",
  ],
  [
    "request",
    (t, o) => frames.writeRequest(t, o, 1, 0xfffffffe, 16384),
    "0000000d0600000001fffffffe00004000",
    "request 1 4294967294 16384",
  ],
  ["cancel", (t, o) => frames.writeCancel(t, o, 1, 2, 3), "0000000d08000000010000000200000003", "cancel 1 2 3"],
  ["suggest", (t, o) => frames.writeSuggest(t, o, 5), "000000050d00000005", "suggest 5"],
  ["have all", (t, o) => frames.writeHaveAll(t, o), "000000010e", "haveAll"],
  ["have none", (t, o) => frames.writeHaveNone(t, o), "000000010f", "haveNone"],
  ["reject", (t, o) => frames.writeReject(t, o, 1, 2, 3), "0000000d10000000010000000200000003", "reject 1 2 3"],
  ["allowed fast", (t, o) => frames.writeAllowedFast(t, o, 5), "000000051100000005", "allowedFast 5"],
  ["extended", (t, o) => frames.writeExtended(t, o, 3, Uint8Array.of(9, 8)), "0000000414030908", "extended 3 0908"],
  [
    "extended without payload",
    (t, o) => frames.writeExtended(t, o, 0, new Uint8Array(0)),
    "000000021400",
    "extended 0 ",
  ],
  [
    "piece header",
    (t, o) => frames.writePieceHeader(t, o, 7, 16384, BLOCK_BYTES_MAX),
    "00100009070000000700004000",
    "piece 7 16384 1048576",
  ],
  [
    "packed header",
    (t, o) => frames.writePackedHeader(t, o, frames.OUR_PACKED_ID, 7, 16384, BLOCK_BYTES_MAX, 0xabcd),
    "0000abdb1403000000070000400000100000",
    "packed 7 16384 1048576 43981",
  ],
];

describe("writers", () => {
  for (const [name, write, hex, event] of MESSAGES) {
    test(`${name}: bytes, offset, room, and read back`, () => {
      const bytes = Uint8Array.fromHex(hex);
      const target = new Uint8Array(64).fill(0xee);
      expect(write(target, 3)).toBe(3 + bytes.length);
      expect(target.subarray(3, 3 + bytes.length)).toEqual(bytes);
      expect([target[2], target[3 + bytes.length]]).toEqual([0xee, 0xee]);
      expect(() => write(target, 64 - bytes.length + 1)).toThrow();
      expect(readWhole(bytes)).toEqual([event]);
      expect(readInPieces(bytes, () => 1)).toEqual([event]);
    });
  }
  test("sizes are as announced", () => {
    const target = new Uint8Array(64);
    expect(frames.writeHave(target, 0, 1)).toBe(frames.HAVE_FRAME_BYTES);
    expect(frames.writeRequest(target, 0, 1, 2, 3)).toBe(frames.REQUEST_FRAME_BYTES);
    expect(frames.writeChoke(target, 0)).toBe(frames.STATE_FRAME_BYTES);
    expect(frames.writePieceHeader(target, 0, 1, 2, 3)).toBe(frames.PIECE_HEADER_BYTES);
    expect(frames.writeBitfield(target, 0, new Bitfield(77))).toBe(frames.bitfieldFrameBytes(77));
    expect(frames.writeExtended(target, 0, 1, new Uint8Array(5))).toBe(frames.EXTENDED_OVERHEAD_BYTES + 5);
  });
});

describe("FrameReader", () => {
  test("gives the same for every cut of a stream", () => {
    for (let seed = 0; seed < 50; seed++) {
      const stream = randomStream(seededRandom(seed));
      const expected = readWhole(stream);
      for (const cut of [1, 2, 3, 4, 5, 7, 12, 13, 14, 17, 64])
        expect(readInPieces(stream, () => cut)).toEqual(expected);
      expect(readAsHost(stream)).toEqual(expected);
      for (let length = 0; length < stream.length; length++) {
        const events = readInPieces(stream.subarray(0, length), () => 1);
        expect(events).toEqual(expected.slice(0, events.length));
      }
    }
  });

  test("stops after the header of a piece and goes on after its payload", () => {
    const events: string[] = [];
    const reader = new frames.FrameReader(77, recorder(events));
    const stream = new Uint8Array(64).fill(0xdd);
    const header = frames.writePieceHeader(stream, frames.writeHave(stream, 0, 1), 2, 0, 20);
    frames.writeChoke(stream, header + 20);
    expect(reader.push(stream, 0, header + 25)).toBe(header);
    expect([reader.payloadDue, reader.controlWanted(true), reader.controlWanted(false)]).toEqual([20, 0, 0]);
    expect(() => reader.push(stream, header)).toThrow(AssertionError);
    reader.payloadReceived(15);
    expect(reader.payloadDue).toBe(5);
    expect(() => reader.payloadReceived(6)).toThrow(AssertionError);
    reader.payloadReceived(5);
    expect(reader.push(stream, header + 20, header + 25)).toBe(5);
    expect(events).toEqual(["have 1", "piece 2 0 20", "choke"]);
  });

  test("wants 13 bytes at a frame's start, and inside a frame what cannot reach a payload", () => {
    const wantedAfter = (hex: string): number => {
      const reader = new frames.FrameReader(77, recorder([]));
      reader.push(Uint8Array.fromHex(hex));
      return reader.controlWanted(true);
    };
    expect(wantedAfter("")).toBe(13);
    expect(wantedAfter("00")).toBe(12);
    expect(wantedAfter("00000d")).toBe(10);
    expect(wantedAfter("0000000d")).toBe(9);
    expect(wantedAfter("0000000d07")).toBe(8);
    expect(wantedAfter("0000000d06")).toBe(12 + 13);
    expect(wantedAfter("00000005")).toBe(5 + 13);
    expect(wantedAfter("0000000504")).toBe(4 + 13);
    expect(wantedAfter("0000000b05ff")).toBe(9 + 13);
    expect(wantedAfter("0000006414")).toBe(99 + 13);
    expect(wantedAfter("000000641401")).toBe(98 + 13);
    expect(wantedAfter("0000006409")).toBe(99 + 13);
    expect(wantedAfter("00000000")).toBe(13);
  });

  test("wants much where no payload can come", () => {
    const reader = new frames.FrameReader(77, recorder([]));
    expect(reader.controlWanted(false)).toBeGreaterThan(1024);
  });

  test("a peer that has many pieces may send a bitfield larger than other frames", () => {
    const pieceCount = FRAME_BYTES_MAX * 8 + 800;
    const body: Uint8Array[] = [];
    const reader = new frames.FrameReader(pieceCount, {
      ...recorder([]),
      onBitfield: (bytes) => body.push(bytes.slice()),
    });
    const stream = new Uint8Array(frames.bitfieldFrameBytes(pieceCount));
    frames.writeBitfield(stream, 0, Bitfield.full(pieceCount));
    for (let at = 0; at < stream.length; ) at += reader.push(stream, at, Math.min(stream.length, at + 60_000));
    expect(Bitfield.fromWire(body[0]!, pieceCount).all).toBe(true);
  });

  test("without a piece count, indexes are unchecked and a bitfield is skipped", () => {
    const events: string[] = [];
    const reader = new frames.FrameReader(null, recorder(events));
    reader.push(Uint8Array.fromHex("0000000305aabb" + "0000000504ffffffff"));
    expect(events).toEqual(["unknown 5 2", "have 4294967295"]);
    expect(() => reader.push(Uint8Array.fromHex("0020000205"))).toThrow(PeerFault);
  });

  const refused: [string, string][] = [
    ["a frame longer than any", "ffffffff"],
    ["one byte longer than a block", "0010000a07"],
    ["a piece without payload", "0000000907"],
    ["a choke with a body", "0000000200"],
    ["a have that is short", "0000000404"],
    ["a request that is long", "0000000e06"],
    ["a bitfield of another size", "0000000c05"],
    ["an extended message without an id", "0000000114"],
    ["an extended message that is too long", `${(EXTENDED_BYTES_MAX + 2).toString(16).padStart(8, "0")}14`],
    ["have of piece 77 of 77", "00000005040000004d"],
    ["request of piece 77", "0000000d060000004d0000000000004000"],
    ["piece 77", "0000000a070000004d00000000"],
    ["suggest of piece 2^32 - 1", "000000050dffffffff"],
    ["reject of piece 77", "0000000d100000004d0000000000004000"],
  ];
  for (const [what, hex] of refused) {
    test(`refuses ${what} as soon as it shows`, () => {
      const bytes = Uint8Array.fromHex(hex);
      const reader = new frames.FrameReader(77, recorder([]));
      reader.push(bytes, 0, bytes.length - 1);
      expect(() => reader.push(bytes, bytes.length - 1)).toThrow(PeerFault);
    });
  }
  test("the longest extended message is accepted", () => {
    const lengths: number[] = [];
    const reader = new frames.FrameReader(77, {
      ...recorder([]),
      onExtended: (_, payload) => lengths.push(payload.length),
    });
    const stream = new Uint8Array(EXTENDED_BYTES_MAX + 5);
    frames.writeExtended(stream, 0, 1, new Uint8Array(EXTENDED_BYTES_MAX - 1));
    reader.push(stream, 0, 1000);
    reader.push(stream, 1000);
    expect(lengths).toEqual([EXTENDED_BYTES_MAX - 1]);
  });
  test("100 MB of messages with unknown ids leave nothing behind", () => {
    const events: string[] = [];
    const reader = new frames.FrameReader(77, recorder(events));
    const chunk = new Uint8Array(1_000_000);
    chunk.set(Uint8Array.fromHex("000f423c63"));
    for (let i = 0; i < 100; i++) expect(reader.push(chunk)).toBe(chunk.length);
    expect(events).toEqual(Array<string>(100).fill("unknown 99 999995"));
    expect(reader.controlWanted(true)).toBe(13);
  });

  test("stops after the header of a packed block and goes on after its payload", () => {
    const stream = new Uint8Array(64);
    let at = frames.writePackedHeader(stream, 0, frames.OUR_PACKED_ID, 5, 16384, 1000, 20);
    stream.fill(0x55, at, at + 20);
    at = frames.writeHave(stream, at + 20, 9);
    const expected = ["packed 5 16384 1000 20", "have 9"];
    expect(readWhole(stream.subarray(0, at))).toEqual(expected);
    expect(readInPieces(stream.subarray(0, at), () => 1)).toEqual(expected);
    expect(readAsHost(stream.subarray(0, at))).toEqual(expected);
  });
  const wrongPacked: [string, number, number, number][] = [
    ["as long as the block", 0, 100, 100],
    ["longer than the block", 0, 100, 101],
    ["for a block of nothing", 0, 0, 1],
    ["for a block beyond the largest", 0, BLOCK_BYTES_MAX + 1, 50],
    ["of a piece that does not exist", 77, 100, 50],
  ];
  for (const [what, piece, length, packedBytes] of wrongPacked) {
    test(`refuses a packed block ${what} with its header`, () => {
      const head = new Uint8Array(frames.PACKED_HEADER_BYTES);
      frames.writePackedHeader(head, 0, frames.OUR_PACKED_ID, piece, 0, length, packedBytes);
      const reader = new frames.FrameReader(77, recorder([]), true);
      reader.push(head, 0, head.length - 1);
      expect(() => reader.push(head, head.length - 1)).toThrow(PeerFault);
    });
  }
  test("a packed block that was not offered is an extended message like any other", () => {
    const head = new Uint8Array(frames.PACKED_HEADER_BYTES);
    frames.writePackedHeader(head, 0, frames.OUR_PACKED_ID, 5, 0, BLOCK_BYTES_MAX, EXTENDED_BYTES_MAX);
    const reader = new frames.FrameReader(77, recorder([]));
    expect(() => reader.push(head)).toThrow(PeerFault);
  });
  test("a packed block without payload is an extended message like any other", () => {
    const head = new Uint8Array(frames.PACKED_HEADER_BYTES);
    frames.writePackedHeader(head, 0, frames.OUR_PACKED_ID, 5, 0, 100, 0);
    expect(readWhole(head)).toEqual(["extended 3 000000050000000000000064"]);
  });
});
