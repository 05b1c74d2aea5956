import { expect, test } from "bun:test";
import { patternOf, type Request, requestsOf } from "./block-trace.ts";

const MIB = 1024 * 1024;

/** As the kernel prints them, with a flush, a discard, a read, and another device's write in between. */
const TRACE = `# entries-in-buffer/entries-written: 6/6   #P:2
              dd-314   [000] .....  1456.426636: block_rq_issue: 7,0 WS 524288 () 0 + 1024 be,0,4 [dd]
   kworker/u8:1-77    [001] .....  1456.426700: block_rq_issue: 7,16 W 4096 () 0 + 8 none,0,0 [kworker/u8:1]
              dd-314   [000] .N...  1456.427462: block_rq_issue: 7,0 WFS 524288 () 1024 + 1024 be,0,4 [dd]
              dd-314   [000] .N...  1456.427470: block_rq_issue: 7,0 FF 0 () 0 + 0 be,0,4 [dd]
              dd-314   [000] .....  1456.427900: block_rq_issue: 7,0 D 4096 () 64 + 8 be,0,4 [dd]
       ds worker-9     [000] .....  1456.427924: block_rq_issue: 7,0 RA 4096 () 8 + 8 be,0,4 [ds worker]
`;

test("a trace is read as what one device was given", () => {
  expect(requestsOf(TRACE, "7,0")).toEqual([
    { isWrite: true, offsetBytes: 0, lengthBytes: 524288 },
    { isWrite: true, offsetBytes: 524288, lengthBytes: 524288 },
    { isWrite: false, offsetBytes: 4096, lengthBytes: 4096 },
  ]);
  expect(requestsOf(TRACE, "7,16")).toHaveLength(1);
});

test("runs end where the next write is elsewhere, and at a read", () => {
  const write = (atMib: number, mib: number): Request => ({
    isWrite: true,
    offsetBytes: atMib * MIB,
    lengthBytes: mib * MIB,
  });
  const read: Request = { isWrite: false, offsetBytes: 0, lengthBytes: MIB };
  const pattern = patternOf([write(8, 2), write(10, 2), write(0, 3), read, write(3, 1)]);
  expect(pattern).toEqual({ writtenBytes: 8 * MIB, longRunShare: 0.5, runs: 3, reads: 1 });
  expect(patternOf([]).longRunShare).toBe(0);
});
