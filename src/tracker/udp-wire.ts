/**
 * The packets of the UDP tracker protocol (BEP 15), for server and client: offsets, actions and events in one
 * place. Pure. All integers are big-endian.
 */
import type { AnnounceEvent } from "./registry.ts";

/** First 8 bytes of a connect request. */
export const PROTOCOL_ID = 0x41727101980n;
export const Action = { connect: 0, announce: 1, scrape: 2, error: 3 } as const;

export const CONNECT_REQUEST_BYTES = 16;
export const CONNECT_REPLY_BYTES = 16;
export const ANNOUNCE_REQUEST_BYTES = 98;
/** Action, transaction id, interval, leechers, seeders; then 6 or 18 bytes for each peer. */
export const ANNOUNCE_REPLY_HEAD_BYTES = 20;
/** Connection id, action, transaction id; then 20 bytes for each info-hash. */
export const SCRAPE_REQUEST_HEAD_BYTES = 16;
/** Action and transaction id; then 12 bytes (seeders, completed, leechers) for each info-hash. */
export const SCRAPE_REPLY_HEAD_BYTES = 8;
export const ERROR_HEAD_BYTES = 8;

/** Offsets in an announce request. */
export const AnnounceAt = {
  connectionId: 0,
  action: 8,
  transactionId: 12,
  infoHash: 16,
  peerId: 36,
  downloaded: 56,
  left: 64,
  uploaded: 72,
  event: 80,
  address: 84,
  key: 88,
  peersWanted: 92,
  port: 96,
} as const;

/** The numbers that BEP 15 gives to the events. */
export const EVENTS: readonly AnnounceEvent[] = ["none", "completed", "started", "stopped"];
