/** sfdisk's JSON as a torrent or a tool may give it, the disk cut along it, and the table of what was taken. */
import { describe, expect, test } from "bun:test";
import { areaRows } from "../../src/image/area-table.ts";
import { areasOf, portableTable } from "../../src/image/partition-table.ts";
import { makeRangeTable } from "../../src/torrent/extents.ts";
import { parsePartitionTable, type PartitionTable, tableProblem } from "../../src/torrent/partition-table.ts";
import type { ImageInfo } from "../../src/torrent/types.ts";

const DISK_BYTES = 1000 * 512;

interface Entry {
  readonly node: string;
  readonly start: number;
  readonly size: number;
  readonly type: string;
}

const MBR: Entry[] = [
  { node: "/dev/sda1", start: 100, size: 100, type: "7" },
  { node: "/dev/sda2", start: 300, size: 500, type: "f" },
  { node: "/dev/sda5", start: 310, size: 90, type: "83" },
  { node: "/dev/sda6", start: 410, size: 390, type: "82" },
];

function json(partitions: readonly unknown[], fields: Record<string, unknown> = {}): string {
  return JSON.stringify({
    partitiontable: { label: "dos", device: "/dev/sda", unit: "sectors", sectorsize: 512, partitions, ...fields },
  });
}

function read(partitions: readonly unknown[], label = "dos"): PartitionTable {
  const table = parsePartitionTable(json(partitions, { label }), 512);
  if (typeof table === "string") throw new Error(table);
  return table;
}

describe("a partition table", () => {
  test("cuts a disk into partitions and what lies around them; an extended one is a frame", () => {
    const table = read(MBR);
    expect(tableProblem(table, DISK_BYTES)).toBeNull();
    const areas = areasOf(table, DISK_BYTES);
    expect(areas.map(({ name, partition }) => [name, partition])).toEqual([
      ["before partition 1", -1],
      ["partition 1", 0],
      ["between 1 and 5", -1],
      ["partition 5", 2],
      ["between 5 and 6", -1],
      ["partition 6", 3],
      ["after partition 6", -1],
    ]);
    let endBytes = 0;
    for (const { offsetBytes, lengthBytes } of areas) {
      expect(offsetBytes).toBe(endBytes);
      endBytes += lengthBytes;
    }
    expect(endBytes).toBe(DISK_BYTES);
  });

  test("of a GPT tells what it is rewritten from", () => {
    const entry = { node: "/dev/sda3", start: 34, size: 1, type: "T", uuid: "U", name: 'a"b', attrs: "GUID:60" };
    const fields = { label: "gpt", id: "D", firstlba: 34, lastlba: 99, "table-length": "64" };
    expect(parsePartitionTable(json([entry], fields), 512)).toEqual({
      label: "gpt",
      id: "D",
      entriesMax: 64,
      firstSector: 34,
      lastSector: 99,
      partitions: [
        {
          number: 3,
          startBytes: 34 * 512,
          lengthBytes: 512,
          isExtended: false,
          type: "T",
          uuid: "U",
          name: 'a"b',
          attributes: "GUID:60",
        },
      ],
    });
    expect(read(MBR)).toMatchObject({ id: "", entriesMax: 128, firstSector: 0, lastSector: 0 });
  });

  test("in another order than the disk's keeps the numbers of its partitions", () => {
    const areas = areasOf(read([MBR[2], MBR[0]]), DISK_BYTES);
    expect(areas.filter(({ partition }) => partition >= 0).map(({ partition }) => partition)).toEqual([1, 0]);
  });

  test("that is empty, or none, leaves the disk in one part", () => {
    for (const table of [null, read([])]) expect(areasOf(table, DISK_BYTES)).toHaveLength(1);
  });

  test("with partitions that overlap or end beyond the disk is named", () => {
    expect(tableProblem(read([MBR[0], { ...MBR[1], start: 199 }]), DISK_BYTES)).toBe("2 overlaps 1");
    expect(tableProblem(read([...MBR.slice(0, 3), { ...MBR[3], start: 399 }]), DISK_BYTES)).toBe("6 overlaps 5");
    expect(tableProblem(read([MBR[0], { ...MBR[1], size: 701 }]), DISK_BYTES)).toBe("2 ends beyond the disk");
    expect(tableProblem(read([MBR[0], { ...MBR[1], start: 199, type: "x" }], "gpt"), DISK_BYTES)).toBe("2 overlaps 1");
  });

  const WRONG: Record<string, string> = {
    nothing: "",
    "no JSON": "{",
    null: "null",
    "another document": '{"a":1}',
    "a table that is text": '{"partitiontable":"x"}',
    "another unit": json(MBR, { unit: "cylinders" }),
    "sectors of another size": json(MBR, { sectorsize: 4096 }),
    "partitions that are no list": json([], { partitions: { length: 1 } }),
    "a partition that is null": json([null]),
    "a node without number": json([{ ...MBR[0], node: "/dev/sda" }]),
    "a negative start": json([{ ...MBR[0], start: -1 }]),
    "a broken size": json([{ ...MBR[0], size: 1.5 }]),
    "an empty partition": json([{ ...MBR[0], size: 0 }]),
    "a size beyond 2^53": json([{ ...MBR[0], size: 2 ** 50 }]),
    "room for no partition": json(MBR, { "table-length": "0" }),
    "room for a million partitions": json(MBR, { "table-length": "1000000" }),
    "too many partitions": json(Array.from({ length: 257 }, (_, i) => ({ ...MBR[0], node: `/dev/sda${i + 1}` }))),
  };
  for (const [name, text] of Object.entries(WRONG))
    test(`of ${name} is refused`, () => expect(typeof parsePartitionTable(text, 512)).toBe("string"));

  test("in a torrent does not name the disk it was read from", () => {
    const onSda = portableTable(json(MBR));
    const onNvme = json(
      MBR.map((entry) => ({ ...entry, node: entry.node.replace("sda", "nvme0n1p") })),
      { device: "/dev/nvme0n1" },
    );
    expect(portableTable(onNvme)).toBe(onSda);
    expect(onSda).not.toContain("sda");
    expect(parsePartitionTable(onSda, 512)).toEqual(read(MBR));
  });
});

