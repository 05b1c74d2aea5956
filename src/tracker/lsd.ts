/**
 * Local service discovery (BEP 14): peers of the same link find each other by multicast, without any tracker.
 *
 * One socket per family listens; one more per interface sends, because the kernel sends multicast by the
 * default route otherwise and a node may have none. What an interface cannot do is reported and the others go
 * on: discovery is a help, never a condition. Private torrents (BEP 27) must not be added; that is the caller's.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { DISCOVERY_HASHES_MAX, DISCOVERY_MESSAGES_PER_SECOND_MAX } from "../limits.ts";
import { randomBytes } from "../random-bytes.ts";
import { canonicalHost, hostBytes, makeAddress, type PeerAddress } from "../wire/address.ts";
import { formatMessage, parseMessage } from "./lsd-message.ts";
import { type InterfaceAddress, interfaceAddresses, sharePrefix } from "./own-address.ts";

export interface LocalDiscoveryOptions {
  /** A peer of the same link that has or wants a torrent that was added. `sender` is the same in all messages of one sender. */
  readonly onPeer: (infoHash: string, peer: PeerAddress, sender: string) => void;
  /** Something does not work; discovery goes on without it. */
  readonly onWarning: (message: string) => void;
  /** Interface addresses to use, for example of `--listen`; default: all but loopback. */
  readonly hosts?: readonly string[];
  /** Multicast port; another than BEP 14's only where a test must not meet others. */
  readonly port?: number;
}

const GROUPS = { udp4: "239.192.152.143", udp6: "ff15::efc0:988f" } as const;
const GROUP_PORT = 6771;
type Family = keyof typeof GROUPS;

/** BEP 14: at most once a minute for a torrent, and regularly every five. The first is repeated early: a link that just came up loses packets. */
const LEAST_INTERVAL_MS = 60_000;
const INTERVAL_MS = 300_000;

interface Announced {
  readonly port: number;
  announcements: number;
  nextMs: number;
}

export class LocalDiscovery {
  readonly #options: LocalDiscoveryOptions;
  readonly #groupPort: number;
  readonly #cookie = randomBytes(8).toHex();
  readonly #torrents = new Map<string, Announced>();
  readonly #heard = new Set<string>();
  readonly #listeners: Socket[] = [];
  readonly #senders: { socket: Socket; family: Family }[] = [];
  #interfaces: InterfaceAddress[] = [];
  #timer: Timer | undefined;
  #second = 0;
  #messagesThisSecond = 0;

  constructor(options: LocalDiscoveryOptions) {
    this.#options = options;
    this.#groupPort = options.port ?? GROUP_PORT;
  }

