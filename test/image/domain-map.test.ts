/** partclone's used maps: whole, byte by byte, cut off, out of order, a million runs. */
import { describe, expect, test } from "bun:test";
import { DomainMapFault, DomainMapParser } from "../../src/image/domain-map.ts";

const HEAD = "# Domain logfile created by partclone.ext4 v0.3.23\n# Source: /dev/sda1\n# Offset: 0x00000000\n";
const MAP = `${HEAD}# current_pos  current_status
0x00005000     ?
#      pos        size  status
0x00000000  0x00001000  +
0x00001000  0x00002000  ?
0x00003000  0x00001c00  +
0x00004C00  0x00000400  ?
`;
const RUNS = [
  [0, 0x1000],
  [0x3000, 0x1c00],
];

function parse(text: string, chunkBytes = text.length || 1): { runs: number[][]; parser: DomainMapParser } {
  const runs: number[][] = [];
  const parser = new DomainMapParser((offset, length) => void runs.push([offset, length]));
  const bytes = Buffer.from(text, "latin1");
  for (let at = 0; at < bytes.length; at += chunkBytes) parser.push(bytes.subarray(at, at + chunkBytes));
  parser.finish();
  return { runs, parser };
}

describe("a domain map", () => {
  test("is read whole and in chunks of any size", () => {
    for (const chunkBytes of [1, 2, 3, 7, 64, MAP.length]) {
      const { runs, parser } = parse(MAP, chunkBytes);
      expect(runs).toEqual(RUNS);
      expect(parser).toMatchObject({ endBytes: 0x5000, usedBytes: 0x2c00, runCount: 4 });
    }
  });

  test("that is cut off anywhere is refused", () => {
    for (let length = 0; length < MAP.length; length++)
      expect(() => parse(MAP.slice(0, length))).toThrow(DomainMapFault);
  });

  test("may be that of a filesystem beyond 4 GiB", () => {
    const { parser } = parse("0x40000000000 ?\n0x00000000 0x3FFFFFFF000 ?\n0x3FFFFFFF000 0x1000 +\n");
    expect(parser.usedBytes).toBe(4096);
  });

  const BROKEN: Record<string, string> = {
    "nothing at all": "",
    "comments alone": HEAD,
    "a gap": MAP.replace("0x00003000  0x00001c00", "0x00003400  0x00001800"),
    "an overlap": MAP.replace("0x00003000  0x00001c00", "0x00002000  0x00002c00"),
    "a run that is missing": MAP.replace("0x00001000  0x00002000  ?\n", ""),
    "more than was announced": `${MAP}0x00005000  0x00001000  +\n`,
    "another start": MAP.replace("0x00000000  0x00001000", "0x00000800  0x00000800"),
    "an empty run": MAP.replace("0x00001000  0x00002000  ?", "0x00001000  0x00000000  ?\n0x00001000  0x00002000  ?"),
    "a number that is none": MAP.replace("0x00001c00", "0x00001g00"),
    "a number without digits": MAP.replace("0x00001c00", "0x"),
    "a decimal number": MAP.replace("0x00001c00", "7168"),
    "a number beyond 2^53": MAP.replace("0x00005000", `0x${"f".repeat(15)}`),
    "an unknown status": MAP.replace("0x00001c00  +", "0x00001c00  *"),
    "two statuses": MAP.replace("0x00001c00  +", "0x00001c00  + +"),
    "no status": MAP.replace("0x00001c00  +", "0x00001c00"),
    "a line without end": `${MAP.slice(0, -1)}${" ".repeat(4096)}\n`,
    "something else": "partclone.ext4: No such file or directory\n",
  };
  for (const [name, text] of Object.entries(BROKEN)) {
    test(`with ${name} is refused in one line`, () => {
      let fault: unknown;
      try {
        parse(text);
      } catch (error) {
        fault = error;
      }
      expect(fault).toBeInstanceOf(DomainMapFault);
      expect((fault as Error).message).toMatch(/^[ -~]+$/);
    });
  }
});
