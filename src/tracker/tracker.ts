/**
 * A running tracker: one registry behind an HTTP port and a UDP port, in a thread of its own. `track` is this
 * alone; `serve` gives it further routes, which the main thread answers behind the same port.
 */
import { existsSync } from "node:fs";
import { ExitCode, Failure } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import * as libc from "../kernel/libc.ts";
import { closeListener, type Listener, tryBindUdp, tryListenTcp } from "../kernel/sockets.ts";
import { startWorker } from "../kernel/threads.ts";
import { NODE_REPORT_BYTES_MAX } from "../limits.ts";
import { createMailboxMemory, Mailbox } from "../peer/mailbox.ts";
import { randomBytes } from "../random-bytes.ts";
import { splitUrl } from "./http.ts";
import type { SwarmCounts } from "./registry.ts";
import type { TrackerMessage, TrackerReport, TrackerStats, TrackerWorkerData } from "./worker-messages.ts";

export type { TrackerStats } from "./worker-messages.ts";

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
  readonly route?: (request: Request) => Response | Promise<Response> | null;
  /** Instead of 10 s: a client that has not sent a whole request after this long is dropped. */
  readonly idleMs?: number;
}

export interface Tracker {
  readonly httpPort: number;
  readonly udpPort: number;
  /** The address bound. */
  readonly listen: string;
  /** Replaces the info-hashes that are tracked; in force when `stats` that were asked for afterwards are there. */
  setAllowed(infoHashes: Iterable<string>): void;
  /** Counts of all swarms. */
  stats(): Promise<TrackerStats>;
  /** Counts of one swarm; null where it is not tracked. */
  counts(infoHash: string): Promise<SwarmCounts | null>;
  /** Ends both servers; connections that are open are closed. */
  stop(): Promise<void>;
}

const IDLE_MS = 10_000;
/** Info-hashes of one message: a third of the mailbox. */
const HASHES_PER_MESSAGE = 2000;
/** A mailbox that is full is tried again after this: the thread reads it between two completions. */
const MAILBOX_RETRY_MS = 5;

/** Binds both ports and serves until `stop`. Throws a Failure where a port is taken or the address is not ours. */
export async function startTracker(options: TrackerOptions): Promise<Tracker> {
  const listen = options.listen ?? wildcard();
  const tcp = bound(tryListenTcp(listen, options.httpPort), "TCP", listen, options.httpPort, "--http");
  let udp: Listener;
  try {
    udp = bound(tryBindUdp(listen, options.udpPort), "UDP", listen, options.udpPort, "--udp");
  } catch (error) {
    closeListener(tcp);
    throw error;
  }
  const tracker = new TrackerHandle(options, listen, tcp, udp);
  // Whoever gets a tracker gets one that answers.
  await tracker.stats();
  return tracker;
}

/** Dual-stack where the kernel knows IPv6: `::` takes IPv4 too. */
export function wildcard(): string {
  return existsSync("/proc/net/if_inet6") ? "::" : "0.0.0.0";
}

/** The main thread's side: starts the thread, hands it messages, and answers what is not the tracker's. */
class TrackerHandle implements Tracker {
  readonly httpPort: number;
  readonly udpPort: number;
  readonly #sockets: readonly Listener[];
  readonly #mailboxMemory = createMailboxMemory();
  readonly #mailbox = new Mailbox<TrackerMessage>(this.#mailboxMemory);
  readonly #bell = EventFd.create();
  readonly #worker: Worker;
  readonly #pages: Bun.Server<undefined>;
  readonly #unsent: TrackerMessage[] = [];
  readonly #asked = new Map<number, (stats: TrackerStats) => void>();
  readonly #ended = Promise.withResolvers<void>();
  #lastId = 0;
  #hasEnded = false;

  constructor(
    options: TrackerOptions,
    readonly listen: string,
    tcp: Listener,
    udp: Listener,
  ) {
    this.httpPort = tcp.port;
    this.udpPort = udp.port;
    this.#sockets = [tcp, udp];
    const pagesSocket = `diskswarm-${process.pid}-${randomBytes(8).toHex()}`;
    this.#pages = this.#servePages(pagesSocket, options.route);
    const data: TrackerWorkerData = {
      tcpFd: tcp.fd,
      udpFd: udp.fd,
      listen,
      open: options.open,
      idleMs: options.idleMs ?? IDLE_MS,
      pagesSocket,
      mailboxMemory: this.#mailboxMemory,
      bellFd: this.#bell.fd,
    };
    this.#worker = startWorker("tracker/worker", data);
    this.#worker.onmessage = (message: MessageEvent<TrackerReport>) => this.#hear(message.data);
    this.#worker.onerror = (event: ErrorEvent) => this.#hear({ type: "failed", message: event.message });
    this.setAllowed(options.allowed);
  }

