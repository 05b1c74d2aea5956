/** The bencode cursor: what is canonical is walked, everything else is refused at the byte where it shows. */
import { describe, expect, test } from "bun:test";
import { BENCODE_DEPTH_MAX } from "../../src/limits.ts";
import { BencodeCursor, BencodeFault, scanBencode } from "../../src/torrent/bencode-scan.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");

/** The message of the fault, or null where the text is accepted. */
function problem(text: string): string | null {
  try {
    scanBencode(bytes(text));
    return null;
  } catch (error) {
    if (error instanceof BencodeFault) return error.message;
    throw error;
  }
}

describe("scanBencode accepts", () => {
  const accepted = ["i0e", "i-1e", "i9999999999999999999999e", "0:", "3:abc", "le", "de", "l0:lee", "d0:i1e1:ai2ee"];
  for (const text of [...accepted, "d1:ad1:bleee", "d1:a0:2:aa0:1:b0:e", "d1:\x7f0:1:\x800:e"]) {
    test(text, () => expect(problem(text)).toBeNull());
  }
  test(`nesting of ${BENCODE_DEPTH_MAX}`, () => {
    expect(problem("l".repeat(BENCODE_DEPTH_MAX) + "e".repeat(BENCODE_DEPTH_MAX))).toBeNull();
  });
});

describe("scanBencode refuses", () => {
  const refused: [string, string][] = [
    ["", "ends too early at byte 0"],
    ["i01e", "integer with a leading zero at byte 0"],
    ["i-0e", "negative integer with a leading zero at byte 0"],
    ["i-01e", "negative integer with a leading zero at byte 0"],
    ["ie", "integer without digits at byte 1"],
    ["i-e", "integer without digits at byte 2"],
    ["i1.5e", "expected 'e' after an integer at byte 2"],
    ["i+1e", "integer without digits at byte 1"],
    ["i1", "ends too early at byte 2"],
    ["03:abc", "string length with a leading zero at byte 0"],
    ["00:", "string length with a leading zero at byte 0"],
    ["-1:a", "expected a string at byte 0"],
    ["4:abc", "string longer than what is left at byte 0"],
    ["99999999999999999999:a", "string longer than what is left at byte 0"],
    ["3abc", "expected ':' after a string's length at byte 1"],
    ["l", "ends too early at byte 1"],
    ["lx", "expected a string at byte 1"],
    ["d1:a0:1:a0:e", 'key "a" twice at byte 6'],
    ["d1:b0:1:a0:e", 'key "a" out of order at byte 6'],
    ["d2:aa0:1:a0:e", 'key "a" out of order at byte 7'],
    ["di1e0:e", "expected a string at byte 1"],
    ["d1:ae", "expected a string at byte 4"],
    ["i1ei2e", "3 bytes after the end at byte 3"],
    ["lee", "1 bytes after the end at byte 2"],
    ["e", "expected a string at byte 0"],
    ["d3:\n\x9b\x7f0:3:\n\x9b\x7f0:e", 'key "\\n\\u009b\\u007f" twice at byte 8'],
  ];
  for (const [text, message] of refused) test(JSON.stringify(text), () => expect(problem(text)).toBe(message));

  test("every truncation of a valid value", () => {
    const valid = "d1:ali1e2:xxd1:bi-7eee1:cd3:keyleee";
    expect(problem(valid)).toBeNull();
    for (let length = 0; length < valid.length; length++) expect(problem(valid.slice(0, length))).not.toBeNull();
  });
});

describe("100 MB of hostile input ends where it shows", () => {
  const LENGTH = 100_000_000;
  test("lists in lists", () => {
    expect(() => scanBencode(new Uint8Array(LENGTH).fill(0x6c))).toThrow(
      `nested deeper than ${BENCODE_DEPTH_MAX} at byte ${BENCODE_DEPTH_MAX}`,
    );
  });
  test("a length of digits without end", () => {
    expect(() => scanBencode(new Uint8Array(LENGTH).fill(0x39))).toThrow("string longer than what is left at byte 0");
    expect(() => scanBencode(new Uint8Array(LENGTH).fill(0x30))).toThrow("string length with a leading zero at byte 0");
  });
  test("one integer of that many digits", () => {
    const integer = new Uint8Array(LENGTH).fill(0x31);
    integer[0] = 0x69;
    expect(() => scanBencode(integer)).toThrow(`ends too early at byte ${LENGTH}`);
    integer[LENGTH - 1] = 0x65;
    expect(() => scanBencode(integer)).not.toThrow();
    expect(() => new BencodeCursor(integer).readInteger()).toThrow("integer of more than 53 bits at byte 0");
    expect(new BencodeCursor(integer).readIntegerOrSkip()).toBeNull();
  });
});

describe("BencodeCursor", () => {
  test("reads integers that a double holds, and no others", () => {
    expect(new BencodeCursor(bytes("i9007199254740991e")).readInteger()).toBe(Number.MAX_SAFE_INTEGER);
    expect(new BencodeCursor(bytes("i-9007199254740991e")).readInteger()).toBe(Number.MIN_SAFE_INTEGER);
    expect(() => new BencodeCursor(bytes("i9007199254740992e")).readInteger()).toThrow("more than 53 bits");
    expect(() => new BencodeCursor(bytes("i-1e")).readCount()).toThrow("negative number");
    expect(new BencodeCursor(bytes("i-9007199254740991e")).readIntegerOrSkip()).toBe(Number.MIN_SAFE_INTEGER);
    expect(new BencodeCursor(bytes("i9007199254740992e")).readIntegerOrSkip()).toBeNull();
  });
  test("walks a dictionary key by key", () => {
    const cursor = new BencodeCursor(bytes("d1:ai7e1:bl1:x1:ye1:cd1:zi1eee"));
    const seen: string[] = [];
    cursor.enterDict();
    while (cursor.nextKey()) {
      seen.push(cursor.stringText());
      if (cursor.stringIs("b")) {
        cursor.enterList();
        while (cursor.nextItem()) seen.push(cursor.readText());
      } else if (cursor.type() === "integer") seen.push(String(cursor.readInteger()));
      else cursor.skipValue();
    }
    cursor.finish();
    expect(seen).toEqual(["a", "7", "b", "x", "y", "c"]);
  });
  test("a skipped value inside is checked as strictly", () => {
    const cursor = new BencodeCursor(bytes("d1:xd1:b0:1:a0:ee"));
    cursor.enterDict();
    expect(cursor.nextKey()).toBe(true);
    expect(() => cursor.skipValue()).toThrow("out of order");
  });
  test("bears unsorted keys where it is lenient, as some peers send them", () => {
    const text = bytes("d1:b0:1:a0:e");
    const cursor = new BencodeCursor(text, 0, text.length, false);
    cursor.skipValue();
    cursor.finish();
  });
  test("types are told apart and demanded", () => {
    expect(() => new BencodeCursor(bytes("i1e")).enterDict()).toThrow("expected a dictionary at byte 0");
    expect(() => new BencodeCursor(bytes("de")).enterList()).toThrow("expected a list at byte 0");
    expect(() => new BencodeCursor(bytes("le")).readInteger()).toThrow("expected an integer at byte 0");
    expect(() => new BencodeCursor(bytes("x")).type()).toThrow("no value at byte 0");
  });
});
