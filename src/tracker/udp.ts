/**
 * The tracker over UDP (BEP 15). It keeps nothing per client: a connection id is a keyed hash of the caller's
 * address and the minute, so a reply that is larger than its request goes only to an address that has proved
 * to receive. Everything else answered is no larger than what was asked; malformed packets are not answered.
 *
 * The tracker owns one buffer for replies; `send` copies it to the kernel before it returns.
 */
import { ExitCode, Failure } from "../errors.ts";
import { ANNOUNCE_INTERVAL_S, TRACKER_PEERS_RETURNED_MAX, TRACKER_SCRAPE_MAX } from "../limits.ts";
import { randomBytes } from "../random-bytes.ts";
import { packEndpoint } from "./http.ts";
import { OwnAddresses } from "./own-address.ts";
import type { AnnounceReply, Registry } from "./registry.ts";
import {
  Action,
  ANNOUNCE_REPLY_HEAD_BYTES,
  ANNOUNCE_REQUEST_BYTES,
  AnnounceAt,
  CONNECT_REPLY_BYTES,
  CONNECT_REQUEST_BYTES,
  ERROR_HEAD_BYTES,
  EVENTS,
  PROTOCOL_ID,
  SCRAPE_REPLY_HEAD_BYTES,
  SCRAPE_REQUEST_HEAD_BYTES,
} from "./udp-wire.ts";

export interface UdpTrackerOptions {
  registry: Registry;
  /** Address to bind; `::` serves IPv4 too. */
  listen: string;
  /** 0: the kernel chooses. */
  port: number;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

export interface UdpTracker {
  readonly port: number;
  stop(): void;
}

/** BEP 15: a client may use an id for a minute, a tracker takes it for two. */
const SLOT_MS = 60_000;
const REPLY_BYTES_MAX = ANNOUNCE_REPLY_HEAD_BYTES + TRACKER_PEERS_RETURNED_MAX * 18;

/** Binds the port and serves until `stop`. Throws a Failure where the port is taken or the address is not ours. */
export async function startUdpTracker(options: UdpTrackerOptions): Promise<UdpTracker> {
  const answerer = new UdpAnswerer(options.registry, options.listen, options.now);
  try {
    const socket = await Bun.udpSocket({
      hostname: options.listen,
      port: options.port,
      socket: {
        data(self, packet, port, host) {
          const reply = answerer.answer(packet, host);
          if (reply !== null) sendOrLose(self, reply, port, host);
        },
        // ICMP errors of former clients surface here; there is nobody to tell.
        error() {},
      },
    });
    return { port: socket.port, stop: () => socket.close() };
  } catch (error) {
    throw bindFailure(error, "UDP", options.listen, options.port, "--udp");
  }
}

/**
 * A reply that cannot be sent (full buffer, no route, a forged source port 0) is lost, as the network may lose
 * it: the client asks again, and no packet from outside may end the tracker.
 */
function sendOrLose(socket: Bun.udp.Socket<"buffer">, reply: Uint8Array, port: number, host: string): boolean {
  try {
    return socket.send(reply, port, host);
  } catch {
    return false;
  }
}

/** What the user is told when a port cannot be bound. */
export function bindFailure(error: unknown, protocol: string, listen: string, port: number, option: string): Failure {
  const code = (error as { code?: string }).code ?? String(error);
  const where = `${protocol} port ${port} of ${listen}`;
  if (code.includes("EADDRINUSE"))
    return new Failure(
      ExitCode.failed,
      "port-in-use",
      `${where} is in use by another program: stop it or choose another port with ${option} PORT`,
    );
  if (code.includes("EADDRNOTAVAIL"))
    return new Failure(
      ExitCode.failed,
      "listen-address",
      `${where} cannot be bound: ${listen} is no address of this machine, see --listen`,
    );
  if (code.includes("EACCES"))
    return new Failure(
      ExitCode.failed,
      "port-denied",
      `${where} needs root: choose a port above 1023 with ${option} PORT`,
    );
  return new Failure(
    ExitCode.failed,
    "listen",
    `${where} cannot be bound: ${error instanceof Error ? error.message : code}`,
  );
}

/** Packets in, packets out, without a socket. */
export class UdpAnswerer {
  readonly #secret = randomBytes(32);
  readonly #own: OwnAddresses;
  readonly #out = new Uint8Array(REPLY_BYTES_MAX);
  readonly #view = new DataView(this.#out.buffer);

  constructor(
    readonly registry: Registry,
    listen: string,
    readonly now: () => number,
  ) {
    this.#own = new OwnAddresses(listen);
  }

