/** Which addresses are near each other: of one rack or room, most likely on one switch. Between networks the way may be narrower. */
import { hostBytes } from "../wire/address.ts";

/** A key for the network of a literal IP address: 24 bits of IPv4, 64 of IPv6. Equal exactly for the same network; null where the host is no address. */
export function networkOf(host: string): string | null {
  const bytes = hostBytes(host);
  return bytes === null ? null : bytes.subarray(0, bytes.length === 4 ? 3 : 8).join(".");
}

export function isSameNetwork(a: string, b: string): boolean {
  const network = networkOf(a);
  return network !== null && network === networkOf(b);
}
