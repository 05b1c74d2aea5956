import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "bun:test";
import { PageSource, SEGMENTS_MAX } from "../../src/disk/page-source.ts";
import { Segments } from "../../src/disk/segments.ts";
import * as abi from "../../src/kernel/abi.ts";
import * as libc from "../../src/kernel/libc.ts";
import { mapMemory } from "../../src/kernel/memory.ts";
import { SendList, sendListMemoryBytes } from "../../src/kernel/send-list.ts";
import { makeExtentTable } from "../../src/torrent/extents.ts";
import { MiB } from "../../src/units.ts";

const FILE_BYTES = 4 * MiB;

/** A file with all of it in the page cache, and a way to throw its pages out. */
function withFile(body: (fd: number, evict: () => void) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "pages-"));
  const path = join(folder, "file");
  writeFileSync(path, new Uint8Array(FILE_BYTES).fill(1));
  const fd = libc.open(path, abi.O_RDONLY);
  try {
    body(fd, () => {
      expect(libc.fdatasync(fd)).toBe(0);
      expect(libc.fadvise(fd, 0, FILE_BYTES, abi.POSIX_FADV_DONTNEED)).toBe(0);
    });
  } finally {
    libc.close(fd);
    rmSync(folder, { recursive: true });
  }
}

function pagesOf(fd: number, offsets: number[], lengths: number[]): PageSource {
  const extents = makeExtentTable(Float64Array.from(offsets), Float64Array.from(lengths), offsets.length);
  return new PageSource(fd, new Segments({ extents, zeroRanges: null, pieceBytes: MiB, direct: null }));
}

/** Whether the kernel tells, and whether pages of the temporary directory can be thrown out at all. */
let tells = false;
let evicts = false;
withFile((fd, evict) => {
  tells = libc.cachedPages(fd, 0, FILE_BYTES) === FILE_BYTES / abi.PAGE_BYTES;
  evict();
  evicts = tells && libc.cachedPages(fd, 0, FILE_BYTES) === 0;
});

test.skipIf(!tells)("what lies in the page cache is held and sent by its place on the disk", () => {
  withFile((fd) => {
    const pages = pagesOf(fd, [512, 2 * MiB + 100], [MiB, 5000]);
    expect(pages.holds(0, MiB)).toBe(true);
    expect(pages.holds(MiB - 10, 20)).toBe(true);
    const memory = mapMemory(sendListMemoryBytes(SEGMENTS_MAX));
    const list = new SendList(memory.address, SEGMENTS_MAX);
    pages.addTo(list, MiB - 10, 20);
    expect(list.count).toBe(2);
    expect(list.fileOffsetBytes).toBe(512 + MiB - 10);
    list.advance(10);
    expect(list.fileOffsetBytes).toBe(2 * MiB + 100);
    memory.free();
  });
});

test.skipIf(!evicts)("what was thrown out is not held, once it is looked for again", () => {
  withFile((fd, evict) => {
    const pages = pagesOf(fd, [0], [FILE_BYTES]);
    expect(pages.holds(MiB, MiB)).toBe(true);
    evict();
    expect(pages.holds(MiB, MiB)).toBe(true);
    pages.forget();
    expect(pages.holds(MiB, MiB)).toBe(false);
    const memory = mapMemory(abi.PAGE_BYTES);
    expect(libc.pread(fd, memory.address, abi.PAGE_BYTES, MiB)).toBe(abi.PAGE_BYTES);
    memory.free();
    pages.forget();
    expect(pages.holds(MiB, abi.PAGE_BYTES)).toBe(true);
  });
});

test.skipIf(!tells)("a range scattered over many extents is not worth it", () => {
  withFile((fd) => {
    const offsets = Array.from({ length: 40 }, (_, index) => index * 8192);
    const pages = pagesOf(
      fd,
      offsets,
      offsets.map(() => 512),
    );
    expect(pages.holds(0, 512 * SEGMENTS_MAX)).toBe(true);
    expect(pages.holds(0, 512 * (SEGMENTS_MAX + 1))).toBe(false);
  });
});

test("a file system that cannot tell holds nothing", () => {
  const fd = libc.open("/proc/self/maps", abi.O_RDONLY);
  try {
    expect(pagesOf(fd, [0], [MiB]).holds(0, 4096)).toBe(false);
  } finally {
    libc.close(fd);
  }
});
