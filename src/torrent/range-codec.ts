/**
 * Zero ranges as bytes inside info["diskswarm"]: for each range the gap since the end of the one before it and
 * its length, both in bytes as LEB128 varints. 100,000 ranges take about 600 KB, and there is one encoding only.
 */
import { assert } from "../errors.ts";
import { EXTENTS_MAX } from "../limits.ts";
import { makeRangeTable, rangesProblem } from "./extents.ts";
import type { RangeTable } from "./types.ts";

/** 53 bits in groups of 7. */
const VARINT_BYTES_MAX = 8;

/** Packs ranges; returns new bytes. */
export function encodeRanges(ranges: RangeTable): Uint8Array {
  assert(ranges.count <= EXTENTS_MAX, `${ranges.count} ranges`);
  const out = new Uint8Array(ranges.count * 2 * VARINT_BYTES_MAX);
  let at = 0;
  let end = 0;
  for (let i = 0; i < ranges.count; i++) {
    const start = ranges.diskOffsetBytes[i]!;
    const length = ranges.lengthBytes[i]!;
    at = writeVarint(out, at, start - end);
    at = writeVarint(out, at, length);
    end = start + length;
  }
  return out.slice(0, at);
}

/** Unpacks ranges, or returns what is wrong with them as text. */
export function decodeRanges(bytes: Uint8Array): RangeTable | string {
  // A byte without the continuation bit ends a number, so the count is known before anything is allocated.
  let numbers = 0;
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! < 0x80) numbers++;
  if (numbers % 2 !== 0) return "a gap without a length";
  if (bytes.length > 0 && bytes[bytes.length - 1]! >= 0x80) return "number cut short";
  const count = numbers / 2;
  if (count > EXTENTS_MAX) return `${count} ranges, at most ${EXTENTS_MAX} are accepted`;
  const diskOffsetBytes = new Float64Array(count);
  const lengthBytes = new Float64Array(count);
  const reader = { bytes, at: 0 };
  let end = 0;
  for (let i = 0; i < count; i++) {
    const gap = readVarint(reader);
    const length = readVarint(reader);
    if (gap < 0 || length < 0) return `malformed number in range ${i}`;
    diskOffsetBytes[i] = end + gap;
    lengthBytes[i] = length;
    end += gap + length;
  }
  return rangesProblem(diskOffsetBytes, lengthBytes, count) ?? makeRangeTable(diskOffsetBytes, lengthBytes);
}

function writeVarint(out: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    out[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  out[at++] = rest;
  return at;
}

/** Returns -1 where the number exceeds 53 bits or is longer than it needs to be. */
function readVarint(reader: { bytes: Uint8Array; at: number }): number {
  let value = 0;
  let scale = 1;
  for (let i = 0; i < VARINT_BYTES_MAX; i++) {
    const byte = reader.bytes[reader.at++]!;
    value += (byte & 0x7f) * scale;
    scale *= 0x80;
    if (byte >= 0x80) continue;
    const padded = byte === 0 && i > 0;
    return padded || value > Number.MAX_SAFE_INTEGER ? -1 : value;
  }
  return -1;
}
