/**
 * Announces to a tracker as fast as it answers, from a process of its own so that its CPU time is told apart:
 * `announcer.ts http-close|http-keep|udp HOST PORT SECONDS CONNECTIONS PEERS NUMWANT INFO_HASH`.
 *
 * It speaks through the program's own reactor, and every request is made before the clock runs: what is left
 * per announce is a handful of system calls in batches and a look at the reply. First every peer announces
 * once, so that the swarm is whole; then the clock runs. One JSON line says what happened.
 *
 * Without keep-alive a reply is read to the end of its stream by one receive, so the tracker closes first,
 * with it as with opentracker. A reply that is none ends the run: a tracker that refuses would be fast.
 */
import { assert } from "../../../src/errors.ts";
import * as abi from "../../../src/kernel/abi.ts";
import { nowMs } from "../../../src/kernel/clock.ts";
import * as libc from "../../../src/kernel/libc.ts";
import { mapMemory, type Memory } from "../../../src/kernel/memory.ts";
import { openReactor } from "../../../src/kernel/select.ts";
import { encodeSockaddr, SOCKADDR_BYTES } from "../../../src/kernel/sockets.ts";
import { Random } from "../../../src/swarm/random.ts";
import { encodePercent } from "../../../src/tracker/query.ts";

type Mode = "http-close" | "http-keep" | "udp";

const [modeWord, host, portText, secondsText, connectionsText, peersText, numwantText, infoHashHex] =
  process.argv.slice(2) as string[];
const mode = modeWord as Mode;
const [port, seconds, connections, peers, numwant] = [
  portText,
  secondsText,
  connectionsText,
  peersText,
  numwantText,
].map(Number) as [number, number, number, number, number];
const infoHash = Uint8Array.fromHex(infoHashHex!);

const REQUEST_BYTES_MAX = 512;
const REPLY_BYTES_MAX = 8192;
const FIRST_PORT = 10_000;
/** A prime: walks all peers in an order in which neighbours are far apart. */
const STRIDE = 7919;
const UDP_PROTOCOL = 0x41727101980n;
/** A tracker that answers nothing for this long is broken; the run ends. */
const SILENCE_MS_MAX = 5000;
/** Steps of a connection; the token of an operation is its connection. */
const Step = { connect: 0, send: 1, receive: 2 } as const;
type Step = (typeof Step)[keyof typeof Step];

/** The request of each peer, REQUEST_BYTES_MAX apart. */
const requests = mapMemory(peers * REQUEST_BYTES_MAX);
const requestBytes = new Uint16Array(peers);
const replies = mapMemory(connections * REPLY_BYTES_MAX);
const iovs = mapMemory(connections * 16);
const sockaddr = mapMemory(SOCKADDR_BYTES);
const sockaddrBytes = encodeSockaddr(sockaddr.address, { host: host!, port });
const reactor = openReactor("auto", 512);

const fds = new Int32Array(connections).fill(-1);
const steps = new Uint8Array(connections);
const gotBytes = new Int32Array(connections);
let next = 0;
let answered = 0;
let replyBytesTotal = 0;
let stopping = false;

function httpRequest(peer: number, random: Random): string {
  const id = encodePercent(Uint8Array.from({ length: 20 }, () => random.below(256)));
  const query = `info_hash=${encodePercent(infoHash)}&peer_id=${id}&port=${FIRST_PORT + peer}&uploaded=0&downloaded=0&left=1000&compact=1&numwant=${numwant}`;
  const connection = mode === "http-close" ? "close" : "keep-alive";
  return `GET /announce?${query} HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: ${connection}\r\n\r\n`;
}

/** BEP 15; the connection id is filled in when it is known. */
function udpRequest(peer: number, random: Random): Uint8Array {
  const packet = new Uint8Array(98);
  const view = new DataView(packet.buffer);
  view.setUint32(8, 1);
  view.setUint32(12, peer);
  packet.set(infoHash, 16);
  for (let at = 36; at < 56; at++) packet[at] = random.below(256);
  view.setBigUint64(64, 1000n);
  view.setUint32(88, random.below(2 ** 31));
  view.setInt32(92, numwant);
  view.setUint16(96, FIRST_PORT + peer);
  return packet;
}

