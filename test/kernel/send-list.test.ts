import { describe, expect, test } from "bun:test";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { SendList, sendListMemoryBytes } from "../../src/kernel/send-list.ts";
import { BACKENDS, fillPattern, type Harness, withHarness } from "./harness.ts";

const { ECANCELED, ECONNRESET, ENODATA, EPIPE } = libc.Errno;
const KiB = 1024;
const CAPACITY = 8;

function listOf(h: Harness): SendList {
  return new SendList(h.buffer(sendListMemoryBytes(CAPACITY)).address, CAPACITY);
}

/** A file of these bytes, written through the page cache. */
function fileOf(h: Harness, bytes: Uint8Array, address: number): number {
  const fd = h.file(0);
  expect(libc.pwrite(fd, address, bytes.length, 0)).toBe(bytes.length);
  return fd;
}

/** Receives so many bytes into a buffer of the harness, in parts that leave the sender waiting in between. */
function receive(h: Harness, fd: number, lengthBytes: number): Uint8Array {
  const into = h.buffer(lengthBytes);
  for (let done = 0; done < lengthBytes; ) {
    const token = h.token();
    h.reactor.recv(fd, into.address + done, Math.min(100_000, lengthBytes - done), false, token);
    const result = h.wait(token);
    expect(result).toBeGreaterThan(0);
    done += result;
  }
  return into.bytes;
}

describe.each(BACKENDS)("lists on %s", (_name, open) => {
  test(
    "memory and ranges of a file arrive in order",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const content = h.buffer(100_000);
      fillPattern(content.bytes, 5);
      const fd = fileOf(h, content.bytes, content.address);
      const head = h.buffer(13);
      fillPattern(head.bytes, 6);
      const list = listOf(h);
      list.addMemory(head.address, 13);
      list.addFile(fd, 4096, 16 * KiB);
      list.addMemory(head.address, 5);
      list.addMemory(head.address + 5, 8);
      list.addFile(fd, 7, 50_001);
      list.addFile(fd, 99_999, 1);
      list.addMemory(head.address, 1);
      h.reactor.sendList(left, list, 1);
      const { bytes } = content;
      const expected = Buffer.concat([
        head.bytes,
        bytes.subarray(4096, 4096 + 16 * KiB),
        head.bytes,
        bytes.subarray(7, 7 + 50_001),
        bytes.subarray(99_999),
        head.bytes.subarray(0, 1),
      ]);
      expect(Buffer.compare(receive(h, right, expected.length), expected)).toBe(0);
      expect(h.wait(1)).toBe(1);
      expect(list.count).toBe(0);
    }),
  );

  test(
    "more than the socket takes goes on when the other end reads",
    withHarness(
      open,
      (h) => {
        const [left, right] = h.pair();
        const lengthBytes = 12 << 20;
        const content = h.buffer(lengthBytes);
        fillPattern(content.bytes, 9);
        const fd = fileOf(h, content.bytes, content.address);
        const list = listOf(h);
        list.addMemory(content.address, 13);
        list.addFile(fd, 0, lengthBytes);
        h.reactor.sendList(left, list, 1);
        // It waits for the reader, and meanwhile others are served.
        h.reactor.run(20, h.handler);
        expect(h.results.has(1)).toBe(false);
        const received = receive(h, right, 13 + lengthBytes);
        expect(h.wait(1)).toBe(1);
        expect(Buffer.compare(received.subarray(0, 13), content.bytes.subarray(0, 13))).toBe(0);
        expect(Buffer.compare(received.subarray(13), content.bytes)).toBe(0);
      },
      64,
      26 << 20,
    ),
  );

  test(
    "a file that ends too early is the file's fault",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const content = h.buffer(10_000);
      const fd = fileOf(h, content.bytes, content.address);
      const list = listOf(h);
      list.addFile(fd, 4000, 10_000);
      h.reactor.sendList(left, list, 1);
      receive(h, right, 6000);
      expect(h.wait(1)).toBe(-ENODATA);
      expect(list.fileFault).toBe(true);
      expect(list.fileOffsetBytes).toBe(10_000);
    }),
  );

  test(
    "the other end being gone is the socket's fault and no signal",
    withHarness(open, (h) => {
      const [left, right] = h.pair();
      const content = h.buffer(64 * KiB);
      const fd = fileOf(h, content.bytes, content.address);
      expect(libc.setsockoptReset(right)).toBe(0);
      h.closeFd(right);
      for (const expected of [ECONNRESET, EPIPE]) {
        const list = listOf(h);
        list.addFile(fd, 0, 64 * KiB);
        h.reactor.sendList(left, list, 1);
        expect(h.wait(1)).toBe(-expected);
        expect(list.fileFault).toBe(false);
      }
    }),
  );

  test(
    "a list that waits is ended by cancel, and by shutdown",
    withHarness(open, (h) => {
      const endings = [() => h.reactor.cancel(1), (fd: number) => void libc.shutdown(fd, abi.SHUT_RDWR)];
      for (const [index, end] of endings.entries()) {
        const [left] = h.pair();
        const fd = h.file(64 << 20);
        const list = listOf(h);
        list.addFile(fd, 0, 64 << 20);
        h.reactor.sendList(left, list, 1);
        h.reactor.run(20, h.handler);
        expect(h.results.has(1)).toBe(false);
        end(left);
        expect(h.wait(1)).toBe(index === 0 ? -ECANCELED : -EPIPE);
      }
      // One that was not tried yet.
      const [left] = h.pair();
      const list = listOf(h);
      list.addFile(h.file(1000), 0, 1000);
      h.reactor.sendList(left, list, 2);
      h.reactor.cancel(2);
      expect(h.wait(2)).toBe(-ECANCELED);
    }),
  );
});

test("parts that were added can be taken off again", () => {
  withHarness(BACKENDS[0]![1], (h) => {
    const list = listOf(h);
    list.addMemory(h.buffer(10).address, 10);
    list.addFile(0, 0, 10);
    expect([list.count, list.room, list.hasFile]).toEqual([2, CAPACITY - 2, true]);
    list.truncate(1);
    expect([list.count, list.hasFile]).toEqual([1, false]);
    list.advance(4);
    expect(list.count).toBe(1);
    list.advance(6);
    expect(list.count).toBe(0);
  })();
});
