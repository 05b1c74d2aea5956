import { describe, expect, test } from "bun:test";
import { SEGMENT_BYTES_MAX, Segments } from "../../src/disk/segments.ts";
import { extentsOf, randomRuns, rangesOf, seeded } from "./support.ts";

const MEMORY = 4096 * 1000;
const SECTOR = { offsetBytes: 512, memoryBytes: 512 };
const PIECE_BYTES = 256 * 1024;

/** Every segment of a transfer, as [disk offset, length, direct]. */
function segmentsOf(segments: Segments, from: number, length: number): [number, number, boolean][] {
  const found: [number, number, boolean][] = [];
  for (let at = from; at < from + length; at += segments.lengthBytes) {
    segments.locate(at, from + length - at, MEMORY + at);
    found.push([segments.diskOffsetBytes, segments.lengthBytes, segments.direct]);
  }
  return found;
}

describe("where a transfer lies", () => {
  test("aligned extents all go direct, neighbours in one page too", () => {
    const extents = extentsOf([
      [512, 1024],
      [2048, 2048],
      [1024 * 1024, 8192],
    ]);
    const segments = new Segments({ extents, zeroRanges: null, pieceBytes: PIECE_BYTES, direct: SECTOR });
    expect(segments.pageBytes).toBe(512);
    expect(segmentsOf(segments, 0, extents.totalBytes)).toEqual([
      [512, 1024, true],
      [2048, 2048, true],
      [1024 * 1024, 8192, true],
    ]);
  });

  test("one odd extent makes shared pages buffered everywhere", () => {
    const extents = extentsOf([
      [512, 12288],
      [65536, 100],
    ]);
    const segments = new Segments({ extents, zeroRanges: null, pieceBytes: PIECE_BYTES, direct: SECTOR });
    expect(segmentsOf(segments, 0, 12388)).toEqual([
      [512, 3584, false],
      [4096, 8192, true],
      [12288, 512, false],
      [65536, 100, false],
    ]);
  });

  test("an odd zero range counts as well", () => {
    const extents = extentsOf([[0, 4608]]);
    const zeroRanges = rangesOf([[4608, 100]]);
    const segments = new Segments({ extents, zeroRanges, pieceBytes: PIECE_BYTES, direct: SECTOR });
    expect(segmentsOf(segments, 0, 4608)).toEqual([
      [0, 4096, true],
      [4096, 512, false],
    ]);
  });

  test("an extent behind an odd one has no aligned memory and goes buffered", () => {
    const extents = extentsOf([
      [0, 4097],
      [8192, 65536],
    ]);
    const segments = new Segments({ extents, zeroRanges: null, pieceBytes: PIECE_BYTES, direct: SECTOR });
    expect(segmentsOf(segments, 4097, 65536)).toEqual([[8192, 65536, false]]);
  });

  test("without direct IO and with pieces of an odd size everything goes buffered", () => {
    const extents = extentsOf([[0, 65536]]);
    expect(
      segmentsOf(new Segments({ extents, zeroRanges: null, pieceBytes: PIECE_BYTES, direct: null }), 0, 65536),
    ).toEqual([[0, 65536, false]]);
    const odd = new Segments({ extents, zeroRanges: null, pieceBytes: 30_000, direct: SECTOR });
    expect(segmentsOf(odd, 0, 65536)).toEqual([[0, 65536, false]]);
  });

  test("no segment is longer than a slab, and beyond 4 GiB offsets stay exact", () => {
    const far = 5 * 2 ** 40 + 512;
    const extents = extentsOf([[far, 3 * 1024 * 1024 + 512]]);
    const segments = new Segments({ extents, zeroRanges: null, pieceBytes: PIECE_BYTES, direct: SECTOR });
    expect(segmentsOf(segments, 0, extents.totalBytes).map(([offset, length]) => [offset - far, length])).toEqual([
      [0, SEGMENT_BYTES_MAX],
      [SEGMENT_BYTES_MAX, SEGMENT_BYTES_MAX],
      [2 * SEGMENT_BYTES_MAX, SEGMENT_BYTES_MAX],
      [3 * SEGMENT_BYTES_MAX, 512],
    ]);
  });

  test("an offset outside the payload is a bug", () => {
    const segments = new Segments({
      extents: extentsOf([[0, 100]]),
      zeroRanges: null,
      pieceBytes: PIECE_BYTES,
      direct: null,
    });
    expect(() => segments.locate(100, 1, MEMORY)).toThrow("inside the payload");
  });
});

for (const unit of [1, 512, 1024, 4096]) {
  for (const alignment of [SECTOR, { offsetBytes: 4096, memoryBytes: 512 }, { offsetBytes: 512, memoryBytes: 4 }]) {
    test(`no page goes both ways: extents of ${unit}-byte units, alignment ${alignment.offsetBytes}/${alignment.memoryBytes}`, () => {
      const random = seeded(unit * 31 + alignment.offsetBytes + alignment.memoryBytes);
      for (let round = 0; round < 20; round++) {
        const [data, zero] = randomRuns(random, 2 * 1024 * 1024, unit, 2);
        const extents = extentsOf(data);
        const segments = new Segments({
          extents,
          zeroRanges: rangesOf(zero),
          pieceBytes: PIECE_BYTES,
          direct: alignment,
        });
        const pages = new Map<number, boolean>();
        let covered = 0;
        for (let at = 0; at < extents.totalBytes; ) {
          const length = Math.min(16384 * (1 + random(70)), extents.totalBytes - at);
          for (const [offset, bytes, direct] of segmentsOf(segments, at, length)) {
            covered += bytes;
            if (direct) expect([offset % alignment.offsetBytes, bytes % alignment.offsetBytes]).toEqual([0, 0]);
            for (let page = Math.floor(offset / 4096); page * 4096 < offset + bytes; page++) {
              expect(pages.get(page) ?? direct).toBe(direct);
              pages.set(page, direct);
            }
          }
          at += length;
        }
        expect(covered).toBe(extents.totalBytes);
        if (segments.pageBytes === 4096) {
          // The pages that zeroing writes directly are none that an extent touches.
          for (const [start, length] of zero) {
            for (let page = Math.ceil(start / 4096); (page + 1) * 4096 <= start + length; page++)
              expect(pages.has(page)).toBe(false);
          }
        }
      }
    });
  }
}