function prepare(): void {
  const random = new Random(7);
  for (let peer = 0; peer < peers; peer++) {
    const bytes = mode === "udp" ? udpRequest(peer, random) : Buffer.from(httpRequest(peer, random), "latin1");
    assert(bytes.length <= REQUEST_BYTES_MAX, `a request of ${bytes.length} bytes`);
    requests.bytes.set(bytes, peer * REQUEST_BYTES_MAX);
    requestBytes[peer] = bytes.length;
  }
}

function begin(connection: number): void {
  const type = mode === "udp" ? abi.SOCK_DGRAM : abi.SOCK_STREAM;
  const fd = libc.socket(host!.includes(":") ? abi.AF_INET6 : abi.AF_INET, type | abi.SOCK_CLOEXEC, 0);
  assert(fd >= 0, `socket: ${libc.errnoText(fd)}`);
  fds[connection] = fd;
  steps[connection] = Step.connect;
  reactor.connect(fd, sockaddr.address, sockaddrBytes, connection);
}

function send(connection: number): void {
  next = (next + STRIDE) % peers;
  setIov(connection, requests.address + next * REQUEST_BYTES_MAX, requestBytes[next]!);
  steps[connection] = Step.send;
  gotBytes[connection] = 0;
  reactor.sendmsg(fds[connection]!, iovs.address + connection * 16, 1, connection);
}

function setIov(connection: number, address: number, lengthBytes: number): void {
  const view = iovs.view;
  view.setUint32(connection * 16, address >>> 0, true);
  view.setUint32(connection * 16 + 4, Math.floor(address / 2 ** 32), true);
  view.setUint32(connection * 16 + 8, lengthBytes, true);
  view.setUint32(connection * 16 + 12, 0, true);
}

function receive(connection: number): void {
  steps[connection] = Step.receive;
  const at = gotBytes[connection]!;
  const address = replies.address + connection * REPLY_BYTES_MAX + at;
  reactor.recv(fds[connection]!, address, REPLY_BYTES_MAX - at, mode === "http-close", connection);
}

function onCompletion(connection: number, result: number): void {
  switch (steps[connection] as Step) {
    case Step.connect:
      assert(result === 0, `connect: ${libc.errnoText(result)}`);
      return send(connection);
    case Step.send:
      assert(result > 0, `send: ${libc.errnoText(result)}`);
      return receive(connection);
    case Step.receive:
      return received(connection, result);
  }
}

function received(connection: number, result: number): void {
  assert(result > 0, `receive: ${result === 0 ? "the tracker closed" : libc.errnoText(result)}`);
  gotBytes[connection]! += result;
  const lengthBytes = gotBytes[connection]!;
  if (!isWhole(connection * REPLY_BYTES_MAX, lengthBytes)) return receive(connection);
  answered++;
  replyBytesTotal += lengthBytes;
  if (mode === "http-close") {
    close(connection);
    if (!stopping) begin(connection);
  } else if (!stopping) send(connection);
  else close(connection);
}

function close(connection: number): void {
  const result = libc.close(fds[connection]!);
  assert(result === 0, `close: ${libc.errnoText(result)}`);
  fds[connection] = -1;
}

/** Whether a whole reply is there. Throws where it is no answer to an announce. */
function isWhole(at: number, lengthBytes: number): boolean {
  const bytes = replies.bytes;
  if (mode === "udp") {
    assert(lengthBytes >= 20 && bytes[at + 3] === 1, `no announce reply: ${shown(at, lengthBytes)}`);
    return true;
  }
  // The body's end: every announce reply is a dictionary that ends with "e"; its length stands in the head.
  const head = headBytes(bytes, at, lengthBytes);
  if (head === 0) return false;
  const bodyBytes = contentLength(bytes, at, head);
  if (bodyBytes < 0 || lengthBytes < head + bodyBytes) return false;
  assert(
    bytes[at + 9] === 0x32 && bytes[at + head] === 0x64 && bytes[at + head + 4] !== 0x66,
    `no announce reply: ${shown(at, lengthBytes)}`,
  );
  return true;
}