describe("the table of what was taken", () => {
  const image: ImageInfo = {
    version: 1,
    diskBytes: DISK_BYTES,
    sectorBytes: 512,
    kind: "disk",
    // Sectors 0 to 10 and 150 to 320 are sent, 200 to 300 of them being no partition; 10 to 100 and 350 to 800 are zeros.
    zeroRanges: makeRangeTable(Float64Array.of(10 * 512, 350 * 512), Float64Array.of(90 * 512, 450 * 512)),
    partitions: json(MBR),
    filesystems: ["ntfs", "", "LVM2_member", "swap"],
  };
  const extents = makeRangeTable(Float64Array.of(0, 150 * 512), Float64Array.of(10 * 512, 170 * 512));

  test("counts sectors by part", () => {
    const rows = areaRows(image, extents).map(({ name, filesystem, sentBytes, zeroBytes, unusedBytes }) => [
      name,
      filesystem,
      sentBytes / 512,
      zeroBytes / 512,
      unusedBytes / 512,
    ]);
    expect(rows).toEqual([
      ["before partition 1", "", 10, 90, 0],
      ["partition 1", "ntfs", 50, 0, 50],
      ["between 1 and 5", "", 110, 0, 0],
      ["partition 5", "LVM2_member", 10, 50, 30],
      ["between 5 and 6", "", 0, 10, 0],
      ["partition 6", "swap", 0, 390, 0],
      ["after partition 6", "", 0, 0, 200],
    ]);
  });

  test("says why", () => {
    const whys = areaRows(image, extents).map(({ why }) => why);
    expect(whys[0]).toBe("boot code and partition table");
    expect(whys[1]).toContain("partclone");
  });

  test("is empty where nobody looked, or where a torrent's table makes no sense", () => {
    expect(areaRows({ ...image, filesystems: undefined }, extents)).toEqual([]);
    expect(areaRows({ ...image, partitions: "{}" }, extents)).toEqual([]);
    expect(areaRows({ ...image, partitions: json([MBR[0], MBR[0]]) }, extents)).toEqual([]);
  });

  test("shows no type that is not a word", () => {
    const rows = areaRows({ ...image, filesystems: ["\x1b[2J", "a b"] }, extents);
    expect(rows.map(({ filesystem }) => filesystem).join("")).toBe("");
  });
});
