/** LVM's report of a physical volume: which volumes lie in one run, and that nothing else passes for one. */
import { describe, expect, test } from "bun:test";
import { parseVolumes } from "../../src/image/lvm.ts";

const MIB = 1024 * 1024;
const DEVICE_BYTES = 300 * MIB;

type Row = Record<string, string>;

/** A segment of a volume of `lvExtents` extents of 4 MiB: `count` of them at extent `at`, from the volume's `start`. */
function row(name: string, at: number, count: number, start: number, lvExtents: number, other: Row = {}): Row {
  return {
    pe_start: String(MIB),
    vg_extent_size: String(4 * MIB),
    lv_name: name,
    lv_attr: "-wi-XX----",
    lv_size: String(lvExtents * 4 * MIB),
    segtype: "linear",
    pvseg_start: String(at),
    pvseg_size: String(count),
    seg_start_pe: String(start),
    ...other,
  };
}

const FREE = row("", 50, 5, 0, 0, { segtype: "free", lv_attr: "" });

function volumes(...rows: Row[]): unknown {
  const parsed = parseVolumes(JSON.stringify({ report: [{ pvseg: rows }] }), DEVICE_BYTES);
  return parsed?.map(({ name, offsetBytes, lengthBytes }) => [
    name,
    (offsetBytes - MIB) / (4 * MIB),
    lengthBytes / (4 * MIB),
  ]);
}

describe("LVM's report", () => {
  test("names volumes that lie in one run, in disk order, also in several segments", () => {
    const rows = [row("swap", 35, 5, 0, 5), row("root", 0, 25, 0, 35), row("root", 25, 10, 25, 35), FREE];
    expect(volumes(...rows)).toEqual([
      ["root", 0, 35],
      ["swap", 35, 5],
    ]);
  });

  const OTHERS: Record<string, Row[]> = {
    "two places": [row("a", 0, 5, 0, 10), row("a", 10, 5, 5, 10)],
    "another order": [row("a", 0, 5, 5, 10), row("a", 5, 5, 0, 10)],
    "another disk as well": [row("a", 0, 5, 0, 10)],
    "the end of it alone": [row("a", 0, 5, 5, 10)],
    "an origin of snapshots": [row("a", 0, 5, 0, 5, { lv_attr: "owi-a-s---" })],
    "a thin pool": [row("a", 0, 5, 0, 5, { lv_attr: "twi---tz--", segtype: "thin-pool" })],
    "a striped volume": [row("a", 0, 5, 0, 5, { segtype: "striped" })],
    "a part of something": [row("[a_tdata]", 0, 5, 0, 5)],
    "free space": [FREE],
  };
  for (const [name, rows] of Object.entries(OTHERS)) {
    test(`does not name ${name}`, () => expect(volumes(...rows, row("b", 60, 2, 0, 2))).toEqual([["b", 60, 2]]));
  }

  const WRONG: Record<string, string> = {
    nothing: "",
    "no JSON": "{",
    null: "null",
    "another report": '{"report":[{"pv":[]}]}',
    "a row that is null": '{"report":[{"pvseg":[null]}]}',
    "rows without numbers": '{"report":[{"pvseg":[{}]}]}',
    "an overlap": JSON.stringify({ report: [{ pvseg: [row("a", 0, 5, 0, 5), row("b", 4, 5, 0, 5)] }] }),
    "a volume beyond the end": JSON.stringify({ report: [{ pvseg: [row("a", 70, 9, 0, 9)] }] }),
    "a negative number": JSON.stringify({ report: [{ pvseg: [row("a", -1, 9, 0, 9)] }] }),
  };
  for (const [name, text] of Object.entries(WRONG))
    test(`of ${name} is refused`, () => expect(parseVolumes(text, DEVICE_BYTES)).toBeNull());
});