/** Length of the head with its empty line, 0 where that is not there yet. */
function headBytes(bytes: Uint8Array, at: number, lengthBytes: number): number {
  for (let n = 3; n < lengthBytes; n++) {
    if (bytes[at + n] === 10 && bytes[at + n - 1] === 13 && bytes[at + n - 2] === 10) return n + 1;
  }
  return 0;
}

const LENGTH_HEADER = Buffer.from("\r\ncontent-length:");

function contentLength(bytes: Uint8Array, at: number, head: number): number {
  for (let n = 0; n + LENGTH_HEADER.length < head; n++) {
    let same = 0;
    while (same < LENGTH_HEADER.length && (bytes[at + n + same]! | 0x20) === (LENGTH_HEADER[same]! | 0x20)) same++;
    if (same < LENGTH_HEADER.length) continue;
    let value = 0;
    for (let digit = at + n + same; bytes[digit] !== 13; digit++)
      if (bytes[digit] !== 32) value = value * 10 + bytes[digit]! - 48;
    return value;
  }
  return -1;
}

function shown(at: number, lengthBytes: number): string {
  return JSON.stringify(Buffer.from(replies.bytes.subarray(at, at + Math.min(lengthBytes, 300))).toString("latin1"));
}

/** The connection id of BEP 15, put into every request; it holds for a minute, longer than a run. */
function connectUdp(): void {
  const fd = libc.socket(abi.AF_INET, abi.SOCK_DGRAM | abi.SOCK_CLOEXEC, 0);
  assert(fd >= 0, `socket: ${libc.errnoText(fd)}`);
  const scratch: Memory = mapMemory(64);
  scratch.view.setBigUint64(0, UDP_PROTOCOL);
  const connected = libc.connect(fd, sockaddr.address, sockaddrBytes);
  assert(connected === 0, `connect: ${libc.errnoText(connected)}`);
  setIov(0, scratch.address, 16);
  reactor.sendmsg(fd, iovs.address, 1, 0);
  reactor.run(SILENCE_MS_MAX, (_, result) => assert(result === 16, `send: ${result}`));
  reactor.recv(fd, scratch.address + 32, 16, false, 0);
  const count = reactor.run(SILENCE_MS_MAX, (_, result) => assert(result === 16, `connect reply: ${result}`));
  assert(count === 1, "no connect reply");
  const id = scratch.view.getBigUint64(40);
  for (let peer = 0; peer < peers; peer++) requests.view.setBigUint64(peer * REQUEST_BYTES_MAX, id);
  assert(libc.close(fd) === 0, "close");
}

/** Goes on until `done`. */
function runUntil(done: () => boolean): void {
  while (!done()) {
    const count = reactor.run(SILENCE_MS_MAX, onCompletion);
    assert(count > 0, `the tracker was silent for ${SILENCE_MS_MAX} ms after ${answered} answers`);
  }
}

assert(peers % STRIDE !== 0, "the stride must reach every peer");
prepare();
if (mode === "udp") connectUdp();
for (let connection = 0; connection < connections; connection++) begin(connection);
runUntil(() => answered >= peers);
console.log("ready");
const beginMs = nowMs();
const before = answered;
const cpuBefore = process.cpuUsage();
const bytesBefore = replyBytesTotal;
runUntil(() => nowMs() - beginMs >= seconds * 1000);
const elapsed = (nowMs() - beginMs) / 1000;
const cpu = process.cpuUsage(cpuBefore);
const announces = answered - before;
const replyBytes = replyBytesTotal - bytesBefore;
console.log(
  JSON.stringify({
    announces,
    seconds: elapsed,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    replyBytes: replyBytes / announces,
  }),
);
stopping = true;
runUntil(() => reactor.inFlight === 0);
reactor.close();
