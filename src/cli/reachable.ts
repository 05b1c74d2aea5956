/** By which addresses other machines reach this one: what `serve` tells its user to type on a node. */
import { readFileSync } from "node:fs";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import { canonicalHost } from "../wire/address.ts";

type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

/**
 * Hosts for URLs (IPv6 in brackets), the best first: the address that is listened on; else those of all
 * interfaces, the one with the default route first, IPv4 before IPv6; else loopback.
 */
export function reachableHosts(
  listen: string | null,
  interfaces: Interfaces = networkInterfaces(),
  routes: string = readRoutes(),
): string[] {
  if (listen !== null && listen !== "0.0.0.0" && listen !== "::") return [urlHost(listen)];
  const preferred = defaultInterface(routes);
  const entries = Object.entries(interfaces).flatMap(([name, infos]) =>
    (infos ?? []).map((info) => ({
      address: info.address,
      isIPv6: info.family === "IPv6",
      isInternal: info.internal,
      name,
    })),
  );
  const hosts = entries
    // A link-local IPv6 address means nothing without the name of the node's own interface.
    .filter(
      (entry) => !entry.isInternal && !/^fe[89ab]/i.test(entry.address) && !(listen === "0.0.0.0" && entry.isIPv6),
    )
    .sort((a, b) => Number(a.isIPv6) - Number(b.isIPv6) || Number(b.name === preferred) - Number(a.name === preferred))
    .map((entry) => urlHost(entry.address));
  return hosts.length > 0 ? hosts : ["127.0.0.1"];
}

/**
 * Hosts, as in a URL, under which this machine reaches its own server: one for each family that is listened on,
 * because a tracker hands out an address of the family that it was announced over.
 */
export function localHosts(listen: string | null): string[] {
  if (listen === "0.0.0.0") return ["127.0.0.1"];
  if (listen !== null && listen !== "::") return [urlHost(listen)];
  return hasIpv6Loopback() ? ["127.0.0.1", "[::1]"] : ["127.0.0.1"];
}

function urlHost(address: string): string {
  const host = canonicalHost(address) ?? address;
  return host.includes(":") ? `[${host}]` : host;
}

function hasIpv6Loopback(): boolean {
  return Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === "::1"));
}

/** Name of the interface with the default route of the lowest metric, from /proc/net/route (proc_net(5)); null without one. */
function defaultInterface(routes: string): string | null {
  const rows = routes
    .split("\n")
    .slice(1)
    .map((line) => line.split("\t"));
  const defaults = rows.filter((row) => row[1] === "00000000" && row[7] === "00000000");
  defaults.sort((a, b) => Number(a[6]) - Number(b[6]));
  return defaults[0]?.[0] ?? null;
}

function readRoutes(): string {
  try {
    return readFileSync("/proc/net/route", "latin1");
  } catch {
    // Without IPv4, or in a sandbox without /proc/net, no interface is preferred.
    return "";
  }
}
