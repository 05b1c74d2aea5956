/**
 * How a node without any address finds a server of its link: two info-hashes that belong to no torrent, announced
 * over local discovery (BEP 14) as if they did. A node asks with the one, whoever serves answers with the other and
 * the port of its HTTP server. Other clients on the link know neither and ignore both.
 */
import { pause } from "../pause.ts";
import type { PeerAddress } from "../wire/address.ts";
import { LocalDiscovery } from "./lsd.ts";

/** SHA-1 of the texts "diskswarm server wanted" and "diskswarm server here". */
const WANTED = Bun.CryptoHasher.hash("sha1", "diskswarm server wanted", "hex");
const HERE = Bun.CryptoHasher.hash("sha1", "diskswarm server here", "hex");

/** A message names a port; nothing listens on that of who asks (RFC 863, discard). */
const NO_PORT = 9;
/** A room that boots asks all at once, and one answer is heard by all. */
const ANSWER_INTERVAL_MS = 500;
const ASK_INTERVAL_MS = 1_000;
/** Servers of one link, and addresses of one server: more are somebody's joke. */
const ANSWERS_MAX = 16;

export interface BeaconOptions {
  /** TCP port of the HTTP server. */
  readonly httpPort: number;
  /** Addresses of this machine to answer on; undefined: all but loopback. */
  readonly hosts?: readonly string[];
  readonly onWarning: (message: string) => void;
  /** Another multicast port, for tests. */
  readonly port?: number;
}

/** The server's side: answers until `stop`. */
export class ServerBeacon {
  readonly #discovery: LocalDiscovery;
  #answeredMs = Number.NEGATIVE_INFINITY;
  #pending: Timer | undefined;

  constructor(private readonly options: BeaconOptions) {
    const { hosts, onWarning, port } = options;
    this.#discovery = new LocalDiscovery({ onPeer: () => this.#answer(), onWarning, hosts, port });
    this.#discovery.listen(WANTED);
  }

  start(): Promise<void> {
    return this.#discovery.start();
  }

  stop(): void {
    clearTimeout(this.#pending);
    this.#discovery.stop();
  }

  /** At once, or when the last answer is long enough ago. */
  #answer(): void {
    if (this.#pending !== undefined) return;
    const waitMs = Math.max(0, this.#answeredMs + ANSWER_INTERVAL_MS - performance.now());
    this.#pending = setTimeout(() => {
      this.#pending = undefined;
      this.#answeredMs = performance.now();
      this.#discovery.say(HERE, this.options.httpPort);
    }, waitMs);
  }
}

export interface SearchOptions {
  readonly durationMs: number;
  readonly signal: AbortSignal;
  readonly onWarning: (message: string) => void;
  /** Another multicast port, for tests. */
  readonly port?: number;
}

/** The node's side: the servers that answered in that time, each with the addresses it answered from, IPv4 first. */
export async function searchServers({ durationMs, signal, onWarning, port }: SearchOptions): Promise<PeerAddress[][]> {
  const servers = new Map<string, PeerAddress[]>();
  const onPeer = (_infoHash: string, address: PeerAddress, sender: string) => {
    const known = servers.get(sender) ?? [];
    if (known.length >= ANSWERS_MAX || servers.size >= ANSWERS_MAX) return;
    if (known.some((one) => one.host === address.host && one.port === address.port)) return;
    servers.set(
      sender,
      [...known, address].sort((a, b) => Number(a.host.includes(":")) - Number(b.host.includes(":"))),
    );
  };
  const discovery = new LocalDiscovery({ onPeer, onWarning, port });
  discovery.listen(HERE);
  await discovery.start();
  const ask = () => discovery.say(WANTED, NO_PORT);
  ask();
  const timer = setInterval(ask, ASK_INTERVAL_MS);
  try {
    await pause(durationMs, signal);
  } finally {
    clearInterval(timer);
    discovery.stop();
  }
  return [...servers.values()];
}
