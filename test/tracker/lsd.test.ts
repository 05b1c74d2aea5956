/** Local discovery (BEP 14): the message, and two nodes that find each other over the loopback interface. */
import { afterEach, expect, test } from "bun:test";
import { createSocket } from "node:dgram";
import { LocalDiscovery } from "../../src/tracker/lsd.ts";
import { formatMessage, parseMessage } from "../../src/tracker/lsd-message.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import { HASH } from "./helpers.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

const encode = (text: string) => new TextEncoder().encode(text);

test("a message as BEP 14 writes it", () => {
  const message = { infoHashes: [HASH, "00".repeat(20)], port: 6881, cookie: "c" };
  const text = formatMessage(message, "239.192.152.143", 6771);
  expect(text).toBe(
    `BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: ${HASH}\r\nInfohash: ${"00".repeat(20)}\r\ncookie: c\r\n\r\n\r\n`,
  );
  expect(parseMessage(encode(text))).toEqual(message);
  expect(parseMessage(encode(text.replace("cookie: c\r\n", "").toUpperCase()))).toMatchObject({
    port: 6881,
    cookie: null,
  });
});

test("what is no message is ignored", () => {
  const good = formatMessage({ infoHashes: [HASH], port: 1, cookie: null }, "g", 1);
  const many = formatMessage(
    { infoHashes: Array.from({ length: 21 }, (_, n) => n.toString(16).padStart(40, "0")), port: 1, cookie: null },
    "g",
    1,
  );
  const wrong = [
    "",
    "GET / HTTP/1.1\r\n",
    good.replace("Port: 1", "Port: 0"),
    good.replace("Port: 1", "Port: 65536"),
    good.replace(HASH, "xyz"),
    many,
    good + " ".repeat(1500),
  ];
  for (const text of wrong) expect(parseMessage(encode(text))).toBeNull();
  for (let length = 0; length < 40; length++) expect(parseMessage(encode(good.slice(0, length)))).toBeNull();
});

/** A UDP port that nobody else on this machine listens to. */
async function groupPort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, () => resolve()));
  const { port } = socket.address();
  socket.close();
  return port;
}

test("two nodes find each other, neither finds itself or what it did not ask for", async () => {
  const port = await groupPort();
  const found: [string, string, PeerAddress][] = [];
  const both = Promise.withResolvers<void>();
  const make = (name: string) => {
    const node = new LocalDiscovery({
      port,
      hosts: ["127.0.0.1"],
      onWarning: (message) => both.reject(new Error(message)),
      onPeer: (infoHash, peer) => {
        found.push([name, infoHash, peer]);
        if (found.length === 2) both.resolve();
      },
    });
    cleanups.push(() => node.stop());
    return node;
  };
  const [a, b] = [make("a"), make("b")];
  await a.start();
  await b.start();
  b.add("33".repeat(20), 9);
  a.add(HASH, 1111);
  b.add(HASH.toUpperCase(), 2222);
  await both.promise;
  // Whose packet arrives first is up to the kernel.
  expect(found.sort()).toEqual([
    ["a", HASH, { host: "127.0.0.1", port: 2222 }],
    ["b", HASH, { host: "127.0.0.1", port: 1111 }],
  ]);
});

test("no interface is a warning, not a crash", async () => {
  const warnings: string[] = [];
  const node = new LocalDiscovery({
    hosts: ["203.0.113.77"],
    onPeer: () => {},
    onWarning: (message) => warnings.push(message),
  });
  cleanups.push(() => node.stop());
  node.add(HASH, 1);
  await node.start();
  expect(warnings).toEqual([expect.stringContaining("no network interface")]);
});
