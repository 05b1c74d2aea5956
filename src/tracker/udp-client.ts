/**
 * Announcing over UDP (BEP 15): connect, then announce, each asked again when no reply comes. Replies are
 * matched by transaction id; the socket is connected, so packets from anyone else never arrive.
 */
import { isIP } from "node:net";
import { randomUint32 } from "../random-bytes.ts";
import { decodeCompact4, decodeCompact6 } from "../wire/address.ts";
import { type ClientAnnounce, type ClientReply, TrackerFault } from "./client.ts";
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
} from "./udp-wire.ts";

/** Connection ids by tracker address, kept for as long as BEP 15 lets a client use one. */
export type UdpConnections = Map<string, { connectionId: bigint; endsMs: number }>;

const CONNECTION_KEPT_MS = 60_000;
/**
 * BEP 15 waits 15 s and doubles eight times, an hour in all. Here the tracker is in the next room: a reply takes
 * milliseconds, and after 7.5 s the next tracker, or the next round, is the better try.
 */
const RETRY_MS = [500, 1000, 2000, 4000];

/** Announces once over UDP. See `announceTo`. */
export async function announceUdp(
  url: string,
  announce: ClientAnnounce,
  connections: UdpConnections,
  signal: AbortSignal,
): Promise<ClientReply> {
  const target = await resolveTracker(url);
  const exchange = await UdpExchange.open(target.host, target.port, signal);
  try {
    const connectionId = await connect(exchange, target, connections);
    const reply = await exchange.ask(
      announceRequest(announce, connectionId, url),
      Action.announce,
      ANNOUNCE_REPLY_HEAD_BYTES,
    );
    return readReply(reply, isIP(target.host) === 6);
  } catch (error) {
    // An id that the tracker no longer takes is the likeliest reason for a refusal: the next try asks for a new one.
    connections.delete(addressOf(target));
    throw error;
  } finally {
    exchange.close();
  }
}

interface Target {
  readonly host: string;
  readonly port: number;
}

function addressOf(target: Target): string {
  return `${target.host} ${target.port}`;
}

async function resolveTracker(url: string): Promise<Target> {
  const { hostname, port } = new URL(url);
  if (port === "" || port === "0") throw new TrackerFault("a udp tracker's URL needs a port");
  const name = hostname.replace(/^\[|\]$/g, "");
  if (isIP(name)) return { host: name, port: Number(port) };
  try {
    // Loaded only where a tracker has a name and not an address.
    const { lookup } = await import("node:dns/promises");
    return { host: (await lookup(name)).address, port: Number(port) };
  } catch (error) {
    throw new TrackerFault(`the name ${name} cannot be resolved (${(error as NodeJS.ErrnoException).code ?? error})`);
  }
}

async function connect(exchange: UdpExchange, target: Target, connections: UdpConnections): Promise<bigint> {
  const known = connections.get(addressOf(target));
  if (known && known.endsMs > performance.now()) return known.connectionId;
  const request = new DataView(new ArrayBuffer(CONNECT_REQUEST_BYTES));
  request.setBigUint64(0, PROTOCOL_ID);
  request.setUint32(8, Action.connect);
  const reply = await exchange.ask(request, Action.connect, CONNECT_REPLY_BYTES);
  const connectionId = reply.getBigUint64(8);
  connections.set(addressOf(target), { connectionId, endsMs: performance.now() + CONNECTION_KEPT_MS });
  return connectionId;
}

/** BEP 41: path and query of the URL follow as an option, where it has any. */
function announceRequest(announce: ClientAnnounce, connectionId: bigint, url: string): DataView {
  const { pathname, search } = new URL(url);
  const path = new TextEncoder()
    .encode(pathname === "/" || pathname === "" ? search : pathname + search)
    .subarray(0, 255);
  const bytes = new Uint8Array(ANNOUNCE_REQUEST_BYTES + (path.length > 0 ? 2 + path.length : 0));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(AnnounceAt.connectionId, connectionId);
  view.setUint32(AnnounceAt.action, Action.announce);
  bytes.set(announce.infoHash, AnnounceAt.infoHash);
  bytes.set(announce.peerId, AnnounceAt.peerId);
  view.setBigUint64(AnnounceAt.downloaded, BigInt(announce.downloadedBytes));
  view.setBigUint64(AnnounceAt.left, BigInt(announce.leftBytes));
  view.setBigUint64(AnnounceAt.uploaded, BigInt(announce.uploadedBytes));
  view.setUint32(AnnounceAt.event, EVENTS.indexOf(announce.event));
  view.setUint32(AnnounceAt.key, announce.key);
  view.setInt32(AnnounceAt.peersWanted, announce.peersWanted);
  view.setUint16(AnnounceAt.port, announce.port);
  if (path.length > 0) {
    bytes.set([2, path.length], ANNOUNCE_REQUEST_BYTES);
    bytes.set(path, ANNOUNCE_REQUEST_BYTES + 2);
  }
  return view;
}

