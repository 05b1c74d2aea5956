/**
 * Addresses of peers: one spelling for each, so that an address can be a key, a ban or a log line.
 *
 * IPv4 is dotted decimal; IPv6 is as RFC 5952 writes it; IPv4 mapped into IPv6 (`::ffff:a.b.c.d`, what a
 * dual-stack socket reports) becomes IPv4. Byte views given in are read only, arrays returned are new.
 */

export interface PeerAddress {
  /** Canonical: dotted IPv4, or RFC 5952 IPv6 without brackets. */
  readonly host: string;
  /** TCP port, 1 to 65535. */
  readonly port: number;
}

/** Bytes of one entry in `peers` (BEP 23) and in `peers6` (BEP 7). */
export const COMPACT4_BYTES = 6;
export const COMPACT6_BYTES = 18;

const IPV4_BYTES = 4;
const IPV6_BYTES = 16;

/** Reads `1.2.3.4:80` or `[2001:db8::1]:80`. Null where the text is no address with a port from 1 to 65535. */
export function parseAddress(text: string): PeerAddress | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  if (!match) return null;
  const bracketed = match[1] !== undefined;
  const host = match[1] ?? match[2]!;
  if (bracketed !== host.includes(":")) return null;
  return makeAddress(host, Number(match[3]));
}

/** Canonical address of a literal host (no brackets, no name) and a port; null where either is invalid. */
export function makeAddress(host: string, port: number): PeerAddress | null {
  if (!Number.isInteger(port) || port < 1 || port > 65535) return null;
  const canonical = canonicalHost(host);
  return canonical === null ? null : { host: canonical, port };
}

/** The one spelling of a literal IP address, or null where the text is none (names and scopes are none). */
export function canonicalHost(host: string): string | null {
  const bytes = hostBytes(host);
  return bytes === null ? null : hostFromBytes(bytes);
}

/** `1.2.3.4:80` or `[2001:db8::1]:80`. */
export function formatAddress(address: PeerAddress): string {
  return isIPv6(address) ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/** Key of an address in a Map or Set: equal exactly for equal addresses. */
export const addressKey: (address: PeerAddress) => string = formatAddress;

export function isIPv6(address: PeerAddress): boolean {
  return address.host.includes(":");
}

/** The 4 or 16 bytes of a literal IP address in network order (mapped IPv4 stays 16 bytes), or null. */
export function hostBytes(host: string): Uint8Array | null {
  return host.includes(":") ? parseIPv6(host) : parseIPv4(host);
}

/** Canonical text of 4 or 16 bytes in network order. */
export function hostFromBytes(bytes: Uint8Array): string {
  if (bytes.length === IPV4_BYTES) return bytes.join(".");
  if (isMapped(bytes)) return bytes.subarray(12).join(".");
  return formatIPv6(bytes);
}

/** `peers` of a compact reply (BEP 23): the IPv4 addresses of the list, 6 bytes each. */
export function encodeCompact4(addresses: Iterable<PeerAddress>): Uint8Array {
  return encodeCompact(addresses, false);
}

/** `peers6` of a compact reply (BEP 7): the IPv6 addresses of the list, 18 bytes each. */
export function encodeCompact6(addresses: Iterable<PeerAddress>): Uint8Array {
  return encodeCompact(addresses, true);
}

/** Reads `peers`. Entries nobody can dial (port 0, 0.0.0.0) are left out; null where the length is no multiple of 6. */
export function decodeCompact4(bytes: Uint8Array): PeerAddress[] | null {
  return decodeCompact(bytes, IPV4_BYTES);
}

/** Reads `peers6`. Entries nobody can dial (port 0, ::) are left out; null where the length is no multiple of 18. */
export function decodeCompact6(bytes: Uint8Array): PeerAddress[] | null {
  return decodeCompact(bytes, IPV6_BYTES);
}

function encodeCompact(addresses: Iterable<PeerAddress>, wantIPv6: boolean): Uint8Array {
  const out: number[] = [];
  for (const address of addresses) {
    if (isIPv6(address) !== wantIPv6) continue;
    out.push(...hostBytes(address.host)!, address.port >> 8, address.port & 0xff);
  }
  return Uint8Array.from(out);
}

function decodeCompact(bytes: Uint8Array, hostLength: number): PeerAddress[] | null {
  const entryLength = hostLength + 2;
  if (bytes.length % entryLength !== 0) return null;
  const addresses: PeerAddress[] = [];
  for (let at = 0; at < bytes.length; at += entryLength) {
    const host = bytes.subarray(at, at + hostLength);
    const port = (bytes[at + hostLength]! << 8) | bytes[at + hostLength + 1]!;
    if (port === 0 || host.every((byte) => byte === 0)) continue;
    addresses.push({ host: hostFromBytes(host), port });
  }
  return addresses;
}

/** Four decimal numbers; leading zeros are refused because some readers take them for octal. */
function parseIPv4(text: string): Uint8Array | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return null;
  const bytes = new Uint8Array(IPV4_BYTES);
  for (let i = 0; i < IPV4_BYTES; i++) {
    const part = match[i + 1]!;
    if (Number(part) > 255 || (part.length > 1 && part[0] === "0")) return null;
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIPv6(text: string): Uint8Array | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1]!, true) : [];
  if (head === null || tail === null) return null;
  const given = head.length + tail.length;
  // "::" stands for at least one group (RFC 4291), without it all eight are written.
  if (halves.length === 2 ? given > 14 : given !== IPV6_BYTES) return null;
  const bytes = new Uint8Array(IPV6_BYTES);
  bytes.set(head, 0);
  bytes.set(tail, IPV6_BYTES - tail.length);
  return bytes;
}

/** Bytes of colon-separated groups; the last may be dotted IPv4 where `mayEndDotted`. Null where one is malformed. */
function parseGroups(text: string, mayEndDotted: boolean): number[] | null {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (let i = 0; i < groups.length; i++) {
    const group = groups[i]!;
    if (/^[0-9a-f]{1,4}$/i.test(group)) {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
      continue;
    }
    const dotted = mayEndDotted && i === groups.length - 1 ? parseIPv4(group) : null;
    if (dotted === null) return null;
    bytes.push(...dotted);
  }
  return bytes;
}

function isMapped(bytes: Uint8Array): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups as "::". */
function formatIPv6(bytes: Uint8Array): string {
  const groups: number[] = [];
  for (let i = 0; i < IPV6_BYTES; i += 2) groups.push((bytes[i]! << 8) | bytes[i + 1]!);
  let runStart = -1;
  let runLength = 1;
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (start + length < groups.length && groups[start + length] === 0) length++;
    if (length > runLength) [runStart, runLength] = [start, length];
  }
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(":");
  if (runStart < 0) return hex(groups);
  return `${hex(groups.slice(0, runStart))}::${hex(groups.slice(runStart + runLength))}`;
}
