/**
 * Fuzz target of the frame reader: any cut of a stream gives the same events, and a host that receives no more
 * than `controlWanted` allows never gets a payload byte into its control buffer.
 */
import { deepStrictEqual } from "node:assert";
import { PeerFault } from "../../src/errors.ts";
import { BLOCK_BYTES_MAX } from "../../src/limits.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import * as frames from "../../src/wire/frames.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows, randomBytes } from "./mutate.ts";

const PIECES = 77;

export function fuzzFrames(random: SeededRandom): void {
  const valid = randomStream(random);
  const expected = readWhole(valid);
  deepStrictEqual(readInCuts(valid, random), expected);
  deepStrictEqual(readAsHost(valid), expected);
  if (expected.includes("fault")) throw new Error(`a valid stream was refused: ${expected}`);

  const broken = mutate(random, valid);
  const events = readWhole(broken);
  deepStrictEqual(readInCuts(broken, random), events);
  deepStrictEqual(readAsHost(broken), events);
}

/** A handler that writes down each call. */
export function recorder(events: string[]): frames.FrameHandler {
  const record =
    (name: string) =>
    (...values: (number | Uint8Array)[]) => {
      events.push([name, ...values.map((value) => (typeof value === "number" ? value : value.toHex()))].join(" "));
    };
  return {
    onKeepAlive: record("keepAlive"),
    onChoke: record("choke"),
    onUnchoke: record("unchoke"),
    onInterested: record("interested"),
    onNotInterested: record("notInterested"),
    onHave: record("have"),
    onBitfield: record("bitfield"),
    onRequest: record("request"),
    onPieceHeader: record("piece"),
    onPackedHeader: record("packed"),
    onCancel: record("cancel"),
    onSuggest: record("suggest"),
    onHaveAll: record("haveAll"),
    onHaveNone: record("haveNone"),
    onReject: record("reject"),
    onAllowedFast: record("allowedFast"),
    onExtended: record("extended"),
    onUnknown: record("unknown"),
  };
}

/** Pushes everything at once; payload is stepped over. */
export function readWhole(stream: Uint8Array): string[] {
  return readInPieces(stream, () => stream.length);
}

function readInCuts(stream: Uint8Array, random: SeededRandom): string[] {
  return readInPieces(stream, () => 1 + random.below(random.below(4) === 0 ? 60 : 5));
}

export function readInPieces(stream: Uint8Array, cutBytes: () => number): string[] {
  const events: string[] = [];
  const reader = new frames.FrameReader(PIECES, recorder(events), true);
  onlyFaults(events, () => {
    for (let at = 0; at < stream.length; ) {
      const end = Math.min(stream.length, at + cutBytes());
      while (at < end) {
        if (reader.payloadDue > 0) {
          const taken = Math.min(reader.payloadDue, end - at);
          reader.payloadReceived(taken);
          at += taken;
        } else at += reader.push(stream, at, end);
      }
    }
  });
  return events;
}

/** Receives as the data plane does: at most `controlWanted` bytes of control, payload apart from it. */
export function readAsHost(stream: Uint8Array): string[] {
  const events: string[] = [];
  const reader = new frames.FrameReader(PIECES, recorder(events), true);
  onlyFaults(events, () => {
    for (let at = 0; at < stream.length; ) {
      if (reader.payloadDue > 0) {
        const taken = Math.min(reader.payloadDue, stream.length - at);
        reader.payloadReceived(taken);
        at += taken;
        continue;
      }
      const end = Math.min(stream.length, at + reader.controlWanted(true));
      const taken = reader.push(stream, at, end);
      if (taken !== end - at || taken === 0)
        throw new Error(`${end - at} bytes received at ${at}, ${taken} were control`);
      at = end;
    }
  });
  return events;
}

function onlyFaults(events: string[], run: () => void): void {
  const finished = onlyThrows(PeerFault, () => {
    run();
    return true;
  });
  if (finished === null) events.push("fault");
}

export function randomStream(random: SeededRandom): Uint8Array {
  const target = new Uint8Array(4096);
  let at = 0;
  for (let count = 1 + random.below(12); count > 0; count--) at = writeRandom(target, at, random);
  return target.slice(0, at);
}

function writeRandom(target: Uint8Array, at: number, random: SeededRandom): number {
  const piece = random.below(PIECES);
  const begin = random.uint32();
  const length = random.uint32();
  switch (random.below(20)) {
    case 0:
      return frames.writeKeepAlive(target, at);
    case 1:
      return frames.writeChoke(target, at);
    case 2:
      return frames.writeUnchoke(target, at);
    case 3:
      return frames.writeInterested(target, at);
    case 4:
      return frames.writeNotInterested(target, at);
    case 5:
      return frames.writeHave(target, at, piece);
    case 6:
      return frames.writeBitfield(target, at, Bitfield.full(PIECES));
    case 7:
      return frames.writeRequest(target, at, piece, begin, length);
    case 8:
      return frames.writeCancel(target, at, piece, begin, length);
    case 9:
      return frames.writeReject(target, at, piece, begin, length);
    case 10:
      return frames.writeSuggest(target, at, piece);
    case 11:
      return frames.writeAllowedFast(target, at, piece);
    case 12:
      return frames.writeHaveAll(target, at);
    case 13:
      return frames.writeHaveNone(target, at);
    case 14:
      return frames.writeExtended(target, at, otherExtendedId(random), randomBytes(random, random.below(60)));
    case 16:
    case 17:
      return writePacked(target, at, piece, begin, randomBytes(random, 1 + random.below(60)), random);
    case 15:
      return writeUnknown(target, at, randomBytes(random, random.below(60)));
    default:
      return writePayload(target, frames.writePieceHeader(target, at, piece, begin, 100), randomBytes(random, 100));
  }
}

function writePayload(target: Uint8Array, at: number, payload: Uint8Array): number {
  target.set(payload, at);
  return at + payload.length;
}

/** Any extended id but the one of packed blocks, whose messages have a head that must be right. */
function otherExtendedId(random: SeededRandom): number {
  const id = random.below(256);
  return id === frames.OUR_PACKED_ID ? 0 : id;
}

function writePacked(
  target: Uint8Array,
  at: number,
  piece: number,
  begin: number,
  payload: Uint8Array,
  random: SeededRandom,
): number {
  const length = payload.length + 1 + random.below(BLOCK_BYTES_MAX - payload.length);
  const id = frames.OUR_PACKED_ID;
  return writePayload(target, frames.writePackedHeader(target, at, id, piece, begin, length, payload.length), payload);
}

/** The DHT's port message, with a body of any length. */
function writeUnknown(target: Uint8Array, at: number, body: Uint8Array): number {
  target.set([0, 0, 0, 1 + body.length, frames.MessageId.port], at);
  return writePayload(target, at + 5, body);
}
