/**
 * TCP sockets for the reactor: listening on IPv4 and IPv6 at once, dialling, and addresses in the kernel's form.
 *
 * Descriptors belong to the caller. A sockaddr is written to the caller's mapped memory and must stay there
 * until the connect has completed.
 */
import { assert, assertRange, ExitCode, Failure, usageError } from "../errors.ts";
import { hostBytes, hostFromBytes, type PeerAddress } from "../wire/address.ts";
import { KiB, MiB } from "../units.ts";
import * as abi from "./abi.ts";
import * as libc from "./libc.ts";
import { mapMemory, viewAt } from "./memory.ts";

/** Room for the longest sockaddr that is used, `struct sockaddr_in6`. */
export const SOCKADDR_BYTES = 28;
const SOCKADDR4_BYTES = 16;
/** Connections that wait for accept: a whole room starts at once. */
const BACKLOG = 512;
/**
 * After this long without an acknowledged byte the kernel gives the connection up. It also counts while the
 * other side's window is closed, that is while its disk is slow, so it is far longer than any stall of a disk.
 */
const UNACKNOWLEDGED_MS_MAX = 120_000;
/**
 * What a sender may have on its way to us from the start. The kernel grows the window by how much is read in a round
 * trip, which on one machine or a short cable is so little that both ends went to sleep for every 64 KiB.
 */
const RECEIVE_WINDOW_BYTES = 1 * MiB;
/**
 * Bytes that a connection holds in the kernel and has not sent: an upload counts as sent when little of it is left
 * there, so that the swarm decides late who is served next. Four blocks of 64 KiB keep a busy line fed.
 */
const UNSENT_BYTES_MAX = 256 * KiB;
const KEEPALIVE_IDLE_SECONDS = 30;
const KEEPALIVE_INTERVAL_SECONDS = 10;

const scratch = mapMemory(SOCKADDR_BYTES);

export interface Listener {
  readonly fd: number;
  /** The port that was bound: the given one, or the kernel's choice for 0. */
  readonly port: number;
  /** The address that was bound: `::` takes IPv4 and IPv6. */
  readonly host: string;
}

/**
 * Listens on TCP `port` (0: any free one) of `host` (an IP address, or null for all of both families; where
 * the kernel has no IPv6, all of IPv4). Throws a Failure that names the address.
 */
export function listenTcp(host: string | null, port: number): Listener {
  assertRange(Number.isInteger(port) && port >= 0 && port <= 0xffff, "port", port);
  if (host !== null && hostBytes(host) === null) throw usageError(`--listen ${host}: not an IP address`);
  const dualStack = tryListenTcp(host ?? "::", port);
  if (typeof dualStack !== "number") return dualStack;
  const noIpv6 = dualStack === -libc.Errno.EAFNOSUPPORT || dualStack === -libc.Errno.EADDRNOTAVAIL;
  const result = host === null && noIpv6 ? tryListenTcp("0.0.0.0", port) : dualStack;
  if (typeof result !== "number") return result;
  const advice = result === -libc.Errno.EADDRINUSE ? "; another program has this port, give another --port" : "";
  const where = host?.includes(":") ? `[${host}]` : (host ?? "*");
  throw new Failure(ExitCode.failed, "listen", `cannot listen on ${where}:${port}: ${libc.errnoText(result)}${advice}`);
}

/** Gives the port back; no accept may be in flight. */
export function closeListener(listener: Listener): void {
  const result = libc.close(listener.fd);
  assert(result === 0, `closing a listening socket: ${libc.errnoText(result)}`);
}

/** As `listenTcp` for one IP address, `::` for both families; minus errno where it is refused, for callers with words of their own. */
export function tryListenTcp(host: string, port: number): Listener | libc.Result {
  return tryBind(host, abi.SOCK_STREAM, [
    (fd) => libc.setsockoptInt(fd, abi.SOL_SOCKET, abi.SO_REUSEADDR, 1),
    (fd) => bindTo(fd, host, port),
    (fd) => libc.listen(fd, BACKLOG),
  ]);
}

/** A bound, non-blocking UDP socket, with `::` for both families; or minus errno. */
export function tryBindUdp(host: string, port: number): Listener | libc.Result {
  return tryBind(host, abi.SOCK_DGRAM, [(fd) => bindTo(fd, host, port)]);
}

function bindTo(fd: number, host: string, port: number): libc.Result {
  return libc.bind(fd, scratch.address, encodeSockaddr(scratch.address, { host, port }));
}

type SocketStep = (fd: number) => libc.Result;

