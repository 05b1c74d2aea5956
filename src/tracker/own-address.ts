/**
 * This machine's addresses as a caller elsewhere would reach them. A seeder beside the tracker announces from
 * 127.0.0.1; nodes must be told the address of the interface that they themselves are on.
 */
import { networkInterfaces } from "node:os";
import { canonicalHost, hostBytes } from "../wire/address.ts";

export interface InterfaceAddress {
  readonly interfaceName: string;
  readonly host: string;
  /** 4 or 16. */
  readonly bytes: Uint8Array;
  readonly prefixBits: number;
  /** Loopback. */
  readonly internal: boolean;
}

export interface OwnHosts {
  readonly host4: Uint8Array | null;
  readonly host6: Uint8Array | null;
}

/** Interfaces come and go (DHCP); asking the kernel on every announce would cost more than the announce. */
const REFRESH_MS = 5000;
const NOWHERE: OwnHosts = { host4: null, host6: null };

export class OwnAddresses {
  readonly #fixed: Uint8Array | null;
  #addresses: InterfaceAddress[] = [];
  #readMs = Number.NEGATIVE_INFINITY;

  /** `listen` is the address that the tracker is bound to; a wildcard leaves the choice to the caller's subnet. */
  constructor(listen: string) {
    const host = canonicalHost(listen);
    const bytes = host === null ? null : hostBytes(host);
    this.#fixed = bytes === null || bytes.every((byte) => byte === 0) || bytes[0] === 127 ? null : bytes;
  }

  /** Addresses for a caller with that packed endpoint (6 or 18 bytes). */
  for(endpoint: Uint8Array, nowMs: number): OwnHosts {
    if (endpoint.length === 6 && endpoint[0] === 127) return NOWHERE;
    const caller = endpoint.subarray(0, endpoint.length - 2);
    if (nowMs - this.#readMs > REFRESH_MS) {
      this.#addresses = publicAddresses();
      this.#readMs = nowMs;
    }
    const near = this.#addresses.find((own) => sharePrefix(own.bytes, caller, own.prefixBits));
    return { host4: this.#choose(4, near), host6: this.#choose(16, near) };
  }

  #choose(length: number, near: InterfaceAddress | undefined): Uint8Array | null {
    if (this.#fixed?.length === length) return this.#fixed;
    if (near?.bytes.length === length) return near.bytes;
    const ofFamily = this.#addresses.filter((own) => own.bytes.length === length);
    return (ofFamily.find((own) => own.interfaceName === near?.interfaceName) ?? ofFamily[0])?.bytes ?? null;
  }
}

/** Addresses that mean something to a caller elsewhere: not loopback, and not link-local IPv6, which needs a scope. */
function publicAddresses(): InterfaceAddress[] {
  return interfaceAddresses().filter((own) => !own.internal && !/^fe[89ab]/i.test(own.host));
}

/** Every address of every interface that is up. */
export function interfaceAddresses(): InterfaceAddress[] {
  const found: InterfaceAddress[] = [];
  for (const [interfaceName, entries] of Object.entries(networkInterfaces())) {
    for (const { address: host, cidr, internal } of entries ?? []) {
      const bytes = hostBytes(host);
      if (bytes && cidr !== null)
        found.push({ interfaceName, host, bytes, prefixBits: Number(cidr.split("/")[1]), internal });
    }
  }
  return found;
}

/** True where both addresses are of one family and of one subnet of `prefixBits`. */
export function sharePrefix(a: Uint8Array, b: Uint8Array, prefixBits: number): boolean {
  if (a.length !== b.length) return false;
  const whole = prefixBits >> 3;
  for (let n = 0; n < whole; n++) if (a[n] !== b[n]) return false;
  const restBits = prefixBits & 7;
  return restBits === 0 || a[whole]! >> (8 - restBits) === b[whole]! >> (8 - restBits);
}
