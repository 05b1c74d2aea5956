/**
 * Who is in which swarm: the pure heart of the tracker, behind HTTP and UDP alike. No clock, no randomness,
 * no socket: time and the generator are passed in, so the simulator runs the very same code.
 *
 * A peer is an endpoint (address and port) of a swarm; a node that announces over IPv4 and IPv6 is two. It is
 * forgotten after `stopped` or three intervals of silence. A large swarm is answered with a uniform sample,
 * so each member, the seeder too, is named to about `TRACKER_PEERS_RETURNED` others per interval and not to
 * all of them. Who is complete is told of no other seeder: they have nothing for each other.
 *
 * The reply of `announce` is one object that the registry owns and fills anew with each call.
 */
import {
  ANNOUNCE_INTERVALS_KEPT,
  ANNOUNCE_INTERVAL_S,
  TRACKER_PEERS_MAX,
  TRACKER_PEERS_PER_SWARM_MAX,
  TRACKER_PEERS_RETURNED,
  TRACKER_PEERS_RETURNED_MAX,
  TRACKER_SWARMS_OPEN_MAX,
} from "../limits.ts";
import { type EndpointBytes, PeerTable, type RandomFraction } from "./peer-table.ts";

export type { RandomFraction } from "./peer-table.ts";
export type AnnounceEvent = "none" | "started" | "stopped" | "completed";

/** One announce, already checked for form: `endpoint` has 6 or 18 bytes, its port is not 0, the id has 20 bytes. */
export interface AnnounceRequest {
  /** 40 lower-case hex digits. */
  infoHash: string;
  peerId: Uint8Array;
  /** The caller's address as the socket shows it (never what `ip=` claims) and the port it listens on, packed. */
  endpoint: Uint8Array;
  event: AnnounceEvent;
  leftBytes: number;
  /** `numwant`; negative: as many as the tracker likes. */
  peersWanted: number;
  /** False: only peers of the caller's family are wanted (BEP 15). */
  bothFamilies: boolean;
  /** The reply's `peerIds` are filled in. */
  wantsPeerIds: boolean;
  /**
   * This machine's addresses as that caller would reach them (4 and 16 bytes), or null. They stand in for peers
   * that announced from a loopback address: the seeder beside the tracker.
   */
  ownHost4: Uint8Array | null;
  ownHost6: Uint8Array | null;
}

/** Packed peers of one family; entries 0 to `count` - 1 are valid. `peerIds` holds 20 bytes for each, where they are wanted. */
export interface PeerSelection {
  count: number;
  readonly endpoints: Uint8Array;
  readonly peerIds: Uint8Array;
}

/** Valid until the next announce. */
export interface AnnounceReply {
  /** Why nothing was done, for `failure reason`; null when all is well. */
  refusal: string | null;
  /** What the caller should be told although it was answered, or null. */
  warning: string | null;
  seeders: number;
  leechers: number;
  downloaded: number;
  readonly peers4: PeerSelection;
  readonly peers6: PeerSelection;
}

/** Counts as BEP 48 names them: complete, incomplete, and how often `completed` was heard. */
export interface SwarmCounts {
  seeders: number;
  leechers: number;
  downloaded: number;
}

export interface RegistryOptions {
  /** Whoever asks gets a swarm. Otherwise only the hashes given to `setAllowed`. */
  open: boolean;
  random: RandomFraction;
}

interface Swarm {
  readonly table4: PeerTable;
  readonly table6: PeerTable;
  downloaded: number;
}

const KEPT_MS = ANNOUNCE_INTERVAL_S * ANNOUNCE_INTERVALS_KEPT * 1000;
const SWEEP_INTERVAL_MS = 5000;
/** Drawn beyond what is wanted, to replace the caller itself and peers that the caller could not reach. */
const SPARE_PICKS = 4;

