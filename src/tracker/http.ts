/**
 * The tracker over HTTP: `/announce`, `/scrape` and `/stats` on any `Bun.serve`. It is a handler, not a server,
 * so that `track` serves it alone and `serve` mounts it beside the torrents.
 *
 * Replies are bencoded by hand into one scratch buffer, which the handler owns and copies out of: a tracker's
 * reply is a handful of known keys, in the order that bencoding wants.
 */
import { ANNOUNCE_INTERVAL_MIN_S, ANNOUNCE_INTERVAL_S, TRACKER_SCRAPE_MAX, TRACKER_URL_BYTES_MAX } from "../limits.ts";
import { canonicalHost, hostBytes, hostFromBytes } from "../wire/address.ts";
import { OwnAddresses } from "./own-address.ts";
import { type AnnounceQuery, parseAnnounce, parseScrape } from "./query.ts";
import type { AnnounceReply, PeerSelection, Registry } from "./registry.ts";

/** What a handler needs of `Bun.serve`'s server. */
export interface RequestSource {
  requestIP(request: Request): { address: string } | null;
}

export interface HttpTrackerOptions {
  registry: Registry;
  /** The address bound to, for `OwnAddresses`. */
  listen: string;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

const HEADERS = { "Content-Type": "text/plain", "Cache-Control": "no-store" };
/** A full reply in the dictionary form is below 100 bytes for each of 50 peers; a full scrape below 80 for each of 74. */
const SCRATCH_BYTES = 16 * 1024;

export class HttpTracker {
  readonly #registry: Registry;
  readonly #now: () => number;
  readonly #own: OwnAddresses;
  readonly #out = new BencodeBuffer(SCRATCH_BYTES);

  constructor(options: HttpTrackerOptions) {
    this.#registry = options.registry;
    this.#now = options.now;
    this.#own = new OwnAddresses(options.listen);
  }

  /** Answers a tracker's path; null for any other, which is the caller's. Errors are HTTP 200 with a `failure reason`. */
  handle(request: Request, source: RequestSource): Response | null {
    const { path, query } = splitUrl(request.url);
    if (path !== "/announce" && path !== "/scrape" && path !== "/stats") return null;
    if (request.method !== "GET")
      return new Response("only GET is answered here\n", { status: 405, headers: { Allow: "GET" } });
    if (path === "/stats") return this.#stats();
    if (query.length > TRACKER_URL_BYTES_MAX) return this.#failure("the request is too long");
    return path === "/scrape" ? this.#scrape(query) : this.#announce(query, source.requestIP(request)?.address);
  }

  #announce(queryText: string, callerHost: string | undefined): Response {
    const query = parseAnnounce(queryText);
    if (typeof query === "string") return this.#failure(query);
    const endpoint = callerHost === undefined ? null : packEndpoint(callerHost, query.port);
    if (endpoint === null) return this.#failure("your address is unknown to the tracker");
    const nowMs = this.#now();
    const own = this.#own.for(endpoint, nowMs);
    const { infoHash, peerId, event, leftBytes, peersWanted } = query;
    const caller = { infoHash, peerId, endpoint, event, leftBytes, peersWanted };
    const reply = this.#registry.announce(nowMs, {
      ...caller,
      bothFamilies: true,
      ownHost4: own.host4,
      ownHost6: own.host6,
    });
    if (reply.refusal !== null) return this.#failure(reply.refusal);
    this.#writeReply(reply, query, endpoint);
    return this.#respond();
  }

  /** Keys in byte order, as bencoding wants them. `external ip` is BEP 24, `peers6` BEP 7. */
  #writeReply(reply: AnnounceReply, query: AnnounceQuery, endpoint: Uint8Array): void {
    const out = this.#out.start();
    out.ascii("d").text("complete").integer(reply.seeders);
    out.text("downloaded").integer(reply.downloaded);
    out.text("external ip").bytes(endpoint, 0, endpoint.length - 2);
    out.text("incomplete").integer(reply.leechers);
    out.text("interval").integer(ANNOUNCE_INTERVAL_S);
    out.text("min interval").integer(ANNOUNCE_INTERVAL_MIN_S);
    if (query.compact) {
      out.text("peers").bytes(reply.peers4.endpoints, 0, reply.peers4.count * 6);
      if (reply.peers6.count > 0) out.text("peers6").bytes(reply.peers6.endpoints, 0, reply.peers6.count * 18);
    } else {
      out.text("peers").ascii("l");
      writeDictionaries(out, reply.peers4, 4, query.withoutPeerIds);
      writeDictionaries(out, reply.peers6, 16, query.withoutPeerIds);
      out.ascii("e");
    }
    if (reply.warning !== null) out.text("warning message").text(reply.warning);
    out.ascii("e");
  }

  /** BEP 48. Info-hashes that are not served are left out. */
  #scrape(query: string): Response {
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
    out.ascii("e").text("flags").ascii("d").text("min_request_interval").integer(ANNOUNCE_INTERVAL_MIN_S).ascii("ee");
    return this.#respond();
  }

  #stats(): Response {
    const swarms: Record<string, unknown>[] = [];
    const nowMs = this.#now();
    for (const infoHash of this.#registry.infoHashes())
      swarms.push({ infoHash, ...this.#registry.scrape(nowMs, infoHash) });
    return Response.json({ peers: this.#registry.peerCount, swarms }, { headers: { "Cache-Control": "no-store" } });
  }

  #failure(reason: string): Response {
    this.#out.start().ascii("d").text("failure reason").text(reason).ascii("e");
    return this.#respond();
  }

  #respond(): Response {
    return new Response(this.#out.copy(), { headers: HEADERS });
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

/** 6 or 18 bytes of an address as a socket reports it (IPv4-mapped becomes IPv4, a scope is dropped); null for no address. */
export function packEndpoint(host: string, port: number): Uint8Array | null {
  const canonical = canonicalHost(host.split("%")[0]!);
  const bytes = canonical === null ? null : hostBytes(canonical);
  if (bytes === null) return null;
  const endpoint = new Uint8Array(bytes.length + 2);
  endpoint.set(bytes);
  endpoint[bytes.length] = port >> 8;
  endpoint[bytes.length + 1] = port & 0xff;
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

  constructor(sizeBytes: number) {
    this.#buffer = new Uint8Array(sizeBytes);
  }

  start(): this {
    this.#length = 0;
    return this;
  }

  ascii(text: string): this {
    if (this.#length + text.length > this.#buffer.length) throw new RangeError("tracker reply exceeds its buffer");
    for (let n = 0; n < text.length; n++) this.#buffer[this.#length++] = text.charCodeAt(n);
    return this;
  }

  integer(value: number): this {
    return this.ascii(`i${value}e`);
  }

  text(text: string): this {
    return this.ascii(`${text.length}:${text}`);
  }

  bytes(source: Uint8Array, from: number, lengthBytes: number): this {
    this.ascii(`${lengthBytes}:`);
    if (this.#length + lengthBytes > this.#buffer.length) throw new RangeError("tracker reply exceeds its buffer");
    for (let n = 0; n < lengthBytes; n++) this.#buffer[this.#length++] = source[from + n]!;
    return this;
  }

  copy(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.#length) as Uint8Array<ArrayBuffer>;
  }
}
