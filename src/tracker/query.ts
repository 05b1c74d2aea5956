/**
 * The query of an announce or scrape, read from its raw text. `URLSearchParams` decodes percent escapes as
 * UTF-8 and so destroys a binary info_hash; here an escape is one byte. Pure; arrays returned are new.
 */
import { makeAddress } from "../wire/address.ts";
import type { AnnounceEvent } from "./registry.ts";

export interface AnnounceQuery {
  /** 40 lower-case hex digits. */
  infoHash: string;
  /** 20 bytes. */
  peerId: Uint8Array;
  port: number;
  leftBytes: number;
  event: AnnounceEvent;
  /** `numwant`, or -1. */
  peersWanted: number;
  /** BEP 23: false only where the client asks for dictionaries with `compact=0`. */
  compact: boolean;
  /** `no_peer_id=1`: dictionaries without ids. */
  withoutPeerIds: boolean;
}

/** Parameters by name, values still escaped; of a repeated name the first counts. */
export function splitQuery(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const [name, value] of pairs(query)) if (!parameters.has(name)) parameters.set(name, value);
  return parameters;
}

/** Reads an announce. Returns what is wrong with it as text for `failure reason`. `ip=` is ignored on purpose. */
export function parseAnnounce(query: string): AnnounceQuery | string {
  const parameters = splitQuery(query);
  const infoHash = binary20(parameters, "info_hash");
  if (typeof infoHash === "string") return infoHash;
  const peerId = binary20(parameters, "peer_id");
  if (typeof peerId === "string") return peerId;
  const port = parameters.get("port");
  if (port === undefined) return "port is missing";
  if (!/^\d{1,5}$/.test(port) || makeAddress("0.0.0.0", Number(port)) === null) return "port must be 1 to 65535";
  // Without `left` a peer counts as still downloading, as other trackers have it: that errs on the harmless side.
  const left = parameters.get("left") ?? "1";
  if (!/^\d{1,20}$/.test(left)) return "left must be a number of bytes, 0 or more";
  return {
    infoHash: infoHash.toHex(),
    peerId,
    port: Number(port),
    leftBytes: Number(left),
    event: readEvent(parameters.get("event")),
    peersWanted: readCount(parameters.get("numwant")),
    compact: parameters.get("compact") !== "0",
    withoutPeerIds: parameters.get("no_peer_id") === "1",
  };
}

/** Every `info_hash` of a scrape, as hex, without duplicates. Returns what is wrong as text for `failure reason`. */
export function parseScrape(query: string): string[] | string {
  const infoHashes = new Set<string>();
  for (const [name, value] of pairs(query)) {
    if (name !== "info_hash") continue;
    const bytes = decodePercent(value);
    if (bytes?.length !== 20) return "info_hash must be 20 bytes, percent-encoded";
    infoHashes.add(bytes.toHex());
  }
  return infoHashes.size === 0 ? "info_hash is missing" : [...infoHashes];
}

/** Percent escapes to bytes. Null where an escape is broken or a character is no single byte of ASCII. */
export function decodePercent(text: string): Uint8Array | null {
  const bytes = new Uint8Array(text.length);
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    let code = text.charCodeAt(at);
    if (code === 0x25) {
      code = hexDigit(text.charCodeAt(at + 1)) * 16 + hexDigit(text.charCodeAt(at + 2));
      at += 2;
    } else if (code > 0x7f) return null;
    if (Number.isNaN(code)) return null;
    bytes[length++] = code;
  }
  return bytes.subarray(0, length);
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

function* pairs(query: string): IterableIterator<[string, string]> {
  for (const part of query.split("&")) {
    const equals = part.indexOf("=");
    if (equals > 0) yield [part.slice(0, equals), part.slice(equals + 1)];
  }
}

function binary20(parameters: ReadonlyMap<string, string>, name: string): Uint8Array | string {
  const value = parameters.get(name);
  if (value === undefined) return `${name} is missing`;
  const bytes = decodePercent(value);
  return bytes?.length === 20 ? bytes : `${name} must be 20 bytes, percent-encoded`;
}

/** An event nobody knows (BEP 21's `paused`) is an ordinary announce. */
function readEvent(text: string | undefined): AnnounceEvent {
  return text === "started" || text === "stopped" || text === "completed" ? text : "none";
}

function readCount(text: string | undefined): number {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : -1;
}

/** Value of a hex digit's character code, NaN for any other code (and for the NaN after a text's end). */
function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : Number.NaN;
}
