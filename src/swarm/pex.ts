/**
 * Peer exchange (BEP 11): tells each peer the others we are connected to, once at the start and then once a minute
 * what changed. Addresses told are the ones others can dial: the one we dialled, or the listening port it named.
 */
import { addressKey, type PeerAddress } from "../wire/address.ts";
import { encodePex, PexFlag, type PexPeer } from "../wire/extensions.ts";
import { EXTENDED_OVERHEAD_BYTES } from "../wire/frames.ts";
import { PEX_ADDRESSES_MAX, PEX_INTERVAL_MS } from "./policy.ts";
import type { Session } from "./session.ts";

/** Bytes of a message with the most addresses (IPv6, with flags, added and dropped), and its keys. */
const MESSAGE_BYTES_MAX = PEX_ADDRESSES_MAX * (18 * 2 + 1) + 128;
/** BEP 11 asks for a minute; a message much earlier is ignored. */
const RECEIVE_INTERVAL_MS = PEX_INTERVAL_MS / 2;

export class Pex {
  constructor(private readonly sessions: readonly Session[]) {}

  /** False: too soon after the one before, ignored. */
  mayReceive(nowMs: number, session: Session): boolean {
    if (nowMs - session.ext.pexReceivedMs < RECEIVE_INTERVAL_MS) return false;
    session.ext.pexReceivedMs = nowMs;
    return true;
  }

  /** Writes a message where one is due and has something to say. */
  flush(nowMs: number, session: Session): void {
    const ext = session.ext;
    if (ext.pexId === 0 || !session.isOpen || nowMs < ext.pexNextMs) return;
    if (session.room < EXTENDED_OVERHEAD_BYTES + Math.min(MESSAGE_BYTES_MAX, session.roomMax / 2)) return;
    ext.pexTold ??= new Set();
    const told = ext.pexTold;
    const current = new Set<string>();
    const added: PexPeer[] = [];
    const dropped: PeerAddress[] = [];
    const addressesMax = Math.min(PEX_ADDRESSES_MAX, Math.floor(session.roomMax / 2 / 37));
    for (const other of this.sessions) {
      const address = dialAddress(other);
      if (other === session || !other.isOpen || address === null) continue;
      // The same string for all who are told it.
      other.ext.dialKey ??= addressKey(address);
      const key = other.ext.dialKey;
      current.add(key);
      if (told.has(key) || added.length >= addressesMax) continue;
      added.push({ address, flags: (other.isSeed ? PexFlag.seed : 0) | (other.outgoing ? PexFlag.reachable : 0) });
      told.add(key);
    }
    for (const key of told) {
      if (current.has(key) || dropped.length >= addressesMax) continue;
      told.delete(key);
      dropped.push(fromKey(key));
    }
    // With nothing to say it is asked again at the next tick, and a newcomer is then told at once.
    if (added.length === 0 && dropped.length === 0) return;
    ext.pexNextMs = nowMs + PEX_INTERVAL_MS;
    session.writeExtended(ext.pexId, encodePex({ added, dropped }));
  }
}

/** Where others can dial the remote peer of a session, or null while that is unknown. */
export function dialAddress(session: Session): PeerAddress | null {
  if (session.outgoing) return session.address;
  return session.ext.listenPort === 0 ? null : { host: session.address.host, port: session.ext.listenPort };
}

function fromKey(key: string): PeerAddress {
  const colon = key.lastIndexOf(":");
  return { host: key.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(key.slice(colon + 1)) };
}
