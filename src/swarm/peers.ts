/**
 * Addresses: whom we know, whom to dial and when, who is banned, and which of them are ourselves.
 *
 * Invariant: an address is idle, being dialled or connected; it is dialled only when idle, due, not banned and not
 * our own. The table is bounded: addresses that failed most are forgotten first.
 */
import { addressKey, type PeerAddress } from "../wire/address.ts";
import type { PeerOrigin } from "./actions.ts";
import { networkOf } from "./networks.ts";
import { BANS_MAX, KNOWN_PEERS_MAX, REDIAL_MAX_MS, REDIAL_MIN_MS } from "./policy.ts";
import type { Random } from "./random.ts";

const enum Contact {
  idle,
  dialling,
  connected,
}

export interface KnownPeer {
  readonly address: PeerAddress;
  readonly key: string;
  readonly origin: PeerOrigin;
  readonly network: string | null;
  contact: Contact;
  failures: number;
  dialAfterMs: number;
  /** It had everything when we last saw it: no use to us once we have everything too. */
  isSeed: boolean;
  /** It is ourselves. */
  isSelf: boolean;
}

/** Is a network (`networkOf`) one of ours? */
export type IsNear = (network: string | null) => boolean;

export class Peers {
  private readonly known = new Map<string, KnownPeer>();
  /** Every network once: thousands of addresses lie in few. */
  private readonly networks = new Map<string, string>();
  /** Ban keys; a Set keeps the order of insertion, so the oldest is forgiven first. */
  private readonly bans = new Set<string>();
  /** Ban keys of those who shared in a bad piece and have not brought a good one alone since. */
  private readonly suspects = new Set<string>();
  /** Dials under way. */
  dialling = 0;

  constructor(private readonly random: Random) {}

  get size(): number {
    return this.known.size;
  }

  add(address: PeerAddress, origin: PeerOrigin): void {
    const key = addressKey(address);
    if (this.known.has(key) || this.bans.has(address.host)) return;
    if (this.known.size >= KNOWN_PEERS_MAX && !this.forgetWorst()) return;
    this.known.set(key, {
      address,
      key,
      origin,
      network: this.shared(networkOf(address.host)),
      contact: Contact.idle,
      failures: 0,
      dialAfterMs: 0,
      isSeed: false,
      isSelf: false,
    });
  }

  /**
   * A random idle address that is due, near ones first, and others only where `mayBeFar`; or null. Seeds are left out
   * where they are of no use.
   */
  choose(nowMs: number, seedsToo: boolean, isNear: IsNear = () => false, mayBeFar = true): PeerAddress | null {
    let chosen: KnownPeer | null = null;
    let chosenIsNear = false;
    let candidates = 0;
    for (const peer of this.known.values()) {
      if (peer.contact !== Contact.idle || peer.dialAfterMs > nowMs || peer.isSelf || (peer.isSeed && !seedsToo))
        continue;
      if (this.bans.size > 0 && (this.bans.has(peer.address.host) || this.bans.has(peer.key))) continue;
      const near = isNear(peer.network);
      if (!near && (chosenIsNear || !mayBeFar)) continue;
      if (near && !chosenIsNear) candidates = 0;
      if (this.random.below(++candidates) !== 0) continue;
      chosen = peer;
      chosenIsNear = near;
    }
    return chosen === null ? null : chosen.address;
  }

  dialStarted(address: PeerAddress): void {
    this.dialling++;
    this.setContact(address, Contact.dialling);
  }

  dialFailed(nowMs: number, address: PeerAddress): void {
    this.dialling--;
    this.wait(nowMs, address);
  }

  /** A dialled connection stands; whether it is of use shows with the handshake. */
  dialSucceeded(address: PeerAddress): void {
    this.dialling--;
    this.setContact(address, Contact.connected);
  }

  /** A session with this listening address is open: it is not dialled meanwhile. */
  connected(address: PeerAddress, origin: PeerOrigin): void {
    this.add(address, origin);
    this.setContact(address, Contact.connected);
  }

  /** The handshake was right: earlier failures are forgotten. */
  proven(address: PeerAddress): void {
    const peer = this.known.get(addressKey(address));
    if (peer !== undefined) peer.failures = 0;
  }

  /** The connection ended; the address is due again after a while, sooner where it had worked. */
  disconnected(nowMs: number, address: PeerAddress): void {
    const peer = this.known.get(addressKey(address));
    if (peer === undefined || peer.contact !== Contact.connected) return;
    this.wait(nowMs, address);
  }

  markSeed(address: PeerAddress): void {
    const peer = this.known.get(addressKey(address));
    if (peer !== undefined) peer.isSeed = true;
  }

  markSelf(address: PeerAddress): void {
    const peer = this.known.get(addressKey(address));
    if (peer !== undefined) peer.isSelf = true;
  }

  ban(key: string): void {
    this.bans.add(key);
    if (this.bans.size <= BANS_MAX) return;
    for (const oldest of this.bans) {
      this.bans.delete(oldest);
      return;
    }
  }

  isBanned(key: string): boolean {
    return this.bans.has(key);
  }

  /** It shared in a bad piece with others. */
  suspect(key: string): void {
    if (this.suspects.size >= BANS_MAX) this.suspects.clear();
    this.suspects.add(key);
  }

  isSuspected(key: string): boolean {
    return this.suspects.has(key);
  }

  clear(key: string): void {
    this.suspects.delete(key);
  }

  private shared(network: string | null): string | null {
    if (network === null) return null;
    const known = this.networks.get(network);
    if (known !== undefined) return known;
    if (this.networks.size >= KNOWN_PEERS_MAX) this.networks.clear();
    this.networks.set(network, network);
    return network;
  }

  private setContact(address: PeerAddress, contact: Contact): void {
    const peer = this.known.get(addressKey(address));
    if (peer !== undefined) peer.contact = contact;
  }

  /** The wait doubles with each failure and is spread, so that a fleet does not dial in step. */
  private wait(nowMs: number, address: PeerAddress): void {
    const peer = this.known.get(addressKey(address));
    if (peer === undefined) return;
    const waitMs = Math.min(REDIAL_MAX_MS, REDIAL_MIN_MS * 2 ** peer.failures);
    peer.contact = Contact.idle;
    peer.failures++;
    peer.dialAfterMs = nowMs + waitMs / 2 + this.random.below(waitMs);
  }

  private forgetWorst(): boolean {
    let worst: KnownPeer | null = null;
    for (const peer of this.known.values()) {
      if (peer.contact !== Contact.idle || peer.origin === "user" || peer.failures === 0) continue;
      if (worst === null || peer.failures > worst.failures) worst = peer;
    }
    if (worst !== null) this.known.delete(worst.key);
    return worst !== null;
  }
}

/** Under which a peer is banned: its host; on the loopback, where a whole fleet may share one, its peer id. */
export function banKeyOf(address: PeerAddress, peerId: Uint8Array): string {
  const loopback = address.host.startsWith("127.") || address.host === "::1";
  return loopback ? `id:${Buffer.from(peerId).toString("hex")}` : address.host;
}
