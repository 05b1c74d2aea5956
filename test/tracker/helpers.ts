/** Makers of announces for the tests of the tracker. */
import { BencodeCursor } from "../../src/torrent/bencode-scan.ts";
import { type BencodeDictionary, decodeBencode } from "../../src/tracker/bencode.ts";
import { packEndpoint } from "../../src/tracker/http.ts";
import { encodePercent } from "../../src/tracker/query.ts";
import type { AnnounceReply, AnnounceRequest } from "../../src/tracker/registry.ts";
import { decodeCompact4, decodeCompact6, formatAddress } from "../../src/wire/address.ts";
import { Random } from "../../src/swarm/random.ts";

export const HASH = "a0b1ff00".repeat(5);
export const HASH_BYTES = Uint8Array.fromHex(HASH);

/** Uniform in [0, 1) from a seed that a failing test prints. */
export function seeded(seed: number): () => number {
  const random = new Random(seed);
  return () => random.next() / 2 ** 32;
}

export function peerId(number: number): Uint8Array {
  return new TextEncoder().encode(`-TT0000-${String(number).padStart(12, "0")}`);
}

/** An announce of peer `number`, from an address of its own. */
export function request(
  number: number,
  changes: Partial<AnnounceRequest> & { host?: string; port?: number } = {},
): AnnounceRequest {
  const { host = `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`, port = 6881, ...rest } = changes;
  return {
    infoHash: HASH,
    peerId: peerId(number),
    endpoint: packEndpoint(host, port)!,
    event: "none",
    leftBytes: 1,
    peersWanted: -1,
    bothFamilies: true,
    wantsPeerIds: true,
    ownHost4: null,
    ownHost6: null,
    ...rest,
  };
}

/** Addresses of a reply as text. */
export function peersOf(reply: AnnounceReply): string[] {
  const four = decodeCompact4(reply.peers4.endpoints.slice(0, reply.peers4.count * 6))!;
  const six = decodeCompact6(reply.peers6.endpoints.slice(0, reply.peers6.count * 18))!;
  return [...four, ...six].map(formatAddress);
}

/** Query of an announce; a change of null leaves the parameter out. */
export function announceQuery(number: number, changes: Record<string, string | number | null> = {}): string {
  const parameters = {
    info_hash: encodePercent(HASH_BYTES),
    peer_id: encodePercent(peerId(number)),
    port: 7000 + number,
    uploaded: 0,
    downloaded: 0,
    left: 1,
    compact: 1,
    ...changes,
  };
  return Object.entries(parameters)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

/** A reply's dictionary. It must be canonical bencode: keys sorted and unique. */
export function readReply(bytes: Uint8Array): BencodeDictionary {
  const strict = new BencodeCursor(bytes);
  strict.skipValue();
  strict.finish();
  return decodeBencode(bytes) as BencodeDictionary;
}

export function textOf(value: unknown): string {
  return new TextDecoder().decode(value as Uint8Array);
}
