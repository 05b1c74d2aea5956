/**
 * What `serve` listens with: the tracker (HTTP and UDP) and, on the same HTTP port, the torrents, a summary, what
 * nodes talk to and what they boot.
 */
import { splitUrl } from "../tracker/http.ts";
import { startTracker, type Tracker } from "../tracker/tracker.ts";
import { NodesApi, type PlanDefaults } from "./api.ts";
import type { BootFiles } from "./boot-files.ts";
import type { FleetEvent } from "./fleet.ts";
import { ImageListener, type ImageListenerOptions } from "./nvme/listener.ts";
import { type ServedTorrent, TorrentShelf } from "./torrents.ts";

export interface ServerOptions {
  /** Address to bind; null: all of IPv6 and IPv4. */
  readonly listen: string | null;
  /** 0: the kernel chooses. */
  readonly httpPort: number;
  /** 0: the kernel chooses. */
  readonly udpPort: number;
  /** What is handed out, and the only torrents that are tracked. */
  readonly torrents: readonly ServedTorrent[];
  readonly plan: PlanDefaults;
  /** What machines boot; null: they boot from elsewhere. */
  readonly boot: BootFiles | null;
  /** Where nodes with little memory read what they boot; null: nowhere. */
  readonly nodeImages: ImageListenerOptions | null;
  /** A node reported something. */
  readonly onNodeEvent: (event: FleetEvent) => void;
}

/** A running server. `stop` ends it with all its connections. */
export type Server = Pick<Tracker, "httpPort" | "udpPort" | "counts" | "stop"> & { readonly nvmePort: number | null };

/** Starts it all. Throws a Failure where a port is taken, the address is not ours or two torrents have one name. */
export async function startServer(options: ServerOptions): Promise<Server> {
  const shelf = new TorrentShelf(options.torrents);
  const nodes = new NodesApi({
    plan: options.plan,
    torrentUrls: (request) => shelf.urls(request),
    onEvent: options.onNodeEvent,
  });
  const nodeImages = options.nodeImages === null ? null : new ImageListener(options.nodeImages);
  const starting = startTracker({
    listen: options.listen,
    httpPort: options.httpPort,
    udpPort: options.udpPort,
    open: false,
    allowed: options.torrents.map((torrent) => torrent.metainfo.infoHash.toHex()),
    route: (request) => {
      const { path } = splitUrl(request.url);
      if (path === "/" && (request.method === "GET" || request.method === "HEAD")) return shelf.summary(request);
      return (
        nodes.handle(path, request) ??
        nodeImages?.handle(path) ??
        options.boot?.handle(path, request) ??
        shelf.handle(path, request)
      );
    },
  });
  const tracker = await starting.catch(async (error: unknown) => {
    await nodeImages?.stop();
    throw error;
  });
  return {
    nvmePort: nodeImages?.port ?? null,
    httpPort: tracker.httpPort,
    udpPort: tracker.udpPort,
    counts: (infoHash) => tracker.counts(infoHash),
    stop: async () => {
      nodes.stop();
      await nodeImages?.stop();
      await tracker.stop();
    },
  };
}
