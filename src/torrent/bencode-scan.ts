/**
 * A cursor over bencoded bytes (BEP 3): validates while it walks and builds nothing, so that a torrent of
 * 300,000 files is read straight into typed arrays and hostile input costs neither memory nor recursion.
 *
 * The cursor reads the caller's bytes in place and keeps no copy; views it returns are of those bytes. Strict
 * mode demands the canonical form (keys sorted and unique) that hashing relies on; lenient mode bears unsorted
 * keys, as some peers send them. Numbers and lengths are canonical in both.
 */
import { BENCODE_DEPTH_MAX } from "../limits.ts";
import { quote } from "./quote.ts";

/** The bytes are no valid bencode, or hold another type or value than was asked for. */
export class BencodeFault extends Error {
  override readonly name = "BencodeFault";
  constructor(
    readonly offsetBytes: number,
    readonly reason: string,
  ) {
    super(`${reason} at byte ${offsetBytes}`);
  }
}

export type BencodeType = "integer" | "string" | "list" | "dict";

const INTEGER = 0x69;
const LIST = 0x6c;
const DICT = 0x64;
const END = 0x65;
const COLON = 0x3a;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
/** Digits of -(2^53 - 1), with its sign. */
const SAFE_DIGITS_MAX = 17;
/** One more than `quote` shows, so that it says where it cut. */
const QUOTED_BYTES_MAX = 65;
/** Marks a dictionary without a key read yet. */
const NO_KEY = -1;

const utf8 = new TextDecoder("utf-8");

export class BencodeCursor {
  /** Byte that is read next. */
  at: number;
  /** The last string read lies at [stringStart, stringEnd). */
  stringStart = 0;
  stringEnd = 0;

  private depth = 0;
  private readonly isDict = new Uint8Array(BENCODE_DEPTH_MAX);
  private readonly keyStart = new Float64Array(BENCODE_DEPTH_MAX);
  private readonly keyEnd = new Float64Array(BENCODE_DEPTH_MAX);

  constructor(
    readonly bytes: Uint8Array,
    start = 0,
    private readonly end = bytes.length,
    private readonly strict = true,
  ) {
    this.at = start;
  }

  /** Type of the value that starts here. */
  type(): BencodeType {
    const byte = this.byte();
    if (byte === INTEGER) return "integer";
    if (byte === LIST) return "list";
    if (byte === DICT) return "dict";
    if (isDigit(byte)) return "string";
    this.fail("no value");
  }

  enterDict(): void {
    if (this.byte() !== DICT) this.fail("expected a dictionary");
    this.push(1);
  }

  enterList(): void {
    if (this.byte() !== LIST) this.fail("expected a list");
    this.push(0);
  }

  /** Reads the next key of the dictionary entered last, or leaves it and returns false at its end. */
  nextKey(): boolean {
    if (this.leftContainer()) return false;
    const level = this.depth - 1;
    const before = this.at;
    this.readString();
    if (this.strict && this.keyStart[level] !== NO_KEY) this.checkOrder(level, before);
    this.keyStart[level] = this.stringStart;
    this.keyEnd[level] = this.stringEnd;
    return true;
  }

  /** True where another element of the list entered last follows; leaves it and returns false at its end. */
  nextItem(): boolean {
    return !this.leftContainer();
  }

  /** Reads an integer within what a double holds exactly. */
  readInteger(): number {
    const before = this.at;
    this.readIntegerSpan();
    const negative = this.bytes[before + 1] === MINUS;
    let value = 0;
    for (let at = before + (negative ? 2 : 1); at < this.at - 1; at++) {
      value = value * 10 + (this.bytes[at]! - ZERO);
      if (value > Number.MAX_SAFE_INTEGER) throw new BencodeFault(before, "integer of more than 53 bits");
    }
    return negative ? -value : value;
  }

  /** Reads an integer within what a double holds exactly; walks over any other value and returns null. */
  readIntegerOrSkip(): number | null {
    const before = this.at;
    this.skipValue();
    if (this.bytes[before] !== INTEGER) return null;
    const value = Number(
      oneCharacterPerByte(this.bytes.subarray(before + 1, Math.min(this.at - 1, before + 1 + SAFE_DIGITS_MAX))),
    );
    return this.at - before - 2 <= SAFE_DIGITS_MAX && Number.isSafeInteger(value) ? value : null;
  }

  /** Reads an integer from 0 to 2^53 - 1. */
  readCount(): number {
    const before = this.at;
    const value = this.readInteger();
    if (value < 0) throw new BencodeFault(before, "negative number");
    return value;
  }

