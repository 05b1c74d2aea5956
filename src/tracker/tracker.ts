/**
 * A running tracker: one registry behind an HTTP port and a UDP port. `track` is this alone; `serve` gives it
 * further routes.
 */
import { existsSync } from "node:fs";
import { HttpTracker } from "./http.ts";
import { Registry, type SwarmCounts } from "./registry.ts";
import { bindFailure, startUdpTracker, type UdpTracker } from "./udp.ts";

export interface TrackerOptions {
  /** Address to bind; null: all of IPv6 and IPv4. */
  readonly listen: string | null;
  /** 0: the kernel chooses. */
  readonly httpPort: number;
  /** 0: the kernel chooses. */
  readonly udpPort: number;
  /** Any torrent is tracked. */
  readonly open: boolean;
  /** Info-hashes (40 hex digits) that are tracked where it is not open. */
  readonly allowed: Iterable<string>;
  /** Answers what is not the tracker's: null becomes 404. */
  readonly route?: (request: Request) => Response | null;
}

export interface Tracker {
  readonly httpPort: number;
  readonly udpPort: number;
  /** The address bound. */
  readonly listen: string;
  /** Peers of all swarms. */
  readonly peerCount: number;
  /** Replaces the info-hashes that are tracked. */
  setAllowed(infoHashes: Iterable<string>): void;
  /** Counts of one swarm; null where it is not tracked. */
  counts(infoHash: string): SwarmCounts | null;
  /** Ends both servers; connections that are open are closed. */
  stop(): Promise<void>;
}

/** A client that is silent for this long in the middle of a request is dropped. */
const IDLE_TIMEOUT_S = 10;
/** Nothing here takes a body. */
const REQUEST_BODY_BYTES_MAX = 1024;

/** Binds both ports and serves until `stop`. Throws a Failure where a port is taken or the address is not ours. */
export async function startTracker(options: TrackerOptions): Promise<Tracker> {
  const listen = options.listen ?? wildcard();
  const now = () => performance.now();
  const registry = new Registry({ open: options.open, random: Math.random });
  registry.setAllowed(options.allowed);
  const udp = await startUdpTracker({ registry, listen, port: options.udpPort, now });
  const http = startHttp(options, listen, new HttpTracker({ registry, listen, now }), udp);
  return {
    httpPort: http.port!,
    udpPort: udp.port,
    listen,
    get peerCount() {
      return registry.peerCount;
    },
    setAllowed: (infoHashes) => registry.setAllowed(infoHashes),
    counts: (infoHash) => registry.scrape(now(), infoHash),
    async stop() {
      udp.stop();
      await http.stop(true);
    },
  };
}

/** Dual-stack where the kernel knows IPv6: `::` takes IPv4 too. */
export function wildcard(): string {
  return existsSync("/proc/net/if_inet6") ? "::" : "0.0.0.0";
}

function startHttp(options: TrackerOptions, listen: string, tracker: HttpTracker, udp: UdpTracker) {
  try {
    return Bun.serve({
      hostname: listen,
      port: options.httpPort,
      // Outside of development Bun shares ports (SO_REUSEPORT): a second tracker would silently take half the announces.
      development: false,
      reusePort: false,
      idleTimeout: IDLE_TIMEOUT_S,
      maxRequestBodySize: REQUEST_BODY_BYTES_MAX,
      fetch: (request, server) =>
        tracker.handle(request, server) ??
        options.route?.(request) ??
        new Response("nothing is here\n", { status: 404 }),
      error: endOnBug,
    });
  } catch (error) {
    udp.stop();
    throw bindFailure(error, "TCP", listen, options.httpPort, "--http");
  }
}

/** No request may make a handler throw: one that does is a bug, and must not be hidden behind a 500. */
function endOnBug(error: Error): Response {
  queueMicrotask(() => {
    throw error;
  });
  return new Response("internal error\n", { status: 500 });
}
