/** The languages that are taken out of the executable: what stays works, and data in an unknown form stays as it is. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isForeign, makePackage, trimUnicodeData, UnicodeDataProblem } from "../../tools/unicode-data.ts";
import { run } from "../harness/process.ts";
import { seededRandom } from "../harness/random.ts";
import { scopedTest } from "../harness/scope.ts";

const BEFORE_BYTES = 48;
const TABLE_AT = BEFORE_BYTES + 32;
const NAMES = [
  "brkitr/ja.dict",
  "coll/de.res",
  "coll/root.res",
  "en.res",
  "uts46.nrm",
  "zone/zu.res",
  "zoneinfo64.res",
];
const STAY = ["coll/root.res", "en.res", "uts46.nrm", "zoneinfo64.res"];

/** Something, a package as ICU has it, and something more. */
function executable(contentOf = (i: number) => Buffer.alloc(20 + 30 * i, 65 + i), last = "zu_ZA.res"): Buffer {
  const header = Buffer.alloc(32, 46);
  header.writeUInt16LE(header.length, 0);
  header.set([0xda, 0x27, 20, 0, 0, 0, 0, 0, 2, 0], 2);
  header.write("CmnD\x01", 12, "latin1");
  const items = [...NAMES, last].map((name, i) => ({ name: `icudt78l/${name}`, content: contentOf(i) }));
  return Buffer.concat([Buffer.alloc(BEFORE_BYTES, 33), header, makePackage(items), Buffer.alloc(40, 35)]);
}

/** Name and content of each item but the last, whose end is nowhere said. */
function itemsOf(bytes: Buffer): Map<string, string> {
  const table = bytes.subarray(TABLE_AT);
  const words = (i: number) => [table.readUInt32LE(4 + 8 * i), table.readUInt32LE(8 + 8 * i)] as const;
  const count = table.readUInt32LE(0);
  return new Map(
    Array.from({ length: count }, (_, i) => {
      const [nameAt, at] = words(i);
      const end = i + 1 < count ? words(i + 1)[1] : at;
      return [table.toString("latin1", nameAt, table.indexOf(0, nameAt)), table.toString("latin1", at, end)];
    }),
  );
}

describe("ICU's package", () => {
  test("has the items that are for no other language, unchanged, and zeros after them", () => {
    const [before, after] = [executable(), executable()];
    const { keptItems, droppedItems, freedBytes } = trimUnicodeData(after);
    expect({ keptItems, droppedItems }).toEqual({ keptItems: 4, droppedItems: 3 });
    const [had, has] = [itemsOf(before), itemsOf(after)];
    expect([...has.keys()]).toEqual(STAY.map((name) => `icudt78l/${name}`));
    for (const name of STAY.slice(0, -1)) expect(has.get(`icudt78l/${name}`)).toBe(had.get(`icudt78l/${name}`)!);
    const lastAt = before.indexOf("G".repeat(200));
    expect(lastAt).toBeGreaterThan(0);
    expect(after.includes("G".repeat(200))).toBe(true);
    expect(after.length).toBe(before.length);
    expect(after.subarray(0, TABLE_AT).equals(before.subarray(0, TABLE_AT))).toBe(true);
    // What follows the last item, and that itself, stays: where it ends is not known.
    const endAt = before.indexOf("H".repeat(200));
    expect(after.subarray(endAt).equals(before.subarray(endAt))).toBe(true);
    expect(after.subarray(endAt - freedBytes, endAt).every((byte) => byte === 0)).toBe(true);
  });

  test("names of languages, and those that only look like them", () => {
    const foreign = ["de", "de_AT", "sr_Cyrl_BA", "de__PHONEBOOK", "es_419", "haw", "en_GB", "ca_ES_VALENCIA"];
    for (const name of foreign)
      expect({ name, is: isForeign(`icudt78l/lang/${name}.res`) }).toEqual({ name, is: true });
    const common = ["root", "pool", "res_index", "en", "en_US", "en_US_POSIX", "zoneinfo64", "plurals", "icuver"];
    for (const name of common) expect({ name, is: isForeign(`icudt78l/${name}.res`) }).toEqual({ name, is: false });
    expect(["thai.dict", "line.brk", "nfc.nrm", "de.icu"].map(isForeign)).toEqual([true, false, false, false]);
  });

  const changed = (change: (bytes: Buffer) => unknown) => {
    const bytes = executable();
    change(bytes);
    return bytes;
  };
  const refused: readonly [string, Buffer, RegExp][] = [
    ["that is not there", executable().subarray(0, BEFORE_BYTES), /^0 packages/],
    ["of another version", changed((bytes) => bytes.writeUInt8(2, BEFORE_BYTES + 16)), /^0 packages/],
    ["that is there twice", Buffer.concat([executable(), executable()]), /^2 packages/],
    ["with nothing to take", changed(trimUnicodeData), /^no item is for a language/],
    ["whose count is absurd", changed((bytes) => bytes.writeUInt32LE(0xffffffff, TABLE_AT)), /has 4294967295 items/],
    ["with an item that is not aligned", changed((bytes) => bytes[TABLE_AT + 8]!++), /brkitr\/ja.dict at \d+/],
    ["with items in disorder", changed((bytes) => bytes.writeUInt32LE(4096, TABLE_AT + 16)), /from \d+ to 4096/],
    ["with a name beyond the end", changed((bytes) => bytes.writeUInt32LE(1 << 20, TABLE_AT + 4)), /a name at 1048576/],
  ];
  for (const [what, bytes, message] of refused)
    test(`${what} is left as it is`, () => {
      const before = Buffer.from(bytes);
      expect(() => trimUnicodeData(bytes)).toThrow(UnicodeDataProblem);
      expect(() => trimUnicodeData(bytes)).toThrow(message);
      expect(bytes.equals(before)).toBe(true);
    });

  test("whose last item would be packed is left as it is: ICU is told the length of all but the last", () => {
    const packed = () => Buffer.from("28b52ffd00000000", "hex");
    expect(() => trimUnicodeData(executable(packed))).toThrow(/zoneinfo64.res would be the last/);
  });

  test("that is cut off or damaged anywhere is trimmed or left, nothing else", () => {
    const random = seededRandom(31);
    const whole = executable();
    for (let round = 0; round < 4000; round++) {
      const damaged = Buffer.from(whole.subarray(0, round % 2 === 0 ? round % whole.length : whole.length));
      for (let i = 0; i < round % 4; i++) damaged[BEFORE_BYTES + random.below(260)] = random.below(256);
      try {
        trimUnicodeData(damaged);
      } catch (error) {
        expect(error).toBeInstanceOf(UnicodeDataProblem);
      }
      expect(
        damaged.subarray(0, BEFORE_BYTES).equals(whole.subarray(0, damaged.length).subarray(0, BEFORE_BYTES)),
      ).toBe(true);
    }
  });
});