  /** Reads a string and returns its length in bytes; it lies at [stringStart, stringEnd). */
  readString(): number {
    const before = this.at;
    if (!isDigit(this.byte())) this.fail("expected a string");
    const leadingZero = this.bytes[before] === ZERO;
    let length = 0;
    while (isDigit(this.byte())) {
      length = length * 10 + (this.bytes[this.at]! - ZERO);
      if (leadingZero && this.at > before) throw new BencodeFault(before, "string length with a leading zero");
      // A length that cannot fit is refused here, so that a long run of digits is not read to its end.
      if (length > this.end - this.at) throw new BencodeFault(before, "string longer than what is left");
      this.at++;
    }
    if (this.bytes[this.at] !== COLON) this.fail("expected ':' after a string's length");
    this.at++;
    if (length > this.end - this.at) throw new BencodeFault(before, "string longer than what is left");
    this.stringStart = this.at;
    this.stringEnd = this.at + length;
    this.at = this.stringEnd;
    return length;
  }

  /** Reads a string as a view of the input. */
  readBytes(): Uint8Array {
    this.readString();
    return this.bytes.subarray(this.stringStart, this.stringEnd);
  }

  /** Reads a string as UTF-8 text; bytes that are none become U+FFFD. */
  readText(): string {
    return utf8.decode(this.readBytes());
  }

  /** Is the key or string read last this ASCII text? */
  stringIs(text: string): boolean {
    if (this.stringEnd - this.stringStart !== text.length) return false;
    for (let i = 0; i < text.length; i++) if (this.bytes[this.stringStart + i] !== text.charCodeAt(i)) return false;
    return true;
  }

  /** The key or string read last, one character per byte. */
  stringText(): string {
    return oneCharacterPerByte(this.bytes.subarray(this.stringStart, this.stringEnd));
  }

  /** The key or string read last as it can stand in a message. Only its start is looked at: it may be long. */
  quotedString(): string {
    const end = Math.min(this.stringEnd, this.stringStart + QUOTED_BYTES_MAX);
    return quote(oneCharacterPerByte(this.bytes.subarray(this.stringStart, end)));
  }

  /** Walks over one value of any type, validating it. */
  skipValue(): void {
    const outside = this.depth;
    do {
      if (this.depth > outside && !this.nextInContainer()) continue;
      const byte = this.byte();
      if (byte === INTEGER) this.readIntegerSpan();
      else if (byte === LIST) this.push(0);
      else if (byte === DICT) this.push(1);
      else this.readString();
    } while (this.depth > outside);
  }

  /** Demands that nothing follows. */
  finish(): void {
    if (this.at !== this.end) this.fail(`${this.end - this.at} bytes after the end`);
  }

  fail(reason: string): never {
    throw new BencodeFault(this.at, reason);
  }

  /** Moves to the next value inside the innermost container; false where that container ended. */
  private nextInContainer(): boolean {
    return this.isDict[this.depth - 1] === 1 ? this.nextKey() : this.nextItem();
  }

  private leftContainer(): boolean {
    if (this.byte() !== END) return false;
    this.at++;
    this.depth--;
    return true;
  }

  private push(isDict: 0 | 1): void {
    if (this.depth === BENCODE_DEPTH_MAX) this.fail(`nested deeper than ${BENCODE_DEPTH_MAX}`);
    this.isDict[this.depth] = isDict;
    this.keyStart[this.depth] = NO_KEY;
    this.depth++;
    this.at++;
  }

  /** Walks over an integer of any size: digits, no leading zero, no minus zero. */
  private readIntegerSpan(): void {
    const before = this.at;
    if (this.byte() !== INTEGER) this.fail("expected an integer");
    this.at++;
    const negative = this.byte() === MINUS;
    if (negative) this.at++;
    const digits = this.at;
    while (isDigit(this.byte())) this.at++;
    if (this.at === digits) this.fail("integer without digits");
    if (this.bytes[digits] === ZERO && (negative || this.at - digits > 1)) {
      throw new BencodeFault(before, negative ? "negative integer with a leading zero" : "integer with a leading zero");
    }
    if (this.bytes[this.at] !== END) this.fail("expected 'e' after an integer");
    this.at++;
  }

  private checkOrder(level: number, offset: number): void {
    const order = compareSpans(
      this.bytes,
      this.keyStart[level]!,
      this.keyEnd[level]!,
      this.stringStart,
      this.stringEnd,
    );
    if (order === 0) throw new BencodeFault(offset, `key ${this.quotedString()} twice`);
    if (order > 0) throw new BencodeFault(offset, `key ${this.quotedString()} out of order`);
  }

  private byte(): number {
    if (this.at >= this.end) throw new BencodeFault(this.end, "ends too early");
    return this.bytes[this.at]!;
  }
}

/** Validates that `bytes` hold exactly one canonical value. Throws BencodeFault. */
export function scanBencode(bytes: Uint8Array): void {
  const cursor = new BencodeCursor(bytes);
  cursor.skipValue();
  cursor.finish();
}

/** TextDecoder's "latin1" is windows-1252, which turns bytes 0x80 to 0x9f into other characters. */
function oneCharacterPerByte(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

/** Order of two byte strings as raw bytes: negative, 0 or positive. */
function compareSpans(bytes: Uint8Array, aStart: number, aEnd: number, bStart: number, bEnd: number): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart);
  for (let i = 0; i < length; i++) {
    const difference = bytes[aStart + i]! - bytes[bStart + i]!;
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}
