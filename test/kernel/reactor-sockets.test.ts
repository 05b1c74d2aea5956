import { describe, expect, test } from "bun:test";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { dialSocket, encodeSockaddr, listenTcp, SOCKADDR_BYTES } from "../../src/kernel/sockets.ts";
import { BACKENDS, fillPattern, withHarness } from "./harness.ts";

const { ECANCELED, ECONNREFUSED, ECONNRESET, EPIPE } = libc.Errno;

describe.each(BACKENDS)("sockets on %s", (_name, open) => {
  test(
    "a partial receive returns what is there",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const out = h.buffer(5);
      const into = h.buffer(100);
      out.bytes.set(Buffer.from("hello"));
      h.reactor.sendmsg(left, h.iovecs([{ address: out.address, lengthBytes: 5 }]), 1, 1);
      h.reactor.recv(right, into.address, 100, false, 2);
      expect(h.wait(1)).toBe(5);
      expect(h.wait(2)).toBe(5);
      expect(Buffer.from(into.bytes.subarray(0, 5)).toString()).toBe("hello");
    }),
  );

  test(
    "several iovecs arrive as one stream",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const parts = [1, 4096, 7].map((lengthBytes, index) => {
        const part = h.buffer(lengthBytes);
        fillPattern(part.bytes, index + 1);
        return { ...part, lengthBytes };
      });
      const into = h.buffer(4104);
      h.reactor.sendmsg(left, h.iovecs(parts), 3, 1);
      h.reactor.recv(right, into.address, 4104, true, 2);
      expect(h.wait(1)).toBe(4104);
      expect(h.wait(2)).toBe(4104);
      expect(Buffer.concat(parts.map((part) => part.bytes)).equals(into.bytes)).toBe(true);
    }),
  );

  test(
    "receiveNow takes what has arrived into several places, and waits for nothing",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const out = h.buffer(10);
      const into = [h.buffer(4), h.buffer(4), h.buffer(4)];
      const iov = h.iovecs(into.map(({ address }) => ({ address, lengthBytes: 4 })));
      fillPattern(out.bytes, 8);
      expect(h.reactor.receiveNow(right, iov, 3)).toBe(-libc.Errno.EAGAIN);
      h.reactor.sendmsg(left, h.iovecs([{ address: out.address, lengthBytes: 10 }]), 1, 1);
      expect(h.wait(1)).toBe(10);
      expect(h.reactor.receiveNow(right, iov, 3)).toBe(10);
      const received = Buffer.concat(into.map(({ bytes }) => bytes)).subarray(0, 10);
      expect(Buffer.compare(received, out.bytes)).toBe(0);
      expect(libc.shutdown(left, abi.SHUT_WR)).toBe(0);
      expect(h.reactor.receiveNow(right, iov, 3)).toBe(0);
    }),
  );

  test(
    "waitAll collects what comes in parts",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const out = h.buffer(30_000);
      const into = h.buffer(30_000);
      fillPattern(out.bytes, 3);
      h.reactor.recv(right, into.address, 30_000, true, 1);
      for (let part = 0; part < 3; part++) {
        h.reactor.sendmsg(
          left,
          h.iovecs([{ address: out.address + part * 10_000, lengthBytes: 10_000 }]),
          1,
          10 + part,
        );
        expect(h.wait(10 + part)).toBe(10_000);
        if (part === 2) break;
        // The receiver sees the part on its own before the next one comes.
        h.reactor.run(20, h.handler);
        expect(h.results.has(1)).toBe(false);
      }
      expect(h.wait(1)).toBe(30_000);
      expect(Buffer.compare(into.bytes, out.bytes)).toBe(0);
    }),
  );

  test(
    "waitAll is short at the end of the stream, then 0",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const out = h.buffer(100);
      h.reactor.recv(right, h.buffer(1000).address, 1000, true, 1);
      h.reactor.sendmsg(left, h.iovecs([{ address: out.address, lengthBytes: 100 }]), 1, 2);
      expect(h.wait(2)).toBe(100);
      h.reactor.run(20, h.handler);
      expect(libc.shutdown(left, abi.SHUT_WR)).toBe(0);
      expect(h.wait(1)).toBe(100);
      h.reactor.recv(right, h.buffer(10).address, 10, true, 3);
      expect(h.wait(3)).toBe(0);
    }),
  );

  test(
    "a reset by the other side is -ECONNRESET, sending afterwards -EPIPE",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const buffer = h.buffer(16);
      h.reactor.recv(right, buffer.address, 16, true, 1);
      h.reactor.run(0, h.handler);
      expect(libc.setsockoptReset(left)).toBe(0);
      h.closeFd(left);
      expect(h.wait(1)).toBe(-ECONNRESET);
      h.reactor.sendmsg(right, h.iovecs([{ address: buffer.address, lengthBytes: 16 }]), 1, 2);
      expect(h.wait(2)).toBe(-EPIPE);
    }),
  );

  test(
    "shutdown ends a pending receive",
    withHarness(open, (h) => {
      const [left] = h.pair();
      h.reactor.recv(left, h.buffer(16).address, 16, true, 1);
      h.reactor.run(0, h.handler);
      expect(libc.shutdown(left, abi.SHUT_RDWR)).toBe(0);
      expect(h.wait(1)).toBe(0);
    }),
  );

  test(
    "connecting where nobody listens is -ECONNREFUSED",
    withHarness(open, (h) => {
      const listener = listenTcp("127.0.0.1", 0);
      expect(libc.close(listener.fd)).toBe(0);
      const address = { host: "127.0.0.1", port: listener.port };
      const sockaddr = h.buffer(SOCKADDR_BYTES).address;
      const fd = h.own(dialSocket(address));
      h.reactor.connect(fd, sockaddr, encodeSockaddr(sockaddr, address), 1);
      expect(h.wait(1)).toBe(-ECONNREFUSED);
    }),
  );

  test(
    "a cancelled accept is -ECANCELED and the next one works",
    withHarness(open, (h) => {
      const listener = listenTcp("127.0.0.1", 0);
      h.own(listener.fd);
      h.reactor.accept(listener.fd, 1);
      h.reactor.run(0, h.handler);
      h.reactor.cancel(1);
      expect(h.wait(1)).toBe(-ECANCELED);
      const address = { host: "127.0.0.1", port: listener.port };
      const sockaddr = h.buffer(SOCKADDR_BYTES).address;
      const fd = h.own(dialSocket(address));
      h.reactor.accept(listener.fd, 2);
      h.reactor.connect(fd, sockaddr, encodeSockaddr(sockaddr, address), 3);
      expect(h.wait(3)).toBe(0);
      h.own(h.wait(2));
    }),
  );

  test(
    "a receive cancelled before it was ever tried is -ECANCELED",
    withHarness(open, (h) => {
      const [, right] = h.pair();
      h.reactor.recv(right, h.buffer(10).address, 10, true, 1);
      h.reactor.cancel(1);
      expect(h.wait(1)).toBe(-ECANCELED);
    }),
  );

  test(
    "a cancelled waitAll says how much it got",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      h.reactor.recv(right, h.buffer(1000).address, 1000, true, 1);
      h.reactor.sendmsg(left, h.iovecs([{ address: h.buffer(300).address, lengthBytes: 300 }]), 1, 2);
      expect(h.wait(2)).toBe(300);
      h.reactor.run(20, h.handler);
      h.reactor.cancel(1);
      expect(h.wait(1)).toBe(300);
    }),
  );

  test(
    "cancelling one of many receives leaves the others",
    withHarness(open, (h) => {
      const pairs = [0, 1, 2].map(() => h.pair());
      for (const [index, [, right]] of pairs.entries()) h.reactor.recv(right, h.buffer(4).address, 4, true, index);
      h.reactor.run(0, h.handler);
      h.reactor.cancel(1);
      expect(h.wait(1)).toBe(-ECANCELED);
      for (const index of [0, 2]) {
        h.reactor.sendmsg(
          pairs[index]![0],
          h.iovecs([{ address: h.buffer(4).address, lengthBytes: 4 }]),
          1,
          10 + index,
        );
        expect(h.wait(index)).toBe(4);
        expect(h.wait(10 + index)).toBe(4);
      }
    }),
  );

  test(
    "cancelling what is not in flight does nothing",
    withHarness(open, (h) => {
      h.reactor.cancel(77);
      expect(h.reactor.run(10, h.handler)).toBe(0);
    }),
  );

  test(
    "a send that does not fit waits for the receiver and arrives whole",
    withHarness(
      open,
      (h) => {
        const [left, right] = h.pair();
        const totalBytes = 12 << 20;
        const out = h.buffer(totalBytes);
        const into = h.buffer(totalBytes);
        fillPattern(out.bytes, 9);
        let sent = 0;
        let sends = 0;
        let received = -1;
        const sendRest = () =>
          h.reactor.sendmsg(left, h.iovecs([{ address: out.address + sent, lengthBytes: totalBytes - sent }]), 1, 1);
        sendRest();
        while (sent < totalBytes || received < 0) {
          h.reactor.run(1000, (token, result) => {
            if (token === 2) {
              received = result;
              return;
            }
            expect(result).toBeGreaterThan(0);
            sent += result;
            sends++;
            if (sends === 1) h.reactor.recv(right, into.address, totalBytes, true, 2);
            if (sent < totalBytes) sendRest();
          });
        }
        expect(sends).toBeGreaterThan(1);
        expect(received).toBe(totalBytes);
        expect(Buffer.compare(into.bytes, out.bytes)).toBe(0);
      },
      64,
      32 << 20,
    ),
  );

  test(
    "a descriptor's number that was closed and given out again works",
    withHarness(open, (h) => {
      for (let round = 0; round < 5; round++) {
        const [left, right] = h.pair();
        h.reactor.recv(right, h.buffer(4).address, 4, true, 1);
        h.reactor.run(0, h.handler);
        h.reactor.sendmsg(left, h.iovecs([{ address: h.buffer(4).address, lengthBytes: 4 }]), 1, 2);
        expect(h.wait(2)).toBe(4);
        expect(h.wait(1)).toBe(4);
        h.closeFd(left);
        h.closeFd(right);
      }
    }),
  );

  test(
    "IPv6 on loopback",
    withHarness(open, (h) => {
      const [left, right] = h.pair("::1");
      h.reactor.recv(right, h.buffer(4).address, 4, true, 1);
      h.reactor.sendmsg(left, h.iovecs([{ address: h.buffer(4).address, lengthBytes: 4 }]), 1, 2);
      expect([h.wait(1), h.wait(2)]).toEqual([4, 4]);
    }),
  );

  test(
    "a closed descriptor is -EBADF, a file -ENOTSOCK",
    withHarness(open, (h) => {
      h.reactor.recv(999, h.buffer(4).address, 4, false, 1);
      expect(h.wait(1)).toBe(-libc.Errno.EBADF);
      h.reactor.recv(h.file(0), h.buffer(4).address, 4, false, 2);
      expect(h.wait(2)).toBe(-libc.Errno.ENOTSOCK);
    }),
  );
});