/** What the language itself does with Unicode, dates and English, a line each. */
const PROGRAM = `
const tell = (value) => console.log(JSON.stringify(value));
tell(["ÄÖÜİ".toLowerCase(), "ß".toUpperCase(), "I".toLocaleLowerCase("tr")]);
tell(["NFC", "NFD", "NFKC", "NFKD"].map((form) => "Å①ﬁ".normalize(form)));
tell([/\\p{L}+/u.exec("12äöа")[0], /ſ/iu.test("S"), /\\p{Emoji}/u.test("😀"), /[\\p{L}--[a-z]]/v.test("ä")]);
tell([new Date(0).toString(), new Date(1e12).toISOString(), Date.parse("Tue, 24 Nov 2026 09:39:13 GMT")]);
tell([new Date(0).toLocaleString(), (1234567.5).toLocaleString(), Intl.DateTimeFormat().resolvedOptions().timeZone]);
tell(["sda10", "sda9", "ä", "z"].sort((a, b) => a.localeCompare(b, "en", { numeric: true })));
tell([new URL("http://bücher.example/ä").href, Bun.stringWidth("日本語😀")]);
tell([new TextDecoder("shift_jis").decode(new Uint8Array([0x83, 0x41])), new TextDecoder("latin1").decode(new Uint8Array([228]))]);
`;
/** Falls back on what has no language, and must end with an answer. */
const FOREIGN = `
console.log(new Intl.NumberFormat("de").format(1.5), "ä".localeCompare("z", "sv"), new Date(0).toLocaleString("ja"),
  [...new Intl.Segmenter("th", { granularity: "word" }).segment("สวัสดี")].length);
`;

describe("Bun without other languages", () => {
  scopedTest("does with texts and dates what it does with them, wherever it runs", async (scope) => {
    const bytes = readFileSync(process.execPath);
    const { droppedItems, freedBytes } = trimUnicodeData(bytes);
    expect(droppedItems).toBeGreaterThan(3000);
    expect(freedBytes).toBeGreaterThan(8 << 20);
    const trimmed = join(scope.tempDir(), "bun");
    writeFileSync(trimmed, bytes, { mode: 0o755 });
    for (const setting of [["TZ=UTC"], ["TZ=Europe/Berlin"], ["LC_ALL=C", "TZ=Asia/Tokyo"]]) {
      const answer = (bun: string) => run(["env", ...setting, bun, "-e", PROGRAM]);
      expect(answer(trimmed)).toBe(answer(process.execPath));
    }
    for (const language of ["de_DE.UTF-8", "ja_JP.UTF-8", "tr_TR", "ar_EG.UTF-8"])
      expect(run(["env", `LC_ALL=${language}`, `LANG=${language}`, trimmed, "-e", PROGRAM + FOREIGN])).toContain(
        "sda10",
      );
  });
});
