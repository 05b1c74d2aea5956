import { expect, test } from "bun:test";
import { connect } from "node:net";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { mapMemory } from "../../src/kernel/memory.ts";
import {
  decodeSockaddr,
  dialSocket,
  encodeSockaddr,
  listenTcp,
  localAddress,
  peerAddress,
  SOCKADDR_BYTES,
  tuneAccepted,
} from "../../src/kernel/sockets.ts";

test("addresses survive the kernel's form", () => {
  const memory = mapMemory(64);
  for (const address of [
    { host: "192.168.1.200", port: 6881 },
    { host: "2001:db8::1", port: 1 },
    { host: "::", port: 65535 },
  ]) {
    memory.bytes.fill(0xff);
    const lengthBytes = encodeSockaddr(memory.address, address);
    expect(lengthBytes).toBe(address.host.includes(":") ? SOCKADDR_BYTES : 16);
    expect(memory.bytes[lengthBytes]).toBe(0xff);
    expect(decodeSockaddr(memory.bytes)).toEqual(address);
  }
  memory.bytes.fill(0);
  expect(decodeSockaddr(memory.bytes)).toBeNull();
  expect(() => encodeSockaddr(memory.address, { host: "example.org", port: 1 })).toThrow("not an IP address");
  memory.free();
});

/** Accepts one connection that node:net makes to `host`. */
async function acceptFrom(listenerFd: number, host: string, port: number) {
  const client = connect(port, host);
  await new Promise<void>((resolve, reject) => client.once("connect", resolve).once("error", reject));
  const fd = libc.accept4(listenerFd, abi.SOCK_NONBLOCK | abi.SOCK_CLOEXEC);
  expect(fd).toBeGreaterThanOrEqual(0);
  const found = { peer: peerAddress(fd), local: localAddress(fd), clientPort: client.localPort };
  tuneAccepted(fd);
  expect(libc.getsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_NODELAY)).toBe(1);
  expect(libc.getsockoptInt(fd, abi.SOL_SOCKET, abi.SO_KEEPALIVE)).toBe(1);
  libc.close(fd);
  client.destroy();
  return found;
}

test("one listener takes IPv4 and IPv6, and tells IPv4 as such", async () => {
  const listener = listenTcp(null, 0);
  expect(listener.port).toBeGreaterThan(0);
  const four = await acceptFrom(listener.fd, "127.0.0.1", listener.port);
  expect(four.peer).toEqual({ host: "127.0.0.1", port: four.clientPort! });
  expect(four.local).toEqual({ host: "127.0.0.1", port: listener.port });
  if (listener.host === "::") {
    const six = await acceptFrom(listener.fd, "::1", listener.port);
    expect(six.peer).toEqual({ host: "::1", port: six.clientPort! });
  }
  libc.close(listener.fd);
});

test("a listener on one address", async () => {
  const listener = listenTcp("127.0.0.1", 0);
  expect(localAddress(listener.fd)).toEqual({ host: "127.0.0.1", port: listener.port });
  expect(peerAddress(listener.fd)).toBeNull();
  await acceptFrom(listener.fd, "127.0.0.1", listener.port);
  libc.close(listener.fd);
});

test("a port that is taken, an address that is not ours, a text that is none", () => {
  const listener = listenTcp(null, 0);
  expect(() => listenTcp(null, listener.port)).toThrow(
    `cannot listen on *:${listener.port}: EADDRINUSE: address already in use; another program has this port, give another --port`,
  );
  libc.close(listener.fd);
  expect(() => listenTcp("192.0.2.1", 0)).toThrow("cannot listen on 192.0.2.1:0: EADDRNOTAVAIL");
  expect(() => listenTcp("2001:db8::77", 5)).toThrow("cannot listen on [2001:db8::77]:5: EADDRNOTAVAIL");
  expect(() => listenTcp("localhost", 0)).toThrow("not an IP address");
  expect(() => listenTcp(null, 65536)).toThrow("port out of range");
});

test("a dialling socket is tuned", () => {
  const fd = dialSocket({ host: "127.0.0.1", port: 1 });
  expect(libc.getsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_NODELAY)).toBe(1);
  expect(libc.getsockoptInt(fd, abi.IPPROTO_TCP, abi.TCP_USER_TIMEOUT)).toBe(120_000);
  libc.close(fd);
});
