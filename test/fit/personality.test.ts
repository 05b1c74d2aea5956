/** Tables of machines as admins write them, and what a machine is known by. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ExitCode, Failure } from "../../src/errors.ts";
import { machineIds } from "../../src/fit/load-personality.ts";
import { hostnameProblem, normalMac, normalSerial, PersonalityTable } from "../../src/fit/personality.ts";
import { scopedTest } from "../harness/scope.ts";

const MACHINE = { macs: ["525400123456", "525400123457"], serials: ["5cg1"] };

function nameIn(text: string, machine = MACHINE): string {
  return PersonalityTable.parse(text, "t.csv").find(machine).hostname;
}

function problemOf(text: string, machine = MACHINE): string {
  try {
    nameIn(text, machine);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(ExitCode.failed);
    expect(error.message).not.toContain("\n");
    expect(error.message.startsWith("t.csv: ")).toBe(true);
    return error.message.slice("t.csv: ".length);
  }
  throw new Error("no problem");
}

describe("a table of machines", () => {
  const GOOD: Record<string, string> = {
    "CSV by MAC": "mac,hostname\n52:54:00:12:34:56,pc01\n",
    "CSV by serial in other case, without a last line end": "serial,hostname\n5CG1,pc01",
    "a spreadsheet's, with a mark, semicolons, CRLF, quotes and empty lines":
      '\uFEFFRoom;Hostname;MAC\r\n"3; left";"pc01";52-54-00-12-34-56\r\n;;\r\n\r\n4;pc02;525400ffffff\r\n',
    "tabs, a comment and Cisco's way of writing": "# our room\nhostname\tmac\npc01\t5254.0012.3456\n",
    "several addresses in a cell, one quote in quotes":
      'mac,hostname,note\n"525400000000 525400123457",pc01,"4"" disk"\n',
    "a row that has fewer cells than columns": "mac,hostname,serial\n525400123456,pc01\n",
    JSON: ' [{"mac": "52:54:00:12:34:56", "hostname": "pc01"}, {"serial": 77, "hostname": "pc02", "room": {"a": 1}}]',
    "JSON with nothing for a key": '[{"mac": null, "serial": "5CG1", "hostname": "pc01"}]',
  };
  for (const [name, text] of Object.entries(GOOD)) test(`is read: ${name}`, () => expect(nameIn(text)).toBe("pc01"));

  const BAD: [string, RegExp][] = [
    ["", /^it is empty/],
    ["# nothing\n\n", /^it is empty/],
    ["pc01\n", /first line does not name the columns/],
    ["mac,name\n525400123456,pc01", /first line does not name the columns/],
    ["mac,mac,hostname\n", /names a column twice/],
    ["mac,hostname\n", /^the table has no rows/],
    ["mac,hostname\n1,2,3\n", /^line 2 has 3 columns and the first line 2/],
    ['mac,hostname\n"525400123456,pc01\n', /^line 2 has a quote that does not end/],
    ["mac,hostname\n52540012345,pc01", /^line 2 has "52540012345", which is no MAC address/],
    ["mac,hostname\n00:00:00:00:00:00,pc01", /no MAC address/],
    ["mac,hostname\n,pc01", /^line 2 has neither mac nor serial/],
    ["serial,hostname\nTo Be Filled By O.E.M.,pc01", /^line 2 has the serial "To Be .*, which many machines have/],
    ["mac,hostname\n525400123456,", /^line 2 has no hostname/],
    ["mac,hostname\n525400123456,pc 01", /^line 2 has the hostname "pc 01": letters/],
    ["mac,hostname\n525400123456,pc01\n52:54:00:12:34:56,pc02", /^line 2 and line 3 have the same mac 525400123456/],
    ["serial,hostname\n5CG1,pc01\n5cg1,pc02", /^line 2 and line 3 have the same serial 5cg1/],
    ["mac,hostname\n525400123456,pc01\n525400123457,PC01", /^line 2 and line 3 have the same hostname pc01/],
    [
      "mac,hostname\n525400123456,pc01\n525400123457,pc02",
      /^line 2 \(pc01\) and line 3 \(pc02\) are both for this machine/,
    ],
    [
      "mac,hostname\n525400aaaaaa,pc01",
      /^no row is for this machine: MAC 52:54:00:12:34:56, MAC .*, serial 5cg1; nothing was written/,
    ],
    ["m\0a\0c\0", /^it is neither CSV nor JSON/],
    ["[", /^it begins like JSON and is none/],
    ['{"mac": "525400123456"}', /^it is no list of rows/],
    ["[]", /^the table has no rows/],
    ["[1]", /^row 1 is no object/],
    ['[{"mac": ["525400123456"], "hostname": "pc01"}]', /^row 1 has a mac that is no text/],
  ];
  for (const [text, problem] of BAD)
    test(`is refused: ${JSON.stringify(text)}`, () => expect(problemOf(text)).toMatch(problem));

  test("has no row for a machine that has no identifiers", () => {
    const nobody = { macs: [], serials: [] };
    expect(problemOf("serial,hostname\nA1,pc01", nobody)).toContain("neither MAC address nor serial number");
  });

  test("cut off anywhere is read in part or refused, never with half a name", () => {
    const text = "mac,hostname\n525400123456,pc01\n525400123457,pc02.room\n";
    for (let length = 0; length < text.length; length++) {
      const part = text.slice(0, length);
      try {
        const { hostname } = PersonalityTable.parse(part, "t").find({ macs: ["525400123456"], serials: [] });
        expect("pc01".startsWith(hostname)).toBe(true);
      } catch (error) {
        expect(error).toBeInstanceOf(Failure);
      }
    }
  });
});

describe("host names", () => {
  for (const name of [
    "a",
    "pc01",
    "PC-01.room3.example",
    "3com",
    "x".repeat(63),
    `${"a".repeat(32)}.${"b".repeat(31)}`,
  ])
    test(`${name.slice(0, 20)} is one`, () => expect(hostnameProblem(name)).toBeNull());
  const WRONG = [
    "",
    "-a",
    "a-",
    "a..b",
    ".a",
    "a.",
    "a_b",
    "a/b",
    "ü",
    "10.0.0.1",
    "123",
    "a\n",
    "x".repeat(64),
    `${"a".repeat(33)}.${"b".repeat(31)}`,
  ];
  for (const name of WRONG)
    test(`${JSON.stringify(name.slice(0, 20))} is none`, () => expect(hostnameProblem(name)).toBeString());
});

describe("what a machine is known by", () => {
  test("addresses and serial numbers in one form", () => {
    expect(normalMac("00:11:22:AA:bb:cc\n")).toBe("001122aabbcc");
    for (const none of ["", "00:00:00:00:00:00", "0011223344", "001122aabbccdd", "g01122aabbcc"])
      expect(normalMac(none)).toBeNull();
    expect(normalSerial(" 5CG1\n")).toBe("5cg1");
    for (const none of ["", "0", "Default string", "Not Specified", "None", "xxxxxxx"])
      expect(normalSerial(none)).toBe("");
  });

  scopedTest("is read from sysfs", async (scope) => {
    const sysfs = scope.tempDir();
    const files: Record<string, string> = {
      "class/net/lo/address": "00:00:00:00:00:00\n",
      "class/net/eth0/address": "52:54:00:12:34:57\n",
      "class/net/eth1/address": "52:54:00:12:34:56\n",
      "class/net/br0/address": "52:54:00:12:34:56\n",
      "class/net/ib0/address": `${"80:".repeat(19)}01\n`,
      "class/dmi/id/product_serial": "To be filled by O.E.M.\n",
      "class/dmi/id/board_serial": "BSN-1\n",
      "firmware/devicetree/base/serial-number": "10000000abcdef\0",
    };
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(sysfs, path)), { recursive: true });
      writeFileSync(join(sysfs, path), text);
    }
    expect(machineIds(sysfs)).toEqual({ macs: ["525400123456", "525400123457"], serials: ["bsn-1", "10000000abcdef"] });
    expect(machineIds(join(sysfs, "none"))).toEqual({ macs: [], serials: [] });
  });
});
