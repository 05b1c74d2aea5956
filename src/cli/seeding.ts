/** One torrent being served from its source, with its announces: what `seed` does once and `serve` for each image. */
import { BLOCK_BYTES_MAX } from "../limits.ts";
import type { SeedSource } from "../image/foreign/prepared-source.ts";
import type { PeerEvent, PeerHandle, PeerStats } from "../peer/api.ts";
import { startPeer } from "../peer/handle.ts";
import type { PeerAddress } from "../wire/address.ts";
import { Discovery } from "./discovery.ts";
import type { Output } from "./output.ts";
import type { TorrentFile } from "./torrent-argument.ts";

export interface SeedingOptions {
  readonly torrent: TorrentFile;
  readonly source: SeedSource;
  readonly listen: string | null;
  readonly port: number;
  readonly portMayChange: boolean;
  readonly peers: readonly PeerAddress[];
  /** Trackers beside those of the torrent. */
  readonly trackers: readonly string[];
  readonly memoryBytes: number;
  readonly io: "auto" | "uring" | "epoll";
  readonly direct: "auto" | "on" | "off";
  readonly compress: boolean;
  /** Hash the whole source first. */
  readonly check: boolean;
  readonly timeoutMs: number;
  readonly output: Output;
  readonly onProgress: (stats: PeerStats) => void;
}

type Listening = Extract<PeerEvent, { type: "listening" }>;

export class Seeding {
  /** Resolves when others can connect; rejects where that is not to be. */
  readonly listening: Promise<Listening>;
  /** Resolves after `stop`; rejects with the Failure that ended it. */
  readonly finished: Promise<void>;
  private readonly peer: PeerHandle;
  private discovery: Discovery | null = null;
  private tellListening!: (event: Listening) => void;

  constructor(private readonly options: SeedingOptions) {
    const { torrent, source, listen, port, portMayChange, peers, memoryBytes, io, direct, compress, check, timeoutMs } =
      options;
    const heard = new Promise<Listening>((resolve) => {
      this.tellListening = resolve;
    });
    this.peer = startPeer(
      {
        role: "seed",
        trusted: false,
        torrent: torrent.bytes,
        path: source.path,
        madeOf: source.madeOf,
        force: false,
        listen,
        port,
        portMayChange,
        peers,
        memoryBytes,
        io,
        direct,
        delta: "never",
        check,
        lingerMs: 0,
        timeoutMs,
        blockBytesMax: BLOCK_BYTES_MAX,
        compress,
      },
      (event) => this.hear(event),
    );
    this.finished = this.peer.finished.then(() => undefined).finally(() => this.discovery?.stop());
    this.listening = Promise.race([heard, this.finished.then(() => heard)]);
  }

  get stats(): PeerStats {
    return this.peer.stats;
  }

  stop(): void {
    this.peer.stop();
  }

  private hear(event: PeerEvent): void {
    const { output, torrent, trackers, listen, onProgress } = this.options;
    if (event.type === "listening") {
      const { infoHash, isPrivate, trackers: tiers } = torrent.metainfo;
      const { port } = event;
      const { peer } = this;
      this.discovery = new Discovery({
        infoHash,
        isPrivate,
        listen,
        port,
        tiers,
        trackers,
        peer,
        isSeed: true,
        output,
      });
      if (event.note !== null) output.log("info", event.note);
      this.tellListening(event);
    } else if (event.type === "progress") onProgress(event.stats);
    else if (event.type === "log") {
      if (event.level === "warning") output.warning(event.code, event.message);
      else output.log(event.level, event.message);
    }
  }
}