  /** The reply to a packet from `host`, valid until the next call; null where none is due. */
  answer(packet: Uint8Array, host: string): Uint8Array | null {
    if (packet.length < CONNECT_REQUEST_BYTES) return null;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const action = view.getUint32(AnnounceAt.action);
    this.#view.setUint32(4, view.getUint32(AnnounceAt.transactionId));
    if (action === Action.connect) return view.getBigUint64(0) === PROTOCOL_ID ? this.#connect(host) : null;
    if (!isComplete(action, packet.length)) return null;
    if (!this.#isConnected(view.getBigUint64(0), host)) return this.#error("connection id expired", packet.length);
    return action === Action.announce ? this.#announce(packet, view, host) : this.#scrape(packet);
  }

  #connect(host: string): Uint8Array {
    this.#view.setUint32(0, Action.connect);
    this.#view.setBigUint64(8, this.#connectionId(host, this.#slot()));
    return this.#out.subarray(0, CONNECT_REPLY_BYTES);
  }

  /** Options behind the 98 bytes (BEP 41) are not looked at: any path is this tracker. */
  #announce(packet: Uint8Array, view: DataView, host: string): Uint8Array | null {
    const endpoint = packEndpoint(host, view.getUint16(AnnounceAt.port));
    if (endpoint === null) return null;
    if (view.getUint16(AnnounceAt.port) === 0) return this.#error("port must be 1 to 65535", packet.length);
    const nowMs = this.now();
    const own = this.#own.for(endpoint, nowMs);
    const reply = this.registry.announce(nowMs, {
      infoHash: packet.subarray(AnnounceAt.infoHash, AnnounceAt.peerId).toHex(),
      peerId: packet.subarray(AnnounceAt.peerId, AnnounceAt.downloaded),
      endpoint,
      event: EVENTS[view.getUint32(AnnounceAt.event)] ?? "none",
      leftBytes: view.getUint32(AnnounceAt.left) * 2 ** 32 + view.getUint32(AnnounceAt.left + 4),
      peersWanted: view.getInt32(AnnounceAt.peersWanted),
      bothFamilies: false,
      ownHost4: own.host4,
      ownHost6: own.host6,
    });
    return reply.refusal === null ? this.#peers(reply, endpoint.length) : this.#error(reply.refusal, packet.length);
  }

  /** The family of the peers is that of the caller: nothing in the reply says which. */
  #peers(reply: AnnounceReply, endpointBytes: number): Uint8Array {
    const selection = endpointBytes === 6 ? reply.peers4 : reply.peers6;
    this.#view.setUint32(0, Action.announce);
    this.#view.setUint32(8, ANNOUNCE_INTERVAL_S);
    this.#view.setUint32(12, reply.leechers);
    this.#view.setUint32(16, reply.seeders);
    const lengthBytes = selection.count * endpointBytes;
    this.#out.set(selection.endpoints.subarray(0, lengthBytes), ANNOUNCE_REPLY_HEAD_BYTES);
    return this.#out.subarray(0, ANNOUNCE_REPLY_HEAD_BYTES + lengthBytes);
  }

  #scrape(packet: Uint8Array): Uint8Array {
    this.#view.setUint32(0, Action.scrape);
    let at: number = SCRAPE_REPLY_HEAD_BYTES;
    const end = Math.min(packet.length, SCRAPE_REQUEST_HEAD_BYTES + TRACKER_SCRAPE_MAX * 20);
    for (let from: number = SCRAPE_REQUEST_HEAD_BYTES; from + 20 <= end; from += 20) {
      const counts = this.registry.scrape(this.now(), packet.subarray(from, from + 20).toHex());
      this.#view.setUint32(at, counts?.seeders ?? 0);
      this.#view.setUint32(at + 4, counts?.downloaded ?? 0);
      this.#view.setUint32(at + 8, counts?.leechers ?? 0);
      at += 12;
    }
    return this.#out.subarray(0, at);
  }

  /** Cut to the length of the request: an error goes to addresses that have proved nothing. */
  #error(message: string, requestBytes: number): Uint8Array {
    this.#view.setUint32(0, Action.error);
    const written = new TextEncoder().encodeInto(message, this.#out.subarray(ERROR_HEAD_BYTES)).written;
    return this.#out.subarray(0, Math.min(ERROR_HEAD_BYTES + written, requestBytes));
  }

  #slot(): number {
    return Math.floor(this.now() / SLOT_MS);
  }

  #isConnected(connectionId: bigint, host: string): boolean {
    const slot = this.#slot();
    return connectionId === this.#connectionId(host, slot) || connectionId === this.#connectionId(host, slot - 1);
  }

  #connectionId(host: string, slot: number): bigint {
    return new Bun.CryptoHasher("sha1", this.#secret).update(`${slot} ${host}`).digest().readBigUInt64BE(0);
  }
}

function isComplete(action: number, lengthBytes: number): boolean {
  if (action === Action.announce) return lengthBytes >= ANNOUNCE_REQUEST_BYTES;
  return action === Action.scrape && lengthBytes >= SCRAPE_REQUEST_HEAD_BYTES + 20;
}
