/**
 * The least that an HTTP server can do, as the limit for trackers: accept, receive, one fixed reply, close.
 * `responder.ts HOST REPLY_BYTES`; a line says the port. What the announcer reaches here is the most that
 * the client, the kernel and a thread that does nothing can do together.
 */
import { assert } from "../../../src/errors.ts";
import * as libc from "../../../src/kernel/libc.ts";
import { mapMemory } from "../../../src/kernel/memory.ts";
import { openReactor } from "../../../src/kernel/select.ts";
import { listenTcp } from "../../../src/kernel/sockets.ts";

const [host, replyBytes] = process.argv.slice(2) as [string, string];
const ACCEPTS = 16;
const FDS_MAX = 4096;
const REQUEST_BYTES = 2048;

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ";
const body = `d8:intervali30e5:peers${replyBytes}:${"x".repeat(Number(replyBytes))}e`;
const reply = mapMemory(8192);
const text = Buffer.from(`${head}${body.length}\r\n\r\n${body}`);
reply.bytes.set(text);
const iov = mapMemory(16);
iov.view.setBigUint64(0, BigInt(reply.address), true);
iov.view.setBigUint64(8, BigInt(text.length), true);

const requests = mapMemory(FDS_MAX * REQUEST_BYTES);
const isSending = new Uint8Array(FDS_MAX);
const listener = listenTcp(host, 0);
const reactor = openReactor("auto", 512);
for (let accept = 0; accept < ACCEPTS; accept++) reactor.accept(listener.fd, accept);
console.log(`listening ${listener.port}`);

function onCompletion(token: number, result: number): void {
  if (token < ACCEPTS) {
    assert(result >= 0 && result < FDS_MAX, `accept: ${result}`);
    isSending[result] = 0;
    reactor.recv(result, requests.address + result * REQUEST_BYTES, REQUEST_BYTES, false, ACCEPTS + result);
    reactor.accept(listener.fd, token);
    return;
  }
  const fd = token - ACCEPTS;
  if (isSending[fd] === 1 || result <= 0) {
    assert(libc.close(fd) === 0, "close");
    return;
  }
  isSending[fd] = 1;
  reactor.sendmsg(fd, iov.address, 1, token);
}

for (;;) reactor.run(Number.POSITIVE_INFINITY, onCompletion);
