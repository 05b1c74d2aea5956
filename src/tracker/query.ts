/**
 * The query of an announce or scrape, read from its raw bytes. `URLSearchParams` decodes percent escapes as
 * UTF-8 and so destroys a binary info_hash; here an escape is one byte. Pure.
 *
 * An announce is read in one pass and without garbage: it is what a tracker does all day.
 */
import type { AnnounceEvent } from "./registry.ts";

/** Parameters that are looked at; each has a span in the query. */
const Name = { infoHash: 0, peerId: 1, port: 2, left: 3, event: 4, numwant: 5, compact: 6, noPeerId: 7 } as const;
type Name = (typeof Name)[keyof typeof Name];
const NAMES: readonly Uint8Array[] = [
  "info_hash",
  "peer_id",
  "port",
  "left",
  "event",
  "numwant",
  "compact",
  "no_peer_id",
].map(codes);
const EVENTS: readonly (readonly [Uint8Array, AnnounceEvent])[] = (["started", "stopped", "completed"] as const).map(
  (event) => [codes(event), event],
);
const NO_VALUE = -1;
const AMPERSAND = 0x26;
const EQUALS = 0x3d;
const PERCENT = 0x25;
const ZERO = 0x30;

/** Value of a hex digit by its code, -1 for every other code. */
const HEX_DIGITS = Int8Array.from({ length: 256 }, (_, code) => {
  const value = "0123456789abcdef".indexOf(String.fromCharCode(code).toLowerCase());
  return code < 0x80 ? value : -1;
});

/** Reads announces, one after the other; its fields are those of the last one that was well formed. */
export class AnnounceQuery {
  /** 40 lower-case hex digits. */
  infoHash = "";
  readonly peerId = new Uint8Array(20);
  port = 0;
  leftBytes = 0;
  event: AnnounceEvent = "none";
  /** `numwant`, or -1. */
  peersWanted = -1;
  /** BEP 23: false only where the client asks for dictionaries with `compact=0`. */
  compact = true;
  /** `no_peer_id=1`: dictionaries without ids. */
  withoutPeerIds = false;
  readonly #hash = new Uint8Array(20);
  readonly #from = new Int32Array(NAMES.length);
  readonly #to = new Int32Array(NAMES.length);

  /**
   * Reads the query between `from` and `to`. Returns null, or what is wrong with it as text for `failure reason`.
   * Of a repeated parameter the first counts. `ip=` is ignored on purpose.
   */
  read(bytes: Uint8Array, from: number, to: number): string | null {
    this.#split(bytes, from, to);
    const badHash = this.#binary20(bytes, Name.infoHash, "info_hash", this.#hash);
    if (badHash !== null) return badHash;
    const badId = this.#binary20(bytes, Name.peerId, "peer_id", this.peerId);
    if (badId !== null) return badId;
    if (this.#from[Name.port] === NO_VALUE) return "port is missing";
    this.port = this.#number(bytes, Name.port, 5);
    if (this.port < 1 || this.port > 65535) return "port must be 1 to 65535";
    // Without `left` a peer counts as still downloading, as other trackers have it: that errs on the harmless side.
    this.leftBytes = this.#from[Name.left] === NO_VALUE ? 1 : this.#number(bytes, Name.left, 20);
    if (this.leftBytes < 0) return "left must be a number of bytes, 0 or more";
    this.infoHash = this.#hash.toHex();
    this.event = this.#readEvent(bytes);
    this.peersWanted = this.#number(bytes, Name.numwant, 9);
    this.compact = !this.#isDigit(bytes, Name.compact, ZERO);
    this.withoutPeerIds = this.#isDigit(bytes, Name.noPeerId, ZERO + 1);
    return null;
  }

  /** Finds where the values are. */
  #split(bytes: Uint8Array, from: number, to: number): void {
    this.#from.fill(NO_VALUE);
    for (let at = from; at < to; ) {
      let equals = at;
      while (equals < to && bytes[equals] !== EQUALS && bytes[equals] !== AMPERSAND) equals++;
      let end = equals;
      while (end < to && bytes[end] !== AMPERSAND) end++;
      const name = end > equals ? nameOf(bytes, at, equals) : -1;
      if (name >= 0 && this.#from[name] === NO_VALUE) {
        this.#from[name] = equals + 1;
        this.#to[name] = end;
      }
      at = end + 1;
    }
  }