export class Registry {
  readonly #open: boolean;
  readonly #random: RandomFraction;
  readonly #swarms = new Map<string, Swarm>();
  readonly #allowed = new Set<string>();
  readonly #picks = new Int32Array(TRACKER_PEERS_RETURNED_MAX + SPARE_PICKS);
  readonly #reply: AnnounceReply = {
    refusal: null,
    warning: null,
    seeders: 0,
    leechers: 0,
    downloaded: 0,
    peers4: newSelection(6),
    peers6: newSelection(18),
  };
  #peers = 0;
  #sweptMs = Number.NEGATIVE_INFINITY;

  constructor(options: RegistryOptions) {
    this.#open = options.open;
    this.#random = options.random;
  }

  /** Peers of all swarms. */
  get peerCount(): number {
    return this.#peers;
  }

  get swarmCount(): number {
    return this.#swarms.size;
  }

  /** Replaces the allowed info-hashes (40 hex digits). Swarms no longer allowed end, unless the registry is open. */
  setAllowed(infoHashes: Iterable<string>): void {
    this.#allowed.clear();
    for (const infoHash of infoHashes) this.#allowed.add(infoHash.toLowerCase());
    if (this.#open) return;
    for (const [infoHash, swarm] of this.#swarms) if (!this.#allowed.has(infoHash)) this.#drop(infoHash, swarm);
  }

  isAllowed(infoHash: string): boolean {
    return this.#open || this.#allowed.has(infoHash);
  }

  /** Info-hashes that are allowed or have a swarm. */
  *infoHashes(): IterableIterator<string> {
    yield* this.#allowed;
    for (const infoHash of this.#swarms.keys()) if (!this.#allowed.has(infoHash)) yield infoHash;
  }

  /** Notes the caller and chooses peers for it. `nowMs` is monotonic. */
  announce(nowMs: number, request: AnnounceRequest): AnnounceReply {
    this.#sweep(nowMs);
    const reply = this.#reply;
    reply.warning = null;
    reply.peers4.count = 0;
    reply.peers6.count = 0;
    const swarm = this.#swarm(request.infoHash);
    reply.refusal = typeof swarm === "string" ? swarm : null;
    if (typeof swarm === "string") return reply;

    const table = request.endpoint.length === 6 ? swarm.table4 : swarm.table6;
    if (request.event === "stopped") this.#forget(table, request);
    else {
      this.#remember(nowMs, swarm, table, request);
      this.#choose(swarm, request);
    }
    reply.seeders = seedersOf(swarm);
    reply.leechers = leechersOf(swarm);
    reply.downloaded = swarm.downloaded;
    return reply;
  }

  /** Counts of a swarm, zeros where nobody announced yet; null where the info-hash is not served. */
  scrape(nowMs: number, infoHash: string): SwarmCounts | null {
    this.#sweep(nowMs);
    const swarm = this.#swarms.get(infoHash);
    if (swarm) return { seeders: seedersOf(swarm), leechers: leechersOf(swarm), downloaded: swarm.downloaded };
    return this.#allowed.has(infoHash) ? { seeders: 0, leechers: 0, downloaded: 0 } : null;
  }

  /** The swarm of a hash, or why there is none. */
  #swarm(infoHash: string): Swarm | string {
    const known = this.#swarms.get(infoHash);
    if (known) return known;
    const listed = this.#allowed.has(infoHash);
    if (!listed && !this.#open) return "this tracker does not serve that torrent";
    if (!listed && this.#swarms.size >= TRACKER_SWARMS_OPEN_MAX + this.#allowed.size) return "this tracker is full";
    const swarm = { table4: new PeerTable(6), table6: new PeerTable(18), downloaded: 0 };
    this.#swarms.set(infoHash, swarm);
    return swarm;
  }

  #forget(table: PeerTable, request: AnnounceRequest): void {
    const index = table.find(request.endpoint);
    if (index < 0) return;
    table.remove(index);
    this.#peers--;
  }

  /** A tracker that is full still answers: the caller can dial others, only nobody is sent to it. */
  #remember(nowMs: number, swarm: Swarm, table: PeerTable, request: AnnounceRequest): void {
    const seeding = request.leftBytes === 0;
    let index = table.find(request.endpoint);
    if (index >= 0) index = table.mark(index, seeding);
    else if (this.#isFull(swarm)) {
      this.#reply.warning = "this tracker is full: you were given peers but no peer is told of you";
      return;
    } else {
      index = table.add(request.endpoint, seeding);
      this.#peers++;
    }
    table.touch(index, request.peerId, nowMs);
    if (request.event === "completed" && table.markCompleted(index)) swarm.downloaded++;
  }

  #isFull(swarm: Swarm): boolean {
    return this.#peers >= TRACKER_PEERS_MAX || swarm.table4.count + swarm.table6.count >= TRACKER_PEERS_PER_SWARM_MAX;
  }

  /**
   * At least half of the answer is of the caller's own family as long as there are enough: a caller that speaks
   * one family only must not be starved by a swarm of the other.
   */
  #choose(swarm: Swarm, request: AnnounceRequest): void {
    const asked = request.peersWanted < 0 ? TRACKER_PEERS_RETURNED : request.peersWanted;
    const wanted = Math.min(asked, TRACKER_PEERS_RETURNED_MAX);
    const isV4 = request.endpoint.length === 6;
    const [own, other] = isV4 ? [swarm.table4, swarm.table6] : [swarm.table6, swarm.table4];
    const [mine, theirs] = isV4 ? [this.#reply.peers4, this.#reply.peers6] : [this.#reply.peers6, this.#reply.peers4];
    const othersShare = request.bothFamilies ? Math.min(other.count, Math.floor(wanted / 2)) : 0;
    this.#pick(own, request, Math.max(wanted - othersShare, 0), mine);
    if (request.bothFamilies) this.#pick(other, request, wanted - mine.count, theirs);
  }

  #pick(table: PeerTable, request: AnnounceRequest, wanted: number, selection: PeerSelection): void {
    const eligible = request.leftBytes === 0 ? table.leechers : table.count;
    if (wanted === 0) return;
    const picked = table.sample(this.#random, eligible, wanted + SPARE_PICKS, this.#picks);
    // The spare picks end up last in the sample; starting anywhere keeps them from being dropped more than others.
    const start = Math.floor(this.#random() * picked);
    for (let n = 0; n < picked && selection.count < wanted; n++) {
      this.#append(table, this.#picks[(start + n) % picked]!, request, selection);
    }
  }

  /** Copies one peer to the selection unless it is the caller itself or cannot be reached by it. */
  #append(table: PeerTable, index: number, request: AnnounceRequest, selection: PeerSelection): void {
    if (table.hasPeerId(index, request.peerId)) return;
    const at = selection.count * table.endpointBytes;
    table.copyEndpoint(index, selection.endpoints, at);
    if (table.endpointBytes === request.endpoint.length && equalAt(selection.endpoints, at, request.endpoint)) return;
    if (!makeReachable(selection.endpoints, at, table.endpointBytes, request)) return;
    if (request.wantsPeerIds) table.copyPeerId(index, selection.peerIds, selection.count * 20);
    selection.count++;
  }

  /** Now and then forgets the silent, and swarms of an open tracker that nobody is in. */
  #sweep(nowMs: number): void {
    if (nowMs - this.#sweptMs < SWEEP_INTERVAL_MS) return;
    this.#sweptMs = nowMs;
    for (const [infoHash, swarm] of this.#swarms) {
      this.#peers -= swarm.table4.expire(nowMs - KEPT_MS) + swarm.table6.expire(nowMs - KEPT_MS);
      if (swarm.table4.count + swarm.table6.count === 0 && !this.#allowed.has(infoHash)) this.#swarms.delete(infoHash);
    }
  }

  #drop(infoHash: string, swarm: Swarm): void {
    this.#peers -= swarm.table4.count + swarm.table6.count;
    this.#swarms.delete(infoHash);
  }
}

