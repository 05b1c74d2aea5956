/**
 * What `serve` listens with: the tracker (HTTP and UDP) and, on the same HTTP port, the torrents and a summary.
 */
import { splitUrl } from "../tracker/http.ts";
import { startTracker, type Tracker } from "../tracker/tracker.ts";
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
}

/** Starts it all. Throws a Failure where a port is taken, the address is not ours or two torrents have one name. */
export function startServer(options: ServerOptions): Promise<Tracker> {
  const shelf = new TorrentShelf(options.torrents);
  return startTracker({
    listen: options.listen,
    httpPort: options.httpPort,
    udpPort: options.udpPort,
    open: false,
    allowed: options.torrents.map((torrent) => torrent.metainfo.infoHash.toHex()),
    route: (request) => {
      const { path } = splitUrl(request.url);
      if (path === "/" && (request.method === "GET" || request.method === "HEAD")) return shelf.summary(request);
      return shelf.handle(path, request);
    },
  });
}