function tryBind(host: string, type: number, furtherSteps: SocketStep[]): Listener | libc.Result {
  const family = host.includes(":") ? abi.AF_INET6 : abi.AF_INET;
  const fd = libc.socket(family, type | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  const dualStack: SocketStep = () =>
    family === abi.AF_INET6 ? libc.setsockoptInt(fd, abi.IPPROTO_IPV6, abi.IPV6_V6ONLY, 0) : 0;
  const steps: SocketStep[] = [dualStack, ...furtherSteps];
  for (const step of steps) {
    const result = step(fd);
    if (result < 0) {
      libc.close(fd);
      return result;
    }
  }
  const bound = localAddress(fd);
  assert(bound !== null, "a bound socket has an address");
  return { fd, port: bound.port, host };
}

/** A non-blocking, tuned socket of the address's family for `Reactor.connect`, or -errno. */
export function dialSocket(address: PeerAddress): libc.Result {
  const family = address.host.includes(":") ? abi.AF_INET6 : abi.AF_INET;
  const fd = libc.socket(family, abi.SOCK_STREAM | abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC, 0);
  if (fd >= 0) tune(fd);
  return fd;
}

/** Sets what every connection of ours has on an accepted socket. */
export function tuneAccepted(fd: number): void {
  tune(fd);
}

/**
 * Requests leave at once (TCP_NODELAY); a machine that was switched off is noticed. A socket whose other end
 * is gone already may refuse; the next operation on it says so.
 */
function tune(fd: number): void {
  libc.setsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_NODELAY, 1);
  libc.setsockoptInt(fd, abi.SOL_SOCKET, abi.SO_KEEPALIVE, 1);
  // Asking for so much at once makes room for it, beyond what an ordinary SO_RCVBUF may ask for; then 1 byte is ready again.
  libc.setsockoptInt(fd, abi.SOL_SOCKET, abi.SO_RCVLOWAT, RECEIVE_WINDOW_BYTES);
  libc.setsockoptInt(fd, abi.SOL_SOCKET, abi.SO_RCVLOWAT, 1);
  libc.setsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS);
  libc.setsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS);
  libc.setsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX);
}

/**
 * At most so many bytes wait in the kernel until TCP may send them (tcp(7), TCP_NOTSENT_LOWAT); more than UNSENT_BYTES_MAX
 * is never of use. A socket whose other end is gone may refuse; the next operation on it says so.
 */
export function limitUnsent(fd: number, unsentBytes: number): void {
  libc.setsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_NOTSENT_LOWAT, Math.min(unsentBytes, UNSENT_BYTES_MAX));
}

/** Writes the address as `struct sockaddr_in` or `sockaddr_in6` (at most SOCKADDR_BYTES). Returns its length in bytes. */
export function encodeSockaddr(at: number, address: PeerAddress): number {
  const host = hostBytes(address.host);
  assert(host !== null, `not an IP address: ${address.host}`);
  const lengthBytes = host.length === 4 ? SOCKADDR4_BYTES : SOCKADDR_BYTES;
  const bytes = viewAt(at, lengthBytes);
  bytes.fill(0);
  bytes[0] = host.length === 4 ? abi.AF_INET : abi.AF_INET6;
  bytes[2] = address.port >> 8;
  bytes[3] = address.port & 0xff;
  bytes.set(host, host.length === 4 ? 4 : 8);
  return lengthBytes;
}

/** Reads a sockaddr; IPv4 mapped into IPv6 becomes IPv4. Null for other families. */
export function decodeSockaddr(bytes: Uint8Array): PeerAddress | null {
  const family = bytes[0] | (bytes[1] << 8);
  const port = (bytes[2] << 8) | bytes[3];
  if (family === abi.AF_INET) return { host: hostFromBytes(bytes.subarray(4, 8)), port };
  if (family === abi.AF_INET6) return { host: hostFromBytes(bytes.subarray(8, 24)), port };
  return null;
}

/** The other end's IP address, 4 or 16 bytes (IPv4 mapped into IPv6 is 4), new; null where it is gone already. */
export function peerHostBytes(fd: number): Uint8Array | null {
  return libc.getpeername(fd, scratch.address, SOCKADDR_BYTES) < 0 ? null : sockaddrHostBytes(scratch.bytes, 0);
}

/** The IP address of the sockaddr at `at`, as `peerHostBytes` gives it; null for other families. */
export function sockaddrHostBytes(bytes: Uint8Array, at: number): Uint8Array | null {
  const family = bytes[at] | (bytes[at + 1] << 8);
  if (family === abi.AF_INET) return bytes.slice(at + 4, at + 8);
  if (family !== abi.AF_INET6) return null;
  for (let n = 0; n < 12; n++) if (bytes[at + 8 + n] !== (n < 10 ? 0 : 0xff)) return bytes.slice(at + 8, at + 24);
  return bytes.slice(at + 20, at + 24);
}

/**
 * Writes `struct sockaddr_un` of an abstract name (without its leading NUL, ASCII) to `at`, which has room for
 * 110 bytes. Returns its length in bytes.
 */
export function encodeAbstractSockaddr(at: number, name: string): number {
  assert(/^[!-~]{1,107}$/.test(name), `no abstract socket's name: ${name}`);
  const bytes = viewAt(at, 3 + name.length);
  bytes[0] = abi.AF_UNIX;
  bytes[1] = 0;
  bytes[2] = 0;
  for (let n = 0; n < name.length; n++) bytes[3 + n] = name.charCodeAt(n);
  return 3 + name.length;
}

/** The other end's address, or null where it is gone already. */
export function peerAddress(fd: number): PeerAddress | null {
  return libc.getpeername(fd, scratch.address, SOCKADDR_BYTES) < 0 ? null : decodeSockaddr(scratch.bytes);
}

/** This end's address, or null where the socket has none. */
export function localAddress(fd: number): PeerAddress | null {
  return libc.getsockname(fd, scratch.address, SOCKADDR_BYTES) < 0 ? null : decodeSockaddr(scratch.bytes);
}
