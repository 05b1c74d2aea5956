/**
 * Keeps one torrent announced: which tracker of which tier (BEP 12), when again, and `stopped` at the end.
 * It owns one timer and one announce in flight; peers and states go to the callbacks.
 */
import { ANNOUNCE_INTERVAL_MIN_S } from "../limits.ts";
import { randomUint32 } from "../random-bytes.ts";
import type { PeerAddress } from "../wire/address.ts";
import { announceTo, type ClientAnnounce, type ClientReply, TrackerFault } from "./client.ts";
import type { AnnounceEvent, RandomFraction } from "./registry.ts";
import type { UdpConnections } from "./udp-client.ts";

export interface TransferStats {
  readonly uploadedBytes: number;
  readonly downloadedBytes: number;
  readonly leftBytes: number;
  /** Everything is there; such a peer does not hurry to find others. */
  readonly complete: boolean;
}

export interface AnnouncerOptions {
  readonly infoHash: Uint8Array;
  readonly peerId: Uint8Array;
  /** TCP port that we listen on. */
  readonly port: number;
  /** Tiers of tracker URLs (http, https, udp). */
  readonly tiers: readonly (readonly string[])[];
  readonly random: RandomFraction;
  /** Asked at each announce. */
  readonly stats: () => TransferStats;
  /** Peers of the last reply, and of every reply. May be empty. */
  readonly onPeers: (peers: PeerAddress[]) => void;
  /** Our own address as a tracker sees it (BEP 24). */
  readonly onExternalIp?: (host: string) => void;
  /** After each announce to a tracker: `error` is null when it answered, else what happened. */
  readonly onTrackerState?: (url: string, error: string | null) => void;
}

/** While no peer is known an unfinished node asks this often, so that nobody waits long for a seeder that starts late. */
const LONELY_INTERVAL_MS = ANNOUNCE_INTERVAL_MIN_S * 1000;
/**
 * Other trackers name a least interval of 15 minutes, meant for the internet. A node that waits for its seeder
 * keeps to it only this far: a room full of machines must not sit idle for a quarter of an hour.
 */
const LONELY_INTERVAL_MAX_MS = 30_000;
/** What is obeyed of a tracker's interval. */
const INTERVAL_MIN_MS = 5_000;
const INTERVAL_MAX_MS = 3_600_000;
/** After a round in which no tracker answered: this, doubled with each further round, up to the maximum. */
const RETRY_MS = 2_000;
const RETRY_MAX_MS = 30_000;
const STOP_TIMEOUT_MS = 2_000;

export class Announcer {
  readonly #options: AnnouncerOptions;
  readonly #tiers: string[][];
  readonly #key = randomUint32();
  readonly #connections: UdpConnections = new Map();
  /** Trackers that may know us: they hear `stopped`. Others are told `started`, whatever the round is for. */
  readonly #known = new Set<string>();
  readonly #stopping = new AbortController();
  #timer: Timer | undefined;
  #running: Promise<void> | null = null;
  /** What the next round is for, or null; `completed` is kept until some tracker heard it. */
  #pending: AnnounceEvent | null = null;
  #failedRounds = 0;

  constructor(options: AnnouncerOptions) {
    this.#options = options;
    this.#tiers = options.tiers.filter((tier) => tier.length > 0).map((tier) => shuffled(tier, options.random));
  }

  /** Announces `started` and goes on until `stop`. */
  start(): void {
    this.announceNow("started");
  }

  /** Announces at once, or right after the announce in flight. */
  announceNow(event: AnnounceEvent = "none"): void {
    if (this.#stopping.signal.aborted || this.#tiers.length === 0) return;
    if (this.#pending !== "completed") this.#pending = event;
    clearTimeout(this.#timer);
    if (this.#running === null) this.#running = this.#runRounds();
  }

  /** Ends it: gives up what is in flight and tells `stopped` to every tracker that knows us, for at most 2 s. */
  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#stopping.abort();
    await this.#running;
    const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
    const farewell = { ...this.#announce("stopped"), peersWanted: 0 };
    await Promise.all([...this.#known].map((url) => this.#tell(url, farewell, timeout)));
  }

  /** Rounds until nobody asked for another one meanwhile; a round that failed waits for its turn. */
  async #runRounds(): Promise<void> {
    let reply: ClientReply | null = null;
    do {
      const event = this.#pending ?? "none";
      this.#pending = null;
      reply = await this.#round(event);
      if (reply === null && event === "completed") this.#pending = event;
    } while (reply !== null && this.#pending !== null);
    this.#running = null;
    this.#schedule(reply);
  }

  /** Tier by tier, tracker by tracker, until one answers; that one moves to the front of its tier. */
  async #round(event: AnnounceEvent): Promise<ClientReply | null> {
    for (const tier of this.#tiers) {
      for (const url of [...tier]) {
        if (this.#stopping.signal.aborted) return null;
        const isNew = !this.#known.has(url) && event !== "completed";
        this.#known.add(url);
        const reply = await this.#tell(url, this.#announce(isNew ? "started" : event), this.#stopping.signal);
        if (reply === null) continue;
        tier.splice(tier.indexOf(url), 1);
        tier.unshift(url);
        if (reply.externalHost !== null) this.#options.onExternalIp?.(reply.externalHost);
        this.#options.onPeers(reply.peers);
        return reply;
      }
    }
    return null;
  }

  /** One tracker, once. Its faults are reported and make the reply null. */
  async #tell(url: string, announce: ClientAnnounce, signal: AbortSignal): Promise<ClientReply | null> {
    try {
      const reply = await announceTo(url, announce, this.#connections, signal);
      this.#options.onTrackerState?.(url, null);
      return reply;
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof TrackerFault)) throw error;
      this.#known.delete(url);
      this.#options.onTrackerState?.(url, error.message);
      return null;
    }
  }

  #announce(event: AnnounceEvent): ClientAnnounce {
    const { infoHash, peerId, port } = this.#options;
    const { uploadedBytes, downloadedBytes, leftBytes } = this.#options.stats();
    return {
      infoHash,
      peerId,
      port,
      key: this.#key,
      uploadedBytes,
      downloadedBytes,
      leftBytes,
      event,
      peersWanted: -1,
    };
  }

  #schedule(reply: ClientReply | null): void {
    if (this.#stopping.signal.aborted) return;
    const delayMs = reply === null ? this.#retryDelay() : this.#delayAfter(reply);
    this.#timer = setTimeout(() => this.announceNow(this.#pending ?? "none"), delayMs);
  }

  #retryDelay(): number {
    return Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** Math.min(this.#failedRounds++, 10));
  }

  #delayAfter(reply: ClientReply): number {
    this.#failedRounds = 0;
    const least = reply.minIntervalMs ?? 0;
    if (reply.peers.length === 0 && !this.#options.stats().complete)
      return Math.min(LONELY_INTERVAL_MAX_MS, Math.max(LONELY_INTERVAL_MS, least));
    return Math.min(INTERVAL_MAX_MS, Math.max(INTERVAL_MIN_MS, least, reply.intervalMs));
  }
}

function shuffled(urls: readonly string[], random: RandomFraction): string[] {
  const result = [...urls];
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [result[last], result[other]] = [result[other]!, result[last]!];
  }
  return result;
}
