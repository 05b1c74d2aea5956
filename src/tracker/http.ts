/**
 * What the tracker says over HTTP: replies to `/announce` and `/scrape`, without a socket.
 *
 * Replies are bencoded by hand into one buffer, which the caller gives: a tracker's reply is a handful of
 * known keys, in the order that bencoding wants.
 */
import { ANNOUNCE_INTERVAL_MIN_S, ANNOUNCE_INTERVAL_S, TRACKER_SCRAPE_MAX, TRACKER_URL_BYTES_MAX } from "../limits.ts";
import { canonicalHost, hostBytes, hostFromBytes } from "../wire/address.ts";
import { OwnAddresses } from "./own-address.ts";
import { AnnounceQuery, parseScrape } from "./query.ts";
import type { AnnounceReply, PeerSelection, Registry } from "./registry.ts";

export interface HttpTrackerOptions {
  registry: Registry;
  /** The address bound to, for `OwnAddresses`. */
  listen: string;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
  /** Where replies are written, HTTP_REPLY_BYTES_MAX long. */
  buffer: Uint8Array;
}

/** A full reply in the dictionary form is below 100 bytes for each of 50 peers; a full scrape below 80 for each of 74. */
export const HTTP_REPLY_BYTES_MAX = 16 * 1024;

/** What every reply has between its numbers. */
const Text = {
  complete: encoded("d8:completei"),
  downloaded: encoded("e10:downloadedi"),
  externalIp: encoded("e11:external ip"),
  incomplete: encoded("10:incompletei"),
  intervalsAndPeers: encoded(`e8:intervali${ANNOUNCE_INTERVAL_S}e12:min intervali${ANNOUNCE_INTERVAL_MIN_S}e5:peers`),
} as const;

function encoded(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Every method writes its reply to the buffer, from its start, and returns the length. Errors are a `failure reason`. */
export class HttpTracker {
  readonly #registry: Registry;
  readonly #now: () => number;
  readonly #own: OwnAddresses;
  readonly #out: BencodeBuffer;
  readonly #query = new AnnounceQuery();

  constructor(options: HttpTrackerOptions) {
    this.#registry = options.registry;
    this.#now = options.now;
    this.#own = new OwnAddresses(options.listen);
    this.#out = new BencodeBuffer(options.buffer);
  }

  /** Answers the query between `from` and `to`. `callerHost`: 4 or 16 bytes, as the socket shows it. */
  announce(bytes: Uint8Array, from: number, to: number, callerHost: Uint8Array): number {
    if (to - from > TRACKER_URL_BYTES_MAX) return this.#failure("the request is too long");
    const query = this.#query;
    const wrong = query.read(bytes, from, to);
    if (wrong !== null) return this.#failure(wrong);
    const endpoint = endpointOf(callerHost, query.port);
    const nowMs = this.#now();
    const own = this.#own.for(endpoint, nowMs);
    const reply = this.#registry.announce(nowMs, {
      infoHash: query.infoHash,
      peerId: query.peerId,
      endpoint,
      event: query.event,
      leftBytes: query.leftBytes,
      peersWanted: query.peersWanted,
      bothFamilies: true,
      wantsPeerIds: !query.compact && !query.withoutPeerIds,
      ownHost4: own.host4,
      ownHost6: own.host6,
    });
    if (reply.refusal !== null) return this.#failure(reply.refusal);
    return this.#writeReply(reply, query, endpoint);
  }

  /** Keys in byte order, as bencoding wants them. `external ip` is BEP 24, `peers6` BEP 7. */
  #writeReply(reply: AnnounceReply, query: AnnounceQuery, endpoint: Uint8Array): number {
    const out = this.#out.start();
    out.constant(Text.complete).number(reply.seeders).constant(Text.downloaded).number(reply.downloaded);
    out.constant(Text.externalIp).bytes(endpoint, 0, endpoint.length - 2);
    out.constant(Text.incomplete).number(reply.leechers).constant(Text.intervalsAndPeers);
    if (query.compact) {
      out.bytes(reply.peers4.endpoints, 0, reply.peers4.count * 6);
      if (reply.peers6.count > 0) out.text("peers6").bytes(reply.peers6.endpoints, 0, reply.peers6.count * 18);
    } else {
      out.ascii("l");
      writeDictionaries(out, reply.peers4, 4, query.withoutPeerIds);
      writeDictionaries(out, reply.peers6, 16, query.withoutPeerIds);
      out.ascii("e");
    }
    if (reply.warning !== null) out.text("warning message").text(reply.warning);
    return out.ascii("e").lengthBytes;
  }

  /** BEP 48. Info-hashes that are not served are left out. */
  scrape(query: string): number {
    if (query.length > TRACKER_URL_BYTES_MAX) return this.#failure("the request is too long");
    const infoHashes = parseScrape(query);
    if (typeof infoHashes === "string") return this.#failure(infoHashes);
    if (infoHashes.length > TRACKER_SCRAPE_MAX)
      return this.#failure(`at most ${TRACKER_SCRAPE_MAX} info_hash in a scrape`);
    const out = this.#out.start().ascii("d").text("files").ascii("d");
    const nowMs = this.#now();
    for (const infoHash of infoHashes.sort()) {
      const counts = this.#registry.scrape(nowMs, infoHash);
      if (counts === null) continue;
      const key = Uint8Array.fromHex(infoHash);
      out.bytes(key, 0, key.length).ascii("d").text("complete").integer(counts.seeders);
      out.text("downloaded").integer(counts.downloaded).text("incomplete").integer(counts.leechers).ascii("e");
    }
    out.ascii("e").text("flags").ascii("d").text("min_request_interval").integer(ANNOUNCE_INTERVAL_MIN_S);
    return out.ascii("ee").lengthBytes;
  }

  #failure(reason: string): number {
    return this.#out.start().ascii("d").text("failure reason").text(reason).ascii("e").lengthBytes;
  }
}

