/**
 * Reads the bencode (BEP 3) of a tracker's reply, which comes from outside and may be anything. The `bencode`
 * package runs forever on a negative length and recurses without a limit, so replies are read strictly here:
 * nesting is bounded, every length is checked, whatever is not bencode throws a BencodeError. Pure; byte
 * strings returned are views of the input.
 */
import { BENCODE_DEPTH_MAX } from "../limits.ts";

export type BencodeValue = number | Uint8Array | BencodeValue[] | BencodeDictionary;
/** Keys as Latin-1: one character is one byte. */
export type BencodeDictionary = Map<string, BencodeValue>;

export class BencodeError extends Error {
  override readonly name = "BencodeError";
}

/** Reads one value that must fill the input. */
export function decodeBencode(bytes: Uint8Array): BencodeValue {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.at !== bytes.length) throw new BencodeError(`text after the end at byte ${reader.at}`);
  return value;
}

const COLON = 0x3a;
const END = 0x65;

class Reader {
  at = 0;

  constructor(readonly bytes: Uint8Array) {}

  value(depth: number): BencodeValue {
    if (depth > BENCODE_DEPTH_MAX) throw new BencodeError(`nested deeper than ${BENCODE_DEPTH_MAX}`);
    const kind = String.fromCharCode(this.bytes[this.at] ?? 0);
    if (kind === "i") return this.#number(this.at + 1, END);
    if (kind === "l") return this.#list(depth);
    if (kind === "d") return this.#dictionary(depth);
    return this.#string();
  }

  #list(depth: number): BencodeValue[] {
    const list: BencodeValue[] = [];
    for (this.at++; this.bytes[this.at] !== END; ) list.push(this.value(depth + 1));
    this.at++;
    return list;
  }

  #dictionary(depth: number): BencodeDictionary {
    const dictionary: BencodeDictionary = new Map();
    for (this.at++; this.bytes[this.at] !== END; ) {
      const key = Array.from(this.#string(), (byte) => String.fromCharCode(byte)).join("");
      dictionary.set(key, this.value(depth + 1));
    }
    this.at++;
    return dictionary;
  }

  #string(): Uint8Array {
    const length = this.#number(this.at, COLON);
    if (length < 0 || this.at + length > this.bytes.length) throw new BencodeError(`a string runs over the end at byte ${this.at}`);
    const string = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return string;
  }

  /** The number from `start` to the mark; the reader goes on behind the mark. */
  #number(start: number, mark: number): number {
    const end = this.bytes.indexOf(mark, start);
    const text = end < 0 || end - start > 20 ? "" : String.fromCharCode(...this.bytes.subarray(start, end));
    if (!/^-?\d+$/.test(text)) throw new BencodeError(`no number at byte ${start}`);
    this.at = end + 1;
    return Number(text);
  }
}
