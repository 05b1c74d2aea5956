/** Reading ahead over a reactor that completes reads as a test wants: out of order, short, failing. */
import { describe, expect, test } from "bun:test";
import { DiskFault } from "../../src/errors.ts";
import { Errno } from "../../src/kernel/libc.ts";
import type { Reactor } from "../../src/kernel/reactor.ts";
import { RangeList } from "../../src/image/range-list.ts";
import { ReadAhead, READS_MAX, type ReadSource } from "../../src/image/read-ahead.ts";

const SLAB = 256 * 1024;
const FIRST_TOKEN = 10;
const SOURCE: ReadSource = { path: "/dev/test", sizeBytes: 1 << 30, bufferedFd: 3, directFd: 4 };

interface Submitted {
  readonly fd: number;
  readonly address: number;
  readonly lengthBytes: number;
  readonly offsetBytes: number;
  readonly slab: number;
}

function setUp(ranges: readonly [number, number][], slabCount: number, source = SOURCE) {
  const submitted: Submitted[] = [];
  const reactor = {
    read(fd: number, address: number, lengthBytes: number, offsetBytes: number, token: number) {
      submitted.push({ fd, address, lengthBytes, offsetBytes, slab: token - FIRST_TOKEN });
    },
  } as unknown as Reactor;
  const list = new RangeList();
  for (const [offset, length] of ranges) list.push(offset, length);
  const reads = new ReadAhead(
    reactor,
    source,
    list,
    { address: 1 << 20, slabBytes: SLAB, count: slabCount },
    FIRST_TOKEN,
  );
  reads.pump();
  return { reads, submitted };
}

describe("read ahead", () => {
  test("slabs come out in disk order, whatever the order of completion", () => {
    const { reads, submitted } = setUp([[0, 3 * SLAB]], 8);
    expect(submitted.map(({ offsetBytes }) => offsetBytes)).toEqual([0, SLAB, 2 * SLAB]);
    reads.completed(submitted[2].slab, SLAB);
    reads.completed(submitted[1].slab, SLAB);
    expect(reads.take()).toBe(-1);
    reads.completed(submitted[0].slab, SLAB);
    expect([reads.take(), reads.take(), reads.take()].map((slab) => reads.diskOffset(slab))).toEqual([
      0,
      SLAB,
      2 * SLAB,
    ]);
    expect(reads.ended).toBe(true);
    expect(reads.bytesTaken).toBe(3 * SLAB);
  });

  test("no more reads than slabs, and a slab is free only when nobody holds it", () => {
    const { reads, submitted } = setUp([[0, 10 * SLAB]], 2);
    expect(submitted).toHaveLength(2);
    reads.completed(submitted[0].slab, SLAB);
    const slab = reads.take();
    reads.hold(slab);
    reads.release(slab);
    reads.pump();
    expect(submitted).toHaveLength(2);
    reads.release(slab);
    reads.pump();
    expect(submitted).toHaveLength(3);
    expect(() => reads.release(7)).toThrow();
  });

  test("reads in flight are bounded", () => {
    expect(setUp([[0, 1000 * SLAB]], 500).submitted).toHaveLength(READS_MAX);
  });

  test("a short read is continued, an interrupted one repeated", () => {
    const { reads, submitted } = setUp([[8192, 12288]], 1);
    reads.completed(0, 4096);
    reads.completed(0, -Errno.EINTR);
    reads.completed(0, 100);
    reads.completed(0, 8192 - 100);
    const rest = submitted.map(({ fd, offsetBytes, lengthBytes }) => [fd, offsetBytes, lengthBytes]);
    expect(rest).toEqual([
      [4, 8192, 12288],
      [4, 12288, 8192],
      [4, 12288, 8192],
      // Where O_DIRECT stopped inside of a sector the page cache goes on.
      [3, 12388, 8092],
    ]);
    expect(reads.lengthBytes(reads.take())).toBe(12288);
  });

  test("an odd end is read as a whole block, an odd start through the page cache", () => {
    const end = setUp([[4096, 5000]], 1);
    expect(end.submitted[0]).toMatchObject({ fd: 4, lengthBytes: 8192 });
    end.reads.completed(0, 8192);
    expect(end.reads.lengthBytes(end.reads.take())).toBe(5000);
    expect(setUp([[512, 5000]], 1).submitted[0]).toMatchObject({ fd: 3, lengthBytes: 5000 });
  });

  test("where O_DIRECT is refused all goes through the page cache", () => {
    const { reads, submitted } = setUp([[0, 2 * SLAB]], 1);
    reads.completed(0, -Errno.EINVAL);
    expect(submitted[1]).toMatchObject({ fd: 3, offsetBytes: 0 });
    reads.completed(0, SLAB);
    reads.release(reads.take());
    reads.pump();
    expect(submitted[2]).toMatchObject({ fd: 3, offsetBytes: SLAB });
  });

  test("an error names device, offset and errno; the end of the source is one", () => {
    for (const [result, text] of [
      [-Errno.EIO, "EIO"],
      [0, "shrank"],
    ] as const) {
      const { reads } = setUp([[SLAB, SLAB]], 1);
      reads.completed(0, 4096);
      let fault: unknown;
      try {
        reads.completed(0, result);
      } catch (error) {
        fault = error;
      }
      expect(fault).toBeInstanceOf(DiskFault);
      expect(fault).toMatchObject({ device: "/dev/test", offsetBytes: SLAB + 4096, errno: -result || 0 });
      expect((fault as DiskFault).message).toContain(text);
    }
  });
});