/** Path and raw query of a request's URL. Taken apart by hand: a URL object would re-encode the query. */
export function splitUrl(url: string): { path: string; query: string } {
  const pathAt = url.indexOf("/", url.indexOf("://") + 3);
  const mark = url.indexOf("?", pathAt);
  if (pathAt < 0) return { path: "/", query: "" };
  return mark < 0
    ? { path: url.slice(pathAt), query: "" }
    : { path: url.slice(pathAt, mark), query: url.slice(mark + 1) };
}

/** 6 or 18 bytes of an address as text (IPv4-mapped becomes IPv4, a scope is dropped); null for no address. */
export function packEndpoint(host: string, port: number): Uint8Array | null {
  const canonical = canonicalHost(host.split("%")[0]!);
  const bytes = canonical === null ? null : hostBytes(canonical);
  return bytes === null ? null : endpointOf(bytes, port);
}

/** The same of an address of 4 or 16 bytes, which is not IPv4-mapped. */
export function endpointOf(host: Uint8Array, port: number): Uint8Array {
  const endpoint = new Uint8Array(host.length + 2);
  endpoint.set(host);
  endpoint[host.length] = port >> 8;
  endpoint[host.length + 1] = port & 0xff;
  return endpoint;
}

/** BEP 3's form: a dictionary for each peer. */
function writeDictionaries(
  out: BencodeBuffer,
  selection: PeerSelection,
  hostLength: number,
  withoutPeerIds: boolean,
): void {
  for (let n = 0; n < selection.count; n++) {
    const at = n * (hostLength + 2);
    out
      .ascii("d")
      .text("ip")
      .text(hostFromBytes(selection.endpoints.subarray(at, at + hostLength)));
    if (!withoutPeerIds) out.text("peer id").bytes(selection.peerIds, n * 20, 20);
    out
      .text("port")
      .integer(selection.endpoints[at + hostLength]! * 256 + selection.endpoints[at + hostLength + 1]!)
      .ascii("e");
  }
}

/** Bencode into a fixed buffer. What goes in is bounded by the limits, so running over its end is a bug and throws. */
class BencodeBuffer {
  readonly #buffer: Uint8Array;
  #length = 0;

  constructor(buffer: Uint8Array) {
    this.#buffer = buffer;
  }

  get lengthBytes(): number {
    return this.#length;
  }

  start(): this {
    this.#length = 0;
    return this;
  }

  ascii(text: string): this {
    this.#need(text.length);
    for (let n = 0; n < text.length; n++) this.#buffer[this.#length++] = text.charCodeAt(n);
    return this;
  }

  /** Bytes that were encoded before. */
  constant(encodedText: Uint8Array): this {
    this.#need(encodedText.length);
    for (let n = 0; n < encodedText.length; n++) this.#buffer[this.#length++] = encodedText[n]!;
    return this;
  }

  /** The decimal digits of an integer that is not negative. */
  number(value: number): this {
    let digits = 1;
    for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) digits++;
    this.#need(digits);
    let rest = value;
    for (let at = this.#length + digits - 1; at >= this.#length; at--) {
      this.#buffer[at] = 0x30 + (rest % 10);
      rest = Math.floor(rest / 10);
    }
    this.#length += digits;
    return this;
  }

  integer(value: number): this {
    return this.ascii(`i${value}e`);
  }

  text(text: string): this {
    return this.ascii(`${text.length}:${text}`);
  }

  bytes(source: Uint8Array, from: number, lengthBytes: number): this {
    this.number(lengthBytes).ascii(":");
    this.#need(lengthBytes);
    for (let n = 0; n < lengthBytes; n++) this.#buffer[this.#length++] = source[from + n]!;
    return this;
  }

  #need(lengthBytes: number): void {
    if (this.#length + lengthBytes > this.#buffer.length) throw new RangeError("tracker reply exceeds its buffer");
  }
}
