/**
 * Announcing over HTTP (BEP 3, 7, 23, 24). The query is built by hand from raw bytes. A reply is bounded in
 * time and size, and read strictly: a tracker is no more trusted than a peer.
 */
import { TRACKER_REPLY_BYTES_MAX } from "../limits.ts";
import { BencodeFault } from "../torrent/bencode-scan.ts";
import { decodeCompact4, decodeCompact6, hostFromBytes, makeAddress, type PeerAddress } from "../wire/address.ts";
import { type BencodeDictionary, type BencodeValue, decodeBencode } from "./bencode.ts";
import { type ClientAnnounce, type ClientReply, TrackerFault } from "./client.ts";
import { encodePercent } from "./query.ts";
import { printable } from "./udp-client.ts";

const TIMEOUT_MS = 10_000;
/** Where a tracker names no interval (it must): ours. */
const INTERVAL_FALLBACK_S = 30;

/** Announces once over HTTP or HTTPS. See `announceTo`. */
export async function announceHttp(url: string, announce: ClientAnnounce, signal: AbortSignal): Promise<ClientReply> {
  const body = await get(announceUrl(url, announce), signal);
  try {
    return readReply(decodeBencode(body));
  } catch (error) {
    if (error instanceof BencodeFault) throw new TrackerFault(`its reply is no bencode: ${error.message}`);
    throw error;
  }
}

/** The URL to get. Parameters that the tracker's URL has already (a passkey) stay in front. */
export function announceUrl(url: string, announce: ClientAnnounce): string {
  const base = url.split("#")[0]!;
  const query = [
    `info_hash=${encodePercent(announce.infoHash)}`,
    `peer_id=${encodePercent(announce.peerId)}`,
    `port=${announce.port}`,
    `uploaded=${announce.uploadedBytes}`,
    `downloaded=${announce.downloadedBytes}`,
    `left=${announce.leftBytes}`,
    `key=${announce.key.toString(16).padStart(8, "0")}`,
    "compact=1",
  ];
  if (announce.event !== "none") query.push(`event=${announce.event}`);
  if (announce.peersWanted >= 0) query.push(`numwant=${announce.peersWanted}`);
  return `${base}${base.includes("?") ? "&" : "?"}${query.join("&")}`;
}

async function get(url: string, signal: AbortSignal): Promise<Uint8Array> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  try {
    // A connection is not kept: the next announce is half a minute away, and a fleet's idle ones would add up.
    const response = await fetch(url, { signal: AbortSignal.any([signal, timeout]), keepalive: false });
    // Some trackers put a failure reason under another status; it says more than the number.
    const body = await readBody(response);
    if (response.status !== 200 && body[0] !== 0x64) throw new TrackerFault(`it answered HTTP ${response.status}`);
    return body;
  } catch (error) {
    signal.throwIfAborted();
    if (timeout.aborted) throw new TrackerFault(`no reply within ${TIMEOUT_MS / 1000} s`);
    if (error instanceof TrackerFault) throw error;
    throw new TrackerFault(connectText(error));
  }
}

async function readBody(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let lengthBytes = 0;
  for await (const chunk of response.body ?? []) {
    lengthBytes += chunk.length;
    if (lengthBytes > TRACKER_REPLY_BYTES_MAX)
      throw new TrackerFault(`its reply is larger than ${TRACKER_REPLY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function connectText(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ConnectionRefused" || code === "ECONNREFUSED") return "nothing listens on that port";
  return message?.split("\n")[0] ?? String(error);
}

function readReply(reply: BencodeValue): ClientReply {
  if (!(reply instanceof Map)) throw new TrackerFault("its reply is no dictionary");
  const reason = reply.get("failure reason");
  if (reason !== undefined) throw new TrackerFault(`it refused: ${text(reason) ?? "without a reason"}`);
  const minInterval = reply.get("min interval");
  return {
    peers: [...readPeers(reply.get("peers")), ...compact(reply, "peers6", decodeCompact6)],
    intervalMs: (seconds(reply.get("interval")) ?? INTERVAL_FALLBACK_S) * 1000,
    minIntervalMs: minInterval === undefined ? null : (seconds(minInterval) ?? 0) * 1000,
    externalHost: externalHost(reply.get("external ip")),
    warning: text(reply.get("warning message")),
  };
}

/** Compact IPv4, or BEP 3's list of dictionaries. */
function readPeers(peers: BencodeValue | undefined): PeerAddress[] {
  if (Array.isArray(peers)) return peers.map(dictionaryPeer).filter((peer) => peer !== null);
  return peers === undefined ? [] : unpack(peers, "peers", decodeCompact4);
}

function compact(
  reply: BencodeDictionary,
  key: string,
  decode: (bytes: Uint8Array) => PeerAddress[] | null,
): PeerAddress[] {
  const value = reply.get(key);
  return value === undefined ? [] : unpack(value, key, decode);
}

function unpack(value: BencodeValue, key: string, decode: (bytes: Uint8Array) => PeerAddress[] | null): PeerAddress[] {
  const peers = value instanceof Uint8Array ? decode(value) : null;
  if (peers === null) throw new TrackerFault(`its reply is malformed: ${key} is no list of addresses`);
  return peers;
}

/** BEP 3 lets `ip` be a DNS name; we dial addresses only, so such an entry is left out. */
function dictionaryPeer(entry: BencodeValue): PeerAddress | null {
  if (!(entry instanceof Map)) return null;
  const host = text(entry.get("ip"));
  const port = entry.get("port");
  return host === null || typeof port !== "number" ? null : makeAddress(host, port);
}

function externalHost(value: BencodeValue | undefined): string | null {
  return value instanceof Uint8Array && (value.length === 4 || value.length === 16) ? hostFromBytes(value) : null;
}

function seconds(value: BencodeValue | undefined): number | null {
  return typeof value === "number" && value > 0 ? value : null;
}

function text(value: BencodeValue | undefined): string | null {
  return value instanceof Uint8Array ? printable(value) : null;
}
