/**
 * Where a peer hears of others while it runs: the trackers of its torrent, those that the user named, and
 * the local network (BEP 14) unless the torrent is private. Each of the user's trackers is announced to for
 * itself; the torrent's tiers are taken as BEP 12 means them.
 */
import type { PeerHandle } from "../peer/api.ts";
import { randomBytes } from "../random-bytes.ts";
import { Announcer } from "../tracker/announcer.ts";
import { LocalDiscovery } from "../tracker/lsd.ts";
import { VERSION } from "../version.ts";
import type { Output } from "./output.ts";
import { isLoopback } from "./peer-argument.ts";

export interface DiscoveryOptions {
  readonly infoHash: Uint8Array;
  /** BEP 27: peers come from trackers alone. */
  readonly isPrivate: boolean;
  /** Address that the peer listens on; null: all. */
  readonly listen: string | null;
  /** TCP port that the peer listens on. */
  readonly port: number;
  /** Tiers of the torrent. */
  readonly tiers: readonly (readonly string[])[];
  /** Trackers that the user named. */
  readonly trackers: readonly string[];
  readonly peer: PeerHandle;
  /** Everything is there from the beginning. */
  readonly isSeed: boolean;
  readonly output: Output;
}

/**
 * Where there is a tracker, the local network is asked this much later: the first requests go to those whom the
 * tracker names, and a machine that starts should not spend its time on sockets for every interface before that.
 */
const NEIGHBOURS_AFTER_TRACKER_MS = 1_000;

export class Discovery {
  private readonly announcers: Announcer[];
  /** What each tracker last said was wrong, so that the same is told once. */
  private readonly troubles = new Map<string, string | null>();
  private readonly neighbours: LocalDiscovery | null;
  private neighboursTimer: Timer | undefined;
  private isComplete: boolean;

  constructor(private readonly options: DiscoveryOptions) {
    this.isComplete = options.isSeed;
    const groups = [...options.trackers.map((url) => [[url]]), options.tiers.filter((tier) => tier.length > 0)];
    const peerId = makePeerId();
    this.announcers = groups.filter((tiers) => tiers.length > 0).map((tiers) => this.announcer(tiers, peerId));
    for (const announcer of this.announcers) announcer.start();
    this.neighbours = options.isPrivate || isLoopback(options.listen) ? null : this.lookAround();
  }

  /** The last piece is there: trackers count this peer as a seed from now on. */
  completed(): void {
    this.isComplete = true;
    for (const announcer of this.announcers) announcer.announceNow("completed");
  }

  /** The torrent turned out to be private (BEP 27) when its metadata came. */
  leaveNeighbours(): void {
    clearTimeout(this.neighboursTimer);
    this.neighbours?.stop();
  }

  /** Says good-bye to the trackers; takes two seconds at most. */
  async stop(): Promise<void> {
    this.leaveNeighbours();
    await Promise.all(this.announcers.map((announcer) => announcer.stop()));
  }

  private announcer(tiers: readonly (readonly string[])[], peerId: Uint8Array): Announcer {
    const { infoHash, port, peer } = this.options;
    return new Announcer({
      infoHash,
      peerId,
      port,
      tiers,
      random: Math.random,
      stats: () => ({
        uploadedBytes: peer.stats.bytesUploaded,
        downloadedBytes: peer.stats.bytesFetched,
        // Before the first report nothing is known to be there; 0 would make trackers take us for a seed.
        leftBytes: this.isComplete ? 0 : Math.max(1, peer.stats.bytesLeft),
        complete: this.isComplete,
      }),
      onPeers: (peers) => peer.addPeers(peers, "tracker"),
      onTrackerState: (url, trouble) => this.tell(url, trouble),
    });
  }

  /** Discovery on the link is a help, never a condition: what does not work there is for who debugs. */
  private lookAround(): LocalDiscovery {
    const { infoHash, port, listen, peer, output } = this.options;
    const isWildcard = listen === null || listen === "0.0.0.0" || listen === "::";
    const neighbours = new LocalDiscovery({
      onPeer: (_infoHash, address) => peer.addPeers([address], "lsd"),
      onWarning: (message) => output.log("debug", message),
      hosts: isWildcard ? undefined : [listen],
    });
    neighbours.add(infoHash.toHex(), port);
    const start = () => void neighbours.start();
    if (this.announcers.length === 0) start();
    else this.neighboursTimer = setTimeout(start, NEIGHBOURS_AFTER_TRACKER_MS);
    return neighbours;
  }

  private tell(url: string, trouble: string | null): void {
    const before = this.troubles.get(url) ?? null;
    this.troubles.set(url, trouble);
    if (trouble === before) return;
    if (trouble === null) this.options.output.log("debug", `tracker ${url}: answers again`);
    else this.options.output.warning("tracker", `tracker ${url}: ${trouble}; trying again`);
  }
}

/** `-DS0100-` and 12 random bytes, as BEP 20 has it. */
function makePeerId(): Uint8Array {
  const digits = VERSION.split(".").map((part) => part.padStart(1, "0").slice(-1));
  return Buffer.concat([Buffer.from(`-DS${digits.join("").padEnd(4, "0").slice(0, 4)}-`), randomBytes(12)]);
}
