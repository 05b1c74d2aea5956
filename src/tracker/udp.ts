/**
 * The tracker over UDP (BEP 15). It keeps nothing per client: a connection id is a keyed hash of the caller's
 * address and the minute, so a reply that is larger than its request goes only to an address that has proved
 * to receive. Everything else answered is no larger than what was asked; malformed packets are not answered.
 *
 * The tracker owns one buffer for replies; a batch of datagrams copies it before the next is made.
 */
import { DatagramBatch } from "../kernel/datagrams.ts";
import { ANNOUNCE_INTERVAL_S, TRACKER_PEERS_RETURNED_MAX, TRACKER_SCRAPE_MAX } from "../limits.ts";
import { randomBytes } from "../random-bytes.ts";
import { endpointOf } from "./http.ts";
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

export interface UdpServerOptions {
  registry: Registry;
  /** The address bound. */
  listen: string;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
  /** The bound socket, which stays the caller's. */
  fd: number;
}

/** BEP 15: a client may use an id for a minute, a tracker takes it for two. */
const SLOT_MS = 60_000;
const REPLY_BYTES_MAX = ANNOUNCE_REPLY_HEAD_BYTES + TRACKER_PEERS_RETURNED_MAX * 18;

/** Batches answered in one go, before others of the thread get their turn. */
const BATCHES_MAX = 8;

/** Answers what has arrived at a socket, in batches. */
export class UdpServer {
  readonly #answerer: UdpAnswerer;
  readonly #datagrams: DatagramBatch;

  constructor(options: UdpServerOptions) {
    this.#answerer = new UdpAnswerer(options.registry, options.listen, options.now);
    this.#datagrams = new DatagramBatch(options.fd);
  }

  /** Call it when the socket is readable. */
  serve(): void {
    for (let batch = 0; batch < BATCHES_MAX; batch++) {
      // Errors are ICMP messages about former clients, told once each; there is nobody to tell.
      const count = this.#datagrams.receive();
      if (count === 0) return;
      for (let index = 0; index < count; index++) this.#answer(index);
      this.#datagrams.flush();
    }
  }

  close(): void {
    this.#datagrams.close();
  }

  #answer(index: number): void {
    const host = this.#datagrams.senderHost(index);
    const reply = host === null ? null : this.#answerer.answer(this.#datagrams.packet(index), host);
    if (reply !== null) this.#datagrams.reply(index, reply);
  }
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

  /** The reply to a packet from `host` (4 or 16 bytes), valid until the next call; null where none is due. */
  answer(packet: Uint8Array, host: Uint8Array): Uint8Array | null {
    if (packet.length < CONNECT_REQUEST_BYTES) return null;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const action = view.getUint32(AnnounceAt.action);
    this.#view.setUint32(4, view.getUint32(AnnounceAt.transactionId));
    if (action === Action.connect) return view.getBigUint64(0) === PROTOCOL_ID ? this.#connect(host) : null;
    if (!isComplete(action, packet.length)) return null;
    if (!this.#isConnected(view.getBigUint64(0), host)) return this.#error("connection id expired", packet.length);
    return action === Action.announce ? this.#announce(packet, view, host) : this.#scrape(packet);
  }

  #connect(host: Uint8Array): Uint8Array {
    this.#view.setUint32(0, Action.connect);
    this.#view.setBigUint64(8, this.#connectionId(host, this.#slot()));
    return this.#out.subarray(0, CONNECT_REPLY_BYTES);
  }

  /** Options behind the 98 bytes (BEP 41) are not looked at: any path is this tracker. */
  #announce(packet: Uint8Array, view: DataView, host: Uint8Array): Uint8Array {
    const endpoint = endpointOf(host, view.getUint16(AnnounceAt.port));
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
      wantsPeerIds: false,
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

  #isConnected(connectionId: bigint, host: Uint8Array): boolean {
    const slot = this.#slot();
    return connectionId === this.#connectionId(host, slot) || connectionId === this.#connectionId(host, slot - 1);
  }

  #connectionId(host: Uint8Array, slot: number): bigint {
    return new Bun.CryptoHasher("sha1", this.#secret).update(String(slot)).update(host).digest().readBigUInt64BE(0);
  }
}

function isComplete(action: number, lengthBytes: number): boolean {
  if (action === Action.announce) return lengthBytes >= ANNOUNCE_REQUEST_BYTES;
  return action === Action.scrape && lengthBytes >= SCRAPE_REQUEST_HEAD_BYTES + 20;
}
