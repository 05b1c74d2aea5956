/**
 * Bencoding for the tests alone (BEP 3), so that the program's own parser is not what judges it. It writes
 * whatever it is given, also dictionaries that are not sorted: broken torrents are made with it.
 */

export type Bencodable = number | string | Uint8Array | Bencodable[] | { [key: string]: Bencodable };

export function encode(value: Bencodable): Buffer {
  if (typeof value === "number") return Buffer.from(`i${value}e`);
  if (typeof value === "string") return encode(Buffer.from(value));
  if (value instanceof Uint8Array) return Buffer.concat([Buffer.from(`${value.length}:`), value]);
  if (Array.isArray(value)) return Buffer.concat([Buffer.from("l"), ...value.map(encode), Buffer.from("e")]);
  const pairs = Object.entries(value).flatMap(([key, item]) => [encode(key), encode(item)]);
  return Buffer.concat([Buffer.from("d"), ...pairs, Buffer.from("e")]);
}

/** The raw bytes of a top-level dictionary's value, or null where it has no such key. */
export function rawValue(dictionary: Uint8Array, key: string): Uint8Array | null {
  const text = Buffer.from(dictionary);
  let at = 1;
  while (text[at] !== END) {
    const keyEnd = skip(text, at);
    const valueEnd = skip(text, keyEnd);
    if (text.toString("latin1", at, keyEnd) === `${key.length}:${key}`) return text.subarray(keyEnd, valueEnd);
    at = valueEnd;
  }
  return null;
}

/** The value of a top-level integer, or null. */
export function integerValue(dictionary: Uint8Array, key: string): number | null {
  const raw = rawValue(dictionary, key);
  return raw && raw[0] === INTEGER ? Number(Buffer.from(raw).toString("latin1", 1, raw.length - 1)) : null;
}

const END = 0x65;
const INTEGER = 0x69;
const LIST = 0x6c;
const DICTIONARY = 0x64;
const COLON = 0x3a;

/** Where the value that begins at `at` ends. */
function skip(text: Buffer, at: number): number {
  const kind = text[at];
  if (kind === INTEGER) return text.indexOf(END, at) + 1;
  if (kind === LIST || kind === DICTIONARY) {
    let next = at + 1;
    while (text[next] !== END) next = skip(text, next);
    return next + 1;
  }
  const colon = text.indexOf(COLON, at);
  const length = Number(text.toString("latin1", at, colon));
  if (colon < 0 || !Number.isSafeInteger(length)) throw new Error(`no bencoded value at byte ${at}`);
  return colon + 1 + length;
}