  /** Percent escapes to exactly 20 bytes. Returns what is wrong. */
  #binary20(bytes: Uint8Array, name: Name, text: string, into: Uint8Array): string | null {
    const from = this.#from[name]!;
    if (from === NO_VALUE) return `${text} is missing`;
    return decode(bytes, from, this.#to[name]!, into) === into.length
      ? null
      : `${text} must be 20 bytes, percent-encoded`;
  }

  /** A decimal number of at most that many digits; -1 for anything else. */
  #number(bytes: Uint8Array, name: Name, digitsMax: number): number {
    const from = this.#from[name]!;
    const to = this.#to[name]!;
    if (from === NO_VALUE || from === to || to - from > digitsMax) return -1;
    let value = 0;
    for (let at = from; at < to; at++) {
      const digit = bytes[at]! - ZERO;
      if (digit < 0 || digit > 9) return -1;
      value = value * 10 + digit;
    }
    return value;
  }

  /** An event nobody knows (BEP 21's `paused`) is an ordinary announce. */
  #readEvent(bytes: Uint8Array): AnnounceEvent {
    const from = this.#from[Name.event]!;
    if (from === NO_VALUE) return "none";
    for (const [text, event] of EVENTS) if (equals(bytes, from, this.#to[Name.event]!, text)) return event;
    return "none";
  }

  #isDigit(bytes: Uint8Array, name: Name, digit: number): boolean {
    const from = this.#from[name]!;
    return from !== NO_VALUE && this.#to[name] === from + 1 && bytes[from] === digit;
  }
}

/** Every `info_hash` of a scrape, as hex, without duplicates. Returns what is wrong as text for `failure reason`. */
export function parseScrape(query: string): string[] | string {
  const infoHashes = new Set<string>();
  for (const part of query.split("&")) {
    if (!part.startsWith("info_hash=")) continue;
    const bytes = decodePercent(part.slice("info_hash=".length));
    if (bytes?.length !== 20) return "info_hash must be 20 bytes, percent-encoded";
    infoHashes.add(bytes.toHex());
  }
  return infoHashes.size === 0 ? "info_hash is missing" : [...infoHashes];
}

/** Percent escapes to bytes. Null where an escape is broken or a character is no single byte of ASCII. */
export function decodePercent(text: string): Uint8Array | null {
  const decoded = new Uint8Array(text.length);
  const raw = Uint8Array.from(text, (character) => Math.min(character.charCodeAt(0), 0xff));
  const length = decode(raw, 0, raw.length, decoded);
  return length < 0 ? null : decoded.subarray(0, length);
}

/** The same from bytes into a buffer. Returns how many bytes it gave, -1 where it is broken or the buffer is too small. */
function decode(bytes: Uint8Array, from: number, to: number, into: Uint8Array): number {
  let length = 0;
  for (let at = from; at < to; at++) {
    let code = bytes[at]!;
    if (code === PERCENT) {
      if (at + 2 >= to) return -1;
      const high = HEX_DIGITS[bytes[at + 1]!]!;
      const low = HEX_DIGITS[bytes[at + 2]!]!;
      if (high < 0 || low < 0) return -1;
      code = high * 16 + low;
      at += 2;
    } else if (code > 0x7f) return -1;
    if (length === into.length) return -1;
    into[length++] = code;
  }
  return length;
}

/** Every byte but unreserved ones (RFC 3986) escaped, so that nothing on the way rewrites it. */
export function encodePercent(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    text += /[A-Za-z0-9._~-]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

/** Which parameter that is, or -1. */
function nameOf(bytes: Uint8Array, from: number, to: number): number {
  for (let name = 0; name < NAMES.length; name++) if (equals(bytes, from, to, NAMES[name]!)) return name;
  return -1;
}

function equals(bytes: Uint8Array, from: number, to: number, wanted: Uint8Array): boolean {
  if (to - from !== wanted.length) return false;
  for (let n = 0; n < wanted.length; n++) if (bytes[from + n] !== wanted[n]) return false;
  return true;
}

function codes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