  /** Opens the sockets and announces what was added. Never fails: what does not work is reported. */
  async start(): Promise<void> {
    const { hosts } = this.#options;
    this.#interfaces = interfaceAddresses().filter((own) => (hosts ? hosts.includes(own.host) : !own.internal));
    if (this.#interfaces.length === 0)
      this.#options.onWarning("local discovery is off: no network interface has an address");
    for (const family of ["udp4", "udp6"] as const) await this.#open(family);
    this.#announceDue();
  }

  /** Announces that torrent from now on. `infoHash` is 40 hex digits, `port` the TCP port that we listen on. */
  add(infoHash: string, port: number): void {
    this.#torrents.set(infoHash.toLowerCase(), { port, announcements: 0, nextMs: performance.now() });
    if (this.#senders.length > 0) this.#announceDue();
  }

  remove(infoHash: string): void {
    this.#torrents.delete(infoHash.toLowerCase());
  }

  /** Hears of that torrent from now on without announcing it. */
  listen(infoHash: string): void {
    this.#heard.add(infoHash.toLowerCase());
  }

  /** Announces that torrent once, now, on every interface. How often is the caller's to bound. */
  say(infoHash: string, port: number): void {
    this.#send([infoHash.toLowerCase()], port);
  }

  stop(): void {
    clearTimeout(this.#timer);
    for (const socket of this.#listeners.splice(0)) socket.close();
    for (const { socket } of this.#senders.splice(0)) socket.close();
  }

  async #open(family: Family): Promise<void> {
    const wanted = multicastInterfaces(this.#interfaces, family);
    if (wanted.length === 0) return;
    const listener = await this.#bind(family, this.#groupPort, "listening");
    if (listener === null) return;
    listener.on("message", (packet, from) => this.#receive(packet, from));
    this.#listeners.push(listener);
    for (const own of wanted) {
      const joined = this.#attempt(`cannot join on ${own}`, () => listener.addMembership(GROUPS[family], own));
      const sender = joined ? await this.#bind(family, 0, `sending on ${own}`) : null;
      if (sender === null) continue;
      this.#attempt(`cannot send on ${own}`, () => sender.setMulticastInterface(own));
      this.#senders.push({ socket: sender, family });
    }
  }

  /** A bound socket, or null after a warning. */
  #bind(family: Family, port: number, purpose: string): Promise<Socket | null> {
    const socket = createSocket({ type: family, reuseAddr: true, ipv6Only: family === "udp6" });
    return new Promise((resolve) => {
      socket.on("error", (error) => {
        this.#warn(purpose, error);
        resolve(null);
      });
      socket.bind({ port, exclusive: false }, () => resolve(socket));
    });
  }

  #attempt(what: string, action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      this.#warn(what, error);
      return false;
    }
  }

  #warn(what: string, error: unknown): void {
    this.#options.onWarning(`local discovery: ${what}: ${error instanceof Error ? error.message : error}`);
  }

  /** Announces every torrent whose time has come, grouped by port, and sleeps until the next. */
  #announceDue(): void {
    clearTimeout(this.#timer);
    const nowMs = performance.now();
    const due = Map.groupBy(
      [...this.#torrents].filter(([, torrent]) => torrent.nextMs <= nowMs),
      ([, torrent]) => torrent.port,
    );
    for (const [port, torrents] of due) {
      for (let at = 0; at < torrents.length; at += DISCOVERY_HASHES_MAX)
        this.#send(
          torrents.slice(at, at + DISCOVERY_HASHES_MAX).map(([hash]) => hash),
          port,
        );
      for (const [, torrent] of torrents)
        torrent.nextMs = nowMs + (torrent.announcements++ === 0 ? LEAST_INTERVAL_MS : INTERVAL_MS);
    }
    const next = Math.min(...Array.from(this.#torrents.values(), (torrent) => torrent.nextMs));
    if (Number.isFinite(next)) this.#timer = setTimeout(() => this.#announceDue(), Math.max(0, next - nowMs)).unref();
  }

  #send(infoHashes: string[], port: number): void {
    for (const { socket, family } of this.#senders) {
      const group = GROUPS[family];
      const text = formatMessage(
        { infoHashes, port, cookie: this.#cookie },
        family === "udp6" ? `[${group}]` : group,
        this.#groupPort,
      );
      socket.send(text, this.#groupPort, group, (error) => {
        if (error) this.#warn("cannot send", error);
      });
    }
  }

  #receive(packet: Uint8Array, from: RemoteInfo): void {
    if (this.#isFlooded()) return;
    const message = parseMessage(packet);
    if (message === null || message.cookie === this.#cookie || !this.#isOnLink(from.address)) return;
    const peer = makeAddress(from.address, message.port);
    if (peer === null) return;
    for (const infoHash of message.infoHashes)
      if (this.#torrents.has(infoHash) || this.#heard.has(infoHash))
        this.#options.onPeer(infoHash, peer, message.cookie ?? from.address);
  }

  #isFlooded(): boolean {
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) this.#messagesThisSecond = 0;
    this.#second = second;
    return ++this.#messagesThisSecond > DISCOVERY_MESSAGES_PER_SECOND_MAX;
  }

  /** Only who shares a subnet with us is believed: a routed packet could name a victim anywhere. */
  #isOnLink(host: string): boolean {
    const canonical = canonicalHost(host);
    const bytes = canonical === null ? null : hostBytes(canonical);
    return bytes !== null && this.#interfaces.some((own) => sharePrefix(own.bytes, bytes, own.prefixBits));
  }
}

/** What the kernel wants to be told of each interface: its IPv4 address, or any IPv6 address with the scope. */
function multicastInterfaces(interfaces: readonly InterfaceAddress[], family: Family): string[] {
  if (family === "udp4") return interfaces.filter((own) => own.bytes.length === 4).map((own) => own.host);
  return [...new Set(interfaces.filter((own) => own.bytes.length === 16).map((own) => `::%${own.interfaceName}`))];
}
