/** `--peer HOST:PORT` and `--listen ADDR`: texts to addresses. */
import { canonicalHost, makeAddress, type PeerAddress } from "../wire/address.ts";
import { type Option, repeated, value } from "./options.ts";
import type { Output } from "./output.ts";

export interface HostAndPort {
  /** An address or a name. */
  readonly host: string;
  readonly port: number;
}

/** Reads `node7:6881`, `10.0.0.7:6881` or `[fd00::7]:6881`; null where the text is none of these. */
export function parseHostAndPort(text: string): HostAndPort | null {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(text);
  if (!match) return null;
  const port = Number(match[3]);
  const host = match[1] === undefined ? match[2]! : canonicalHost(match[1]);
  return host !== null && port >= 1 && port <= 65535 ? { host, port } : null;
}

/** `--peer HOST:PORT`, repeated. */
export function peerOption(help: string): Option<readonly HostAndPort[]> {
  const expected = "a host and port such as 10.0.0.7:6881 or [fd00::7]:6881";
  return repeated(value({ placeholder: "HOST:PORT", help, expected, parse: parseHostAndPort }));
}

/** `--listen ADDR`: a literal address of this machine; null stands for all. */
export function listenOption(help = "address of this machine to listen on"): Option<string | null> {
  const expected = "an IPv4 or IPv6 address of this machine";
  return value({ placeholder: "ADDR", help, expected, parse: canonicalHost, fallbackText: "all, IPv4 and IPv6" });
}

/** Whether nobody but this machine reaches that address; null stands for all addresses. */
export function isLoopback(listen: string | null): boolean {
  return listen !== null && (listen.startsWith("127.") || listen === "::1");
}

/** Looks names up. A name that is unknown is a warning: other peers may still be found. */
export async function resolvePeers(peers: readonly HostAndPort[], output: Output): Promise<PeerAddress[]> {
  const found = await Promise.all(peers.map((peer) => resolvePeer(peer, output)));
  return found.flat();
}

async function resolvePeer({ host, port }: HostAndPort, output: Output): Promise<PeerAddress[]> {
  const literal = makeAddress(host, port);
  if (literal) return [literal];
  try {
    // Loaded only where a peer has a name and not an address.
    const { lookup } = await import("node:dns/promises");
    const answers = await lookup(host, { all: true });
    return answers.flatMap((answer) => makeAddress(answer.address, port) ?? []);
  } catch (error) {
    output.warning("peer-unknown", `the peer ${host} is unknown: ${(error as Error).message}`);
    return [];
  }
}