function newSelection(endpointBytes: EndpointBytes): PeerSelection {
  return {
    count: 0,
    endpoints: new Uint8Array(TRACKER_PEERS_RETURNED_MAX * endpointBytes),
    peerIds: new Uint8Array(TRACKER_PEERS_RETURNED_MAX * 20),
  };
}

function seedersOf(swarm: Swarm): number {
  return swarm.table4.count - swarm.table4.leechers + swarm.table6.count - swarm.table6.leechers;
}

function leechersOf(swarm: Swarm): number {
  return swarm.table4.leechers + swarm.table6.leechers;
}

function equalAt(bytes: Uint8Array, at: number, wanted: Uint8Array): boolean {
  for (let n = 0; n < wanted.length; n++) if (bytes[at + n] !== wanted[n]) return false;
  return true;
}

/**
 * A loopback address means the tracker's own machine: for a caller elsewhere it is replaced by this machine's
 * address. A link-local IPv6 address means nothing off its link: only callers with one are told. Returns false
 * where the peer cannot be reached by the caller.
 */
function makeReachable(
  endpoints: Uint8Array,
  at: number,
  endpointBytes: EndpointBytes,
  request: AnnounceRequest,
): boolean {
  const hostBytes = endpointBytes - 2;
  const callerIsLocal = isLoopback(request.endpoint, 0, request.endpoint.length - 2);
  if (isLoopback(endpoints, at, hostBytes)) {
    if (callerIsLocal) return true;
    const host = endpointBytes === 6 ? request.ownHost4 : request.ownHost6;
    if (host === null) return false;
    endpoints.set(host, at);
    return true;
  }
  return !isLinkLocal6(endpoints, at, hostBytes) || isLinkLocal6(request.endpoint, 0, request.endpoint.length - 2);
}

function isLoopback(bytes: Uint8Array, at: number, hostBytes: number): boolean {
  if (hostBytes === 4) return bytes[at] === 127;
  for (let n = 0; n < 15; n++) if (bytes[at + n] !== 0) return false;
  return bytes[at + 15] === 1;
}

function isLinkLocal6(bytes: Uint8Array, at: number, hostBytes: number): boolean {
  return hostBytes === 16 && bytes[at] === 0xfe && (bytes[at + 1]! & 0xc0) === 0x80;
}
