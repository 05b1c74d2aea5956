import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { ZeroRanges } from "../../src/disk/zero.ts";
import * as abi from "../../src/kernel/abi.ts";
import { Errno } from "../../src/kernel/libc.ts";
import type { Reactor } from "../../src/kernel/reactor.ts";
import type { RangeTable } from "../../src/torrent/types.ts";
import { rangesOf } from "./support.ts";

const MIB = 1024 * 1024;
const DIRECT_FD = 7;
const BUFFERED_FD = 8;

interface Call {
  readonly kind: "write" | "fallocate";
  readonly fd: number;
  readonly mode: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly token: number;
}

/** A reactor that only writes down what it is asked for; the test answers. */
class Recorder {
  readonly calls: Call[] = [];
  readonly all: Call[] = [];
  write(fd: number, _address: number, lengthBytes: number, offsetBytes: number, token: number): void {
    this.#add({ kind: "write", fd, mode: 0, offsetBytes, lengthBytes, token });
  }
  fallocate(fd: number, mode: number, offsetBytes: number, lengthBytes: number, token: number): void {
    this.#add({ kind: "fallocate", fd, mode, offsetBytes, lengthBytes, token });
  }
  #add(call: Call): void {
    this.calls.push(call);
    this.all.push(call);
  }
}

let recorder: Recorder;
let zeroes: ZeroRanges;
beforeEach(() => {
  recorder = new Recorder();
});
afterEach(() => zeroes.free());

function open(ranges: RangeTable, options: { pageBytes?: number; hasDirect?: boolean; skipBytes?: number } = {}): void {
  zeroes = new ZeroRanges({
    reactor: recorder as unknown as Reactor,
    files: { path: "/dev/none", directFd: DIRECT_FD, bufferedFd: BUFFERED_FD },
    ranges,
    pageBytes: 4096,
    hasDirect: true,
    skipBytes: 0,
    tokenOf: (slot) => slot + 40,
    ...options,
  });
}

/** Answers every call by `reply` until nothing is left to do. Never more than two are in flight. */
function answerAll(reply: (call: Call) => number): void {
  for (zeroes.pump(); recorder.calls.length > 0; zeroes.pump()) {
    expect(recorder.calls.length).toBeLessThanOrEqual(2);
    const call = recorder.calls.shift()!;
    zeroes.completed(call.token - 40, reply(call));
  }
}

const whole = (call: Call) => (call.kind === "write" ? call.lengthBytes : 0);

describe("zeroing", () => {
  test("nothing is finished at once", () => {
    open(rangesOf([]));
    expect([zeroes.finished, zeroes.idle, zeroes.totalBytes]).toEqual([true, true, 0]);
  });

  test("punches whole pages and writes the edges through the page cache", () => {
    open(
      rangesOf([
        [4000, 10000],
        [20000, 100],
      ]),
    );
    answerAll(whole);
    expect(recorder.all.map((call) => [call.kind, call.fd, call.offsetBytes, call.lengthBytes])).toEqual([
      ["write", BUFFERED_FD, 4000, 96],
      ["fallocate", BUFFERED_FD, 4096, 8192],
      ["write", BUFFERED_FD, 12288, 1712],
      ["write", BUFFERED_FD, 20000, 100],
    ]);
    expect(recorder.all[1].mode).toBe(abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_KEEP_SIZE);
    expect(zeroes.finished).toBe(true);
    expect(zeroes.doneBytes).toBe(10100);
  });

  test("large ranges go in chunks", () => {
    open(rangesOf([[0, 200 * MIB]]));
    answerAll(whole);
    expect(recorder.all.map((call) => call.lengthBytes / MIB)).toEqual([64, 64, 64, 8]);
  });

  test("leaves the head to its guard", () => {
    open(
      rangesOf([
        [0, 4096],
        [8192, 1000 * 1024],
      ]),
      { skipBytes: 131072 },
    );
    answerAll(whole);
    expect(recorder.all.map((call) => [call.offsetBytes, call.lengthBytes])).toEqual([
      [131072, 8192 + 1000 * 1024 - 131072],
    ]);
    expect(zeroes.totalBytes).toBe(8192 + 1000 * 1024 - 131072);
  });

  test("falls back to ZERO_RANGE, and then to writing zeros directly, each once for all that follows", () => {
    open(
      rangesOf([
        [0, 3 * MIB],
        [8 * MIB, MIB],
      ]),
    );
    answerAll((call) => (call.kind === "fallocate" ? -Errno.EOPNOTSUPP : call.lengthBytes));
    const tried = recorder.all
      .filter((call) => call.kind === "fallocate")
      .map((call) => call.mode & ~abi.FALLOC_FL_KEEP_SIZE);
    // Two were in flight when the first was refused.
    expect(tried.filter((mode) => mode === abi.FALLOC_FL_PUNCH_HOLE).length).toBeLessThanOrEqual(2);
    expect(tried).toContain(abi.FALLOC_FL_ZERO_RANGE);
    const writes = recorder.all.filter((call) => call.kind === "write");
    expect(writes.every((call) => call.fd === DIRECT_FD)).toBe(true);
    expect(writes.map((call) => call.offsetBytes / MIB).sort()).toEqual([0, 1, 2, 8]);
    expect(zeroes.finished).toBe(true);
  });

  test("writes through the page cache where direct IO is not to be had", () => {
    open(rangesOf([[0, MIB]]), { hasDirect: false });
    answerAll((call) => (call.kind === "fallocate" ? -Errno.EOPNOTSUPP : call.lengthBytes));
    expect(recorder.all.at(-1)?.fd).toBe(BUFFERED_FD);
  });

  test("goes on after a short write and repeats an interrupted call", () => {
    open(rangesOf([[0, MIB]]));
    let calls = 0;
    answerAll((call) => {
      calls++;
      if (call.kind === "fallocate") return calls === 1 ? -Errno.EINTR : -Errno.EOPNOTSUPP;
      return Math.min(call.lengthBytes, 700 * 512);
    });
    expect(zeroes.finished).toBe(true);
    const writes = recorder.all.filter((call) => call.kind === "write");
    expect(writes.map((call) => call.offsetBytes)).toEqual([0, 358400, 716800]);
  });

  for (const [name, result, text] of [
    ["an error", -Errno.EIO, "EIO"],
    ["no space", -Errno.ENOSPC, "free space"],
  ] as const) {
    test(`${name} is a fault that names device and offset`, () => {
      open(rangesOf([[8192, MIB]]));
      expect(() => answerAll(() => result)).toThrow(`zero /dev/none at byte 8192: `);
      expect(zeroes.idle).toBe(true);
      zeroes.free();
      open(rangesOf([[8192, MIB]]));
      expect(() => answerAll(() => result)).toThrow(text);
    });
  }

  test("a write of nothing is a fault", () => {
    open(rangesOf([[10, 20]]));
    expect(() => answerAll(() => 0)).toThrow("took no more bytes");
  });

  test("stops when it is told to", () => {
    open(rangesOf([[0, 500 * MIB]]));
    zeroes.pump();
    zeroes.stop();
    answerAll(whole);
    expect(recorder.all.length).toBe(2);
    expect([zeroes.idle, zeroes.finished]).toEqual([true, false]);
  });
});
