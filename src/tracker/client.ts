/**
 * What an announce is, seen from the peer: one call that speaks to a tracker by the scheme of its URL.
 * `announcer.ts` decides when and to whom; `http-client.ts` and `udp-client.ts` know the protocols.
 */
import type { PeerAddress } from "../wire/address.ts";
import { announceHttp } from "./http-client.ts";
import type { AnnounceEvent } from "./registry.ts";
import { announceUdp, type UdpConnections } from "./udp-client.ts";

export interface ClientAnnounce {
  /** 20 bytes. */
  readonly infoHash: Uint8Array;
  /** 20 bytes. */
  readonly peerId: Uint8Array;
  /** TCP port that we listen on. */
  readonly port: number;
  /** Random 32 bits that stay the same while we run: a tracker can know us again when our address changes. */
  readonly key: number;
  readonly uploadedBytes: number;
  readonly downloadedBytes: number;
  readonly leftBytes: number;
  readonly event: AnnounceEvent;
  /** Negative: as many as the tracker likes. */
  readonly peersWanted: number;
}

export interface ClientReply {
  readonly peers: PeerAddress[];
  readonly intervalMs: number;
  /** Null where the tracker names none. */
  readonly minIntervalMs: number | null;
  /** Our address as the tracker sees it (BEP 24), or null. */
  readonly externalHost: string | null;
  readonly warning: string | null;
}

/** A tracker did not answer, or refused. The message says what happened, without the URL. */
export class TrackerFault extends Error {
  override readonly name = "TrackerFault";
}

/**
 * Announces once. Throws a TrackerFault; throws whatever the signal's reason is when that aborts.
 * `connections` is kept by the caller between calls (BEP 15 connection ids).
 */
export function announceTo(
  url: string,
  announce: ClientAnnounce,
  connections: UdpConnections,
  signal: AbortSignal,
): Promise<ClientReply> {
  if (url.startsWith("udp:")) return announceUdp(url, announce, connections, signal);
  if (/^https?:/.test(url)) return announceHttp(url, announce, signal);
  return Promise.reject(new TrackerFault(`trackers of the kind ${url.split(":")[0]} are not known here`));
}
