/** The message of local service discovery (BEP 14): text in the shape of an HTTP request. Pure. */
import { DISCOVERY_HASHES_MAX, DISCOVERY_MESSAGE_BYTES_MAX } from "../limits.ts";

export interface DiscoveryMessage {
  /** 40 lower-case hex digits each. */
  readonly infoHashes: readonly string[];
  /** TCP port that the sender listens on. */
  readonly port: number;
  /** Lets a sender know its own messages; null where there is none. */
  readonly cookie: string | null;
}

/** `group` is the multicast address, IPv6 in brackets, without the port. */
export function formatMessage(message: DiscoveryMessage, group: string, groupPort: number): string {
  const lines = ["BT-SEARCH * HTTP/1.1", `Host: ${group}:${groupPort}`, `Port: ${message.port}`];
  for (const infoHash of message.infoHashes) lines.push(`Infohash: ${infoHash}`);
  if (message.cookie !== null) lines.push(`cookie: ${message.cookie}`);
  return `${lines.join("\r\n")}\r\n\r\n\r\n`;
}

/** Null where the text is no such message, names no valid port or no info-hash. Unknown headers are ignored. */
export function parseMessage(bytes: Uint8Array): DiscoveryMessage | null {
  if (bytes.length > DISCOVERY_MESSAGE_BYTES_MAX) return null;
  const [start, ...lines] = new TextDecoder("latin1").decode(bytes).split("\r\n");
  if (!/^BT-SEARCH \* HTTP\/1\.[01]$/.test(start!)) return null;
  const infoHashes = new Set<string>();
  let port = 0;
  let cookie: string | null = null;
  for (const line of lines) {
    const [, name, value] = /^([A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
    if (name === undefined || value === undefined) continue;
    if (/^port$/i.test(name) && /^\d{1,5}$/.test(value)) port = Number(value);
    if (/^infohash$/i.test(name) && /^[0-9a-f]{40}$/i.test(value)) infoHashes.add(value.toLowerCase());
    if (/^cookie$/i.test(name)) cookie = value;
  }
  if (port < 1 || port > 65535 || infoHashes.size === 0 || infoHashes.size > DISCOVERY_HASHES_MAX) return null;
  return { infoHashes: [...infoHashes], port, cookie };
}