function readReply(reply: DataView, isIPv6: boolean): ClientReply {
  const packed = new Uint8Array(
    reply.buffer,
    reply.byteOffset + ANNOUNCE_REPLY_HEAD_BYTES,
    reply.byteLength - ANNOUNCE_REPLY_HEAD_BYTES,
  );
  const peers = isIPv6 ? decodeCompact6(packed) : decodeCompact4(packed);
  if (peers === null) throw new TrackerFault("its reply is malformed: the list of peers ends inside an entry");
  return { peers, intervalMs: reply.getUint32(8) * 1000, minIntervalMs: null, externalHost: null, warning: null };
}

/** One connected socket and at most one question at a time. */
class UdpExchange {
  #socket: Bun.udp.ConnectedSocket<"uint8array"> | null = null;
  #received: ((packet: Uint8Array) => void) | null = null;
  #failed: ((error: Error) => void) | null = null;

  private constructor(readonly signal: AbortSignal) {}

  static async open(host: string, port: number, signal: AbortSignal): Promise<UdpExchange> {
    signal.throwIfAborted();
    const exchange = new UdpExchange(signal);
    try {
      exchange.#socket = await Bun.udpSocket({
        // The wildcard of the family: the default is IPv4 and cannot be connected to an IPv6 address.
        hostname: host.includes(":") ? "::" : "0.0.0.0",
        binaryType: "uint8array",
        connect: { hostname: host, port },
        socket: {
          data: (_socket, packet) => exchange.#received?.(packet),
          error: (...args: unknown[]) => exchange.#failed?.(socketFault(args.find((one) => one instanceof Error))),
        },
      });
    } catch (error) {
      throw socketFault(error);
    }
    return exchange;
  }

  /** Sends a request and waits for the reply of that action with at least `leastBytes`; asks again on the schedule. */
  ask(request: DataView, action: number, leastBytes: number): Promise<DataView> {
    this.signal.throwIfAborted();
    const transactionId = randomUint32();
    request.setUint32(AnnounceAt.transactionId, transactionId);
    const { promise, resolve, reject } = Promise.withResolvers<DataView>();
    const abort = () => reject(this.signal.reason);
    this.signal.addEventListener("abort", abort);
    this.#failed = reject;
    this.#received = (packet) => {
      const reply = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
      if (reply.byteLength < ERROR_HEAD_BYTES || reply.getUint32(4) !== transactionId) return;
      if (reply.getUint32(0) === Action.error)
        reject(new TrackerFault(`it refused: ${printable(packet.subarray(ERROR_HEAD_BYTES))}`));
      else if (reply.getUint32(0) === action && reply.byteLength >= leastBytes) resolve(reply);
    };
    let tries = 0;
    let timer: Timer | undefined;
    const send = () => {
      if (tries === RETRY_MS.length) return reject(new TrackerFault("no reply"));
      timer = setTimeout(send, RETRY_MS[tries++]);
      try {
        this.#socket!.send(new Uint8Array(request.buffer));
      } catch (error) {
        reject(socketFault(error));
      }
    };
    send();
    return promise.finally(() => {
      clearTimeout(timer);
      this.signal.removeEventListener("abort", abort);
      this.#received = null;
      this.#failed = null;
    });
  }

  close(): void {
    this.#socket?.close();
  }
}

function socketFault(error: unknown): TrackerFault {
  const code = (error as NodeJS.ErrnoException | undefined)?.code ?? "";
  if (code === "ECONNREFUSED") return new TrackerFault("nothing listens on that port");
  return new TrackerFault(error instanceof Error ? error.message : "the socket failed");
}

/** Text from outside, for a line of ours: control characters would let a tracker write to the terminal. */
export function printable(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes.subarray(0, 200));
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}
