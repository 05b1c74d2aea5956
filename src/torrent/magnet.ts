/**
 * Magnet links (BEP 9): which torrent, and where peers of it can be asked for. Only v1 info hashes are taken.
 */
import { type Failure, usageError } from "../errors.ts";
import { TRACKERS_MAX } from "../limits.ts";
import { quote } from "./quote.ts";

export interface Magnet {
  /** 20 bytes. */
  readonly infoHash: Uint8Array;
  /** Display name, or null. */
  readonly name: string | null;
  /** Announce URLs, in order. */
  readonly trackers: readonly string[];
  /** Peers as `host:port` text (`x.pe`); a host may be a name, so they are not addresses yet. */
  readonly peers: readonly string[];
}

const PREFIX = "magnet:?";
const INFO_HASH_PREFIX = "urn:btih:";
const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
const HASH_BYTES = 20;
const HEX_DIGITS = 40;
const BASE32_DIGITS = 32;
const MAGNET_LENGTH_MAX = 64 * 1024;

export function isMagnet(text: string): boolean {
  return text.slice(0, PREFIX.length - 1).toLowerCase() === "magnet:";
}

/** Reads a magnet link. Throws Failure (usage) with the reason. */
export function parseMagnet(text: string): Magnet {
  if (text.length > MAGNET_LENGTH_MAX) throw badMagnet("it is too long");
  if (text.slice(0, PREFIX.length).toLowerCase() !== PREFIX) throw badMagnet(`it does not start with ${PREFIX}`);
  let infoHash: Uint8Array | null = null;
  let sawOtherTopic = false;
  let name: string | null = null;
  const trackers: string[] = [];
  const peers: string[] = [];
  for (const [key, value] of parameters(text.slice(PREFIX.length))) {
    // Several of one kind may be numbered: `tr.1`, `xt.2`.
    const kind = key.toLowerCase().replace(/\.\d+$/, "");
    if (kind === "xt") {
      const hash = parseTopic(value);
      sawOtherTopic ||= hash === null;
      if (hash !== null && infoHash !== null && hash.toHex() !== infoHash.toHex())
        throw badMagnet("it names two torrents");
      infoHash = hash ?? infoHash;
    } else if (kind === "dn") name ??= value;
    else if (kind === "tr" && value !== "") trackers.push(value);
    else if (kind === "x.pe" && value !== "") peers.push(checkPeer(value));
  }
  if (infoHash === null)
    throw badMagnet(sawOtherTopic ? "it names no BitTorrent v1 info hash" : "it names no torrent (xt=urn:btih:...)");
  if (trackers.length > TRACKERS_MAX) throw badMagnet(`it names more than ${TRACKERS_MAX} trackers`);
  if (peers.length > TRACKERS_MAX) throw badMagnet(`it names more than ${TRACKERS_MAX} peers`);
  return { infoHash, name, trackers, peers };
}

/** Writes a magnet link; the hash as 40 hex digits. */
export function formatMagnet(magnet: Magnet): string {
  const parts = [`xt=${INFO_HASH_PREFIX}${magnet.infoHash.toHex()}`];
  if (magnet.name !== null) parts.push(`dn=${encodeURIComponent(magnet.name)}`);
  for (const url of magnet.trackers) parts.push(`tr=${encodeURIComponent(url)}`);
  for (const peer of magnet.peers) parts.push(`x.pe=${encodeURIComponent(peer)}`);
  return PREFIX + parts.join("&");
}

function* parameters(query: string): Generator<[string, string]> {
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals < 0) throw badMagnet(`${quote(part)} has no value`);
    yield [part.slice(0, equals), decode(part.slice(equals + 1))];
  }
}

/** Percent-decoding; `+` is a space, as clients write names. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    throw badMagnet(`${quote(text)} is not percent-encoded UTF-8`);
  }
}

/** The info hash of `urn:btih:` in hex or base32; null for a topic of another kind (`urn:btmh:` is v2). */
function parseTopic(topic: string): Uint8Array | null {
  if (topic.slice(0, INFO_HASH_PREFIX.length).toLowerCase() !== INFO_HASH_PREFIX) return null;
  const text = topic.slice(INFO_HASH_PREFIX.length).toLowerCase();
  if (text.length === HEX_DIGITS && /^[0-9a-f]+$/.test(text)) return Uint8Array.fromHex(text);
  if (text.length === BASE32_DIGITS && /^[a-z2-7]+$/.test(text)) return fromBase32(text);
  throw badMagnet(`its info hash ${quote(text)} is neither 40 hex nor 32 base32 digits`);
}

function fromBase32(text: string): Uint8Array {
  const bytes = new Uint8Array(HASH_BYTES);
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const digit of text) {
    bits = ((bits << 5) | BASE32.indexOf(digit)) & 0xfff;
    held += 5;
    if (held < 8) continue;
    held -= 8;
    bytes[at++] = bits >> held;
  }
  return bytes;
}

function checkPeer(text: string): string {
  const match = /^(?:\[[0-9a-f:.]+\]|[^\s:[\]/]+):(\d{1,5})$/i.exec(text);
  const port = match === null ? 0 : Number(match[1]);
  if (port < 1 || port > 65535) throw badMagnet(`its peer ${quote(text)} is not host:port`);
  return text;
}

function badMagnet(reason: string): Failure {
  return usageError(`not a magnet link that can be used: ${reason}`);
}