  setAllowed(infoHashes: Iterable<string>): void {
    const all = [...infoHashes];
    for (let at = 0; at === 0 || at < all.length; at += HASHES_PER_MESSAGE) {
      const isLast = at + HASHES_PER_MESSAGE >= all.length;
      this.#tell({ type: "allow", infoHashes: all.slice(at, at + HASHES_PER_MESSAGE), isLast });
    }
  }

  stats(): Promise<TrackerStats> {
    const id = ++this.#lastId;
    if (this.#hasEnded) return Promise.resolve({ peers: 0, swarms: [] });
    return new Promise((resolve) => {
      this.#asked.set(id, resolve);
      this.#tell({ type: "stats", id });
    });
  }

  async counts(infoHash: string): Promise<SwarmCounts | null> {
    const found = (await this.stats()).swarms.find((swarm) => swarm.infoHash === infoHash);
    if (!found) return null;
    const { seeders, leechers, downloaded } = found;
    return { seeders, leechers, downloaded };
  }

  async stop(): Promise<void> {
    this.#tell({ type: "stop" });
    await this.#ended.promise;
    await this.#pages.stop(true);
  }

  #tell(message: TrackerMessage): void {
    this.#unsent.push(message);
    this.#sendAll();
  }

  /** In order; what finds no room waits. */
  #sendAll(): void {
    if (this.#hasEnded) return;
    while (this.#unsent.length > 0) {
      if (!this.#mailbox.send(this.#unsent[0]!)) {
        setTimeout(() => this.#sendAll(), MAILBOX_RETRY_MS);
        break;
      }
      this.#unsent.shift();
    }
    this.#bell.signal();
  }

  #hear(report: TrackerReport): void {
    if (report.type === "stats") {
      this.#asked.get(report.id)?.(report.stats);
      this.#asked.delete(report.id);
      return;
    }
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#worker.terminate();
    this.#bell.close();
    for (const socket of this.#sockets) closeListener(socket);
    for (const answer of this.#asked.values()) answer({ peers: 0, swarms: [] });
    this.#asked.clear();
    this.#ended.resolve();
    if (report.type === "failed") endOnBug(new Error(`the tracker's thread failed: ${report.message}`));
  }

  #servePages(name: string, route: TrackerOptions["route"]): Bun.Server<undefined> {
    return Bun.serve({
      unix: `\0${name}`,
      development: false,
      maxRequestBodySize: NODE_REPORT_BYTES_MAX,
      fetch: async (request) =>
        (await this.#statsPage(request)) ??
        (await route?.(request)) ??
        new Response("nothing is here\n", { status: 404 }),
      error: (error: Error) => {
        // No request may make a handler throw: one that does is a bug, and must not be hidden behind a 500.
        endOnBug(error);
        return new Response("internal error\n", { status: 500 });
      },
    });
  }

  /** `/stats`; null for any other path. */
  async #statsPage(request: Request): Promise<Response | null> {
    if (splitUrl(request.url).path !== "/stats") return null;
    if (request.method !== "GET")
      return new Response("only GET is answered here\n", { status: 405, headers: { Allow: "GET" } });
    return Response.json(await this.stats(), { headers: { "Cache-Control": "no-store" } });
  }
}

function endOnBug(error: Error): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** What was bound, or the Failure that tells the user why it was not. */
function bound(
  result: Listener | libc.Result,
  protocol: string,
  listen: string,
  port: number,
  option: string,
): Listener {
  if (typeof result !== "number") return result;
  const where = `${protocol} port ${port} of ${listen}`;
  const failure = (code: string, message: string) => new Failure(ExitCode.failed, code, message);
  if (result === -libc.Errno.EADDRINUSE)
    throw failure(
      "port-in-use",
      `${where} is in use by another program: stop it or choose another port with ${option} PORT`,
    );
  if (result === -libc.Errno.EADDRNOTAVAIL)
    throw failure("listen-address", `${where} cannot be bound: ${listen} is no address of this machine, see --listen`);
  if (result === -libc.Errno.EACCES)
    throw failure("port-denied", `${where} needs root: choose a port above 1023 with ${option} PORT`);
  throw failure("listen", `${where} cannot be bound: ${libc.errnoText(result)}`);
}
