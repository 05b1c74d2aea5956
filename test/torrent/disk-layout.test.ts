/** How small a disk may be for an image, whether its sectors may be others, and the GPT that is written for it. */
import { describe, expect, test } from "bun:test";
import { gptScript } from "../../src/fit/rewrite-gpt.ts";
import { DROPPED_BYTES_MAX } from "../../src/limits.ts";
import { DiskLayout } from "../../src/torrent/disk-layout.ts";
import { makeExtentTable, NO_RANGES } from "../../src/torrent/extents.ts";
import type { ImageInfo, Metainfo } from "../../src/torrent/types.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 1024 * MIB;
const GUID = "11111111-2222-3333-4444-555555555555";

interface Entry {
  readonly start: number;
  readonly size: number;
  readonly [field: string]: unknown;
}

const ENTRIES: Entry[] = [
  { start: 2048, size: 2048 * 64, type: GUID, uuid: GUID, name: 'ä "b"\\x', attrs: "GUID:60" },
  { start: 2048 * 65, size: 2048 * 100, type: GUID, uuid: GUID },
];

function layoutOf(
  entries: readonly Entry[],
  image: Partial<ImageInfo> = {},
  table: Record<string, unknown> = {},
  extents: [number, number][] = [[0, MIB]],
): DiskLayout | null {
  const partitions = entries.map((entry, i) => ({ node: String(i + 1), ...entry }));
  const fields = { label: "gpt", id: GUID, unit: "sectors", firstlba: 34, sectorsize: 512, partitions, ...table };
  const info: ImageInfo = {
    version: 1,
    diskBytes: DISK_BYTES,
    sectorBytes: 512,
    kind: "disk",
    zeroRanges: NO_RANGES,
    partitions: JSON.stringify({ partitiontable: fields }),
    filesystems: ["ext4", "swap"],
    blockBytes: [4096, 0],
    ...image,
  };
  const offsets = Float64Array.from(extents, ([offset]) => offset);
  const lengths = Float64Array.from(extents, ([, length]) => length);
  return DiskLayout.of({ image: info, extents: makeExtentTable(offsets, lengths) } as Metainfo);
}

describe("the least disk", () => {
  test("holds the partitions and the backup of a GPT, in whole sectors", () => {
    expect(layoutOf(ENTRIES)!.leastBytes(512)).toBe(165 * MIB + 33 * 512);
    expect(layoutOf(ENTRIES)!.leastBytes(4096)).toBe(165 * MIB + 5 * 4096);
    expect(layoutOf(ENTRIES, {}, { "table-length": "256" })!.leastBytes(512)).toBe(165 * MIB + 65 * 512);
    expect(layoutOf(ENTRIES, {}, { label: "dos" })!.leastBytes(512)).toBe(165 * MIB);
  });

  test("an extended partition counts to its end", () => {
    const mbr = [...ENTRIES, { start: 2048 * 200, size: 2048 * 50, type: "f" }];
    expect(layoutOf(mbr, {}, { label: "dos" })!.leastBytes(512)).toBe(250 * MIB);
  });

  test("drops what lies behind, up to a megabyte of it", () => {
    const behind: [number, number][] = [
      [0, MIB],
      [500 * MIB, 4096],
      [DISK_BYTES - DROPPED_BYTES_MAX + 4096, DROPPED_BYTES_MAX - 4096],
    ];
    expect(layoutOf(ENTRIES, {}, {}, behind)!.leastBytes(512)).toBe(165 * MIB + 33 * 512);
    expect(layoutOf(ENTRIES, {}, {}, behind)!.leastReason(512)).toBe(`its last partition ends at byte ${165 * MIB}`);
    behind[1][1] = 8192;
    const full = layoutOf(ENTRIES, {}, {}, behind)!;
    expect(full.leastBytes(512)).toBe(500 * MIB + 4096);
    expect(full.leastReason(512)).toContain("it holds data");
  });

  test("is not known without partitions, or with those that cannot be", () => {
    expect(layoutOf(ENTRIES, { partitions: undefined })).toBeNull();
    expect(layoutOf(ENTRIES, { partitions: "{" })).toBeNull();
    expect(layoutOf([])).toBeNull();
    expect(layoutOf([ENTRIES[0], ENTRIES[0]])).toBeNull();
    expect(layoutOf(ENTRIES, { diskBytes: 100 * MIB })).toBeNull();
  });
});

