/** Byte-for-byte comparison of files and devices that says precisely where they part. */
import { closeSync, openSync, readSync } from "node:fs";
import { SECTOR_BYTES, readStamp, type Extent } from "./image.ts";

const CHUNK_BYTES = 4 * 1024 * 1024;

/** Compares [0, lengthBytes), or the given ranges, of two files or devices; fails at the first difference. */
export function expectSame(actualPath: string, expectedPath: string, ranges: Iterable<Extent>): void {
  const actualFd = openSync(actualPath, "r");
  const expectedFd = openSync(expectedPath, "r");
  const actual = Buffer.allocUnsafe(CHUNK_BYTES);
  const expected = Buffer.allocUnsafe(CHUNK_BYTES);
  try {
    for (const { offsetBytes, lengthBytes } of ranges) {
      for (let done = 0; done < lengthBytes; done += CHUNK_BYTES) {
        const length = Math.min(CHUNK_BYTES, lengthBytes - done);
        const at = offsetBytes + done;
        readExactly(actualFd, actualPath, actual, length, at);
        readExactly(expectedFd, expectedPath, expected, length, at);
        if (actual.compare(expected, 0, length, 0, length) === 0) continue;
        throw new Error(describeDifference(actualPath, expectedPath, actual, expected, at));
      }
    }
  } finally {
    closeSync(actualFd);
    closeSync(expectedFd);
  }
}

/** The whole of both, `lengthBytes` long. */
export function expectSameBytes(actualPath: string, expectedPath: string, lengthBytes: number): void {
  expectSame(actualPath, expectedPath, [{ offsetBytes: 0, lengthBytes }]);
}

/** What lies between ascending extents, up to `diskBytes`. */
export function gapsBetween(extents: readonly Extent[], diskBytes: number): Extent[] {
  const gaps: Extent[] = [];
  let end = 0;
  for (const extent of [...extents, { offsetBytes: diskBytes, lengthBytes: 0 }]) {
    if (extent.offsetBytes > end) gaps.push({ offsetBytes: end, lengthBytes: extent.offsetBytes - end });
    end = extent.offsetBytes + extent.lengthBytes;
  }
  return gaps;
}

function readExactly(fd: number, path: string, buffer: Buffer, lengthBytes: number, offsetBytes: number): void {
  for (let done = 0; done < lengthBytes; ) {
    const count = readSync(fd, buffer, done, lengthBytes - done, offsetBytes + done);
    if (count === 0) throw new Error(`${path} ends at byte ${offsetBytes + done}`);
    done += count;
  }
}

function describeDifference(
  actualPath: string,
  expectedPath: string,
  actual: Buffer,
  expected: Buffer,
  at: number,
): string {
  let index = 0;
  while (actual[index] === expected[index]) index++;
  const sector = index - (index % SECTOR_BYTES);
  const stamp = (buffer: Buffer) => {
    const found = readStamp(buffer.subarray(sector, sector + SECTOR_BYTES));
    if (found) return `the sector of byte ${found.offsetBytes}, seed ${found.seed}`;
    return `no stamped sector: ${buffer.toString("hex", sector, sector + 16)}`;
  };
  return (
    `${actualPath} differs from ${expectedPath} first at byte ${at + index} (sector at ${at + sector}): ` +
    `found ${stamp(actual)}; expected ${stamp(expected)}`
  );
}