describe("other sectors", () => {
  test("are possible where partitions and filesystems allow it", () => {
    expect(layoutOf(ENTRIES)!.conversionProblem(4096)).toBeNull();
    const inFours = ENTRIES.map((entry) => ({ ...entry, start: entry.start / 8, size: entry.size / 8 }));
    const fine = { sectorBytes: 4096, filesystems: ["vfat", "crypto_LUKS"], blockBytes: [4096, 0] };
    expect(layoutOf(inFours, fine, { sectorsize: 4096 })!.conversionProblem(512)).toBeNull();
    expect(layoutOf(ENTRIES, { filesystems: ["", "swap"] }, {}, [[0, MIB]])!.conversionProblem(4096)).toBeNull();
  });

  const PROBLEMS: [Entry[], Partial<ImageInfo>, Record<string, unknown>, RegExp][] = [
    [ENTRIES, {}, { label: "dos" }, /MBR/],
    [[{ ...ENTRIES[0], start: 2047 }], {}, {}, /partition 1 begins or ends inside a sector of 4096 bytes/],
    [[{ ...ENTRIES[0], size: 9 }], {}, {}, /partition 1 begins or ends inside/],
    [[{ ...ENTRIES[0], start: 40 }], {}, {}, /partition 1 begins where the larger table would be/],
    [ENTRIES, { blockBytes: [512, 0] }, {}, /partition 1 holds ext4 in blocks of 512 bytes/],
    [ENTRIES, { blockBytes: undefined }, {}, /partition 1 holds ext4, which may count in sectors of 512 bytes/],
    [ENTRIES, { filesystems: ["ext4", "exfat"] }, {}, /partition 2 holds exfat, which Windows/],
    [ENTRIES, { filesystems: undefined, blockBytes: undefined }, {}, /partition 1 holds something unknown/],
  ];
  for (const [entries, image, table, problem] of PROBLEMS)
    test(`are refused: ${problem.source}`, () => {
      const extents: [number, number][] = [[0, 2 * MIB]];
      expect(layoutOf(entries, image, table, extents)!.conversionProblem(4096)).toMatch(problem);
    });
});

describe("the GPT that is written", () => {
  test("has the image's identifiers, names and attributes, and its own sectors", () => {
    expect(gptScript(layoutOf(ENTRIES)!, 4096).split("\n")).toEqual([
      "label: gpt",
      `label-id: ${GUID}`,
      "unit: sectors",
      "table-length: 128",
      "first-lba: 34",
      `1 : start=256, size=16384, type=${GUID}, uuid=${GUID}, name="\\xc3\\xa4 \\x22b\\x22\\x5cx", attrs="GUID:60"`,
      `2 : start=16640, size=25600, type=${GUID}, uuid=${GUID}`,
      "",
    ]);
    expect(gptScript(layoutOf(ENTRIES, {}, { firstlba: 2048 })!, 4096)).toContain("first-lba: 256\n");
    expect(gptScript(layoutOf(ENTRIES, {}, { firstlba: 0 })!, 4096)).toContain("first-lba: 6\n");
  });

  test("takes nothing from a torrent that is not what it should be", () => {
    const bad: [Entry, Record<string, unknown>][] = [
      [{ ...ENTRIES[0], uuid: "x\nlabel: dos" }, {}],
      [{ ...ENTRIES[0], type: "" }, {}],
      [{ ...ENTRIES[0], attrs: 'a", start=0' }, {}],
      [ENTRIES[0], { id: "0x1234" }],
    ];
    for (const [entry, table] of bad) expect(layoutOf([entry], {}, table)).toBeNull();
  });
});
