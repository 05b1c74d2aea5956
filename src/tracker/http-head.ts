/**
 * The head of an HTTP/1.x request (RFC 9112), read in one pass and strictly: whatever is not plainly a request
 * is malformed, so nothing is ever understood in two ways. Pure; the bytes are only read.
 *
 * What a tracker answers itself (GET of an announce or a scrape, without a body) is told apart here; the
 * rest of a head is of no interest to it.
 */

/** What a request asks for. */
export const Target = { other: 0, announce: 1, scrape: 2 } as const;
export type Target = (typeof Target)[keyof typeof Target];

const CR = 13;
const LF = 10;
const SPACE = 0x20;
const COLON = 0x3a;
const QUESTION = 0x3f;
const VERSION_BYTES = 8;
const END_BYTES = 4;

/** RFC 9110's token characters, by code. */
const IS_TOKEN = new Uint8Array(256);
for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
  IS_TOKEN[character.charCodeAt(0)] = 1;

const HTTP_1 = codes("HTTP/1.");
const GET = codes("GET ");
const SCHEME = codes("http://");
const ANNOUNCE = codes("/announce");
const SCRAPE = codes("/scrape");
const CONNECTION = codes("connection");
const CONTENT_LENGTH = codes("content-length");
const TRANSFER_ENCODING = codes("transfer-encoding");
const UPGRADE = codes("upgrade");
const CLOSE = codes("close");
const KEEP_ALIVE = codes("keep-alive");

/** Index behind the empty line that ends a head, looking from `from`; -1 where it is not there yet. */
export function headEnd(bytes: Uint8Array, from: number, to: number): number {
  for (let at = from + END_BYTES - 1; at < to; at++) {
    if (bytes[at] !== LF || bytes[at - 1] !== CR) continue;
    if (bytes[at - 2] === LF && bytes[at - 3] === CR) return at + 1;
  }
  return -1;
}

/** One head at a time; an instance is used again for the next. */
export class HttpHead {
  target: Target = Target.other;
  isGet = false;
  /** Where the raw query stands in the bytes; empty where there is none. */
  queryFrom = 0;
  queryTo = 0;
  /** The client goes on with this connection. */
  keepAlive = false;
  /** The client speaks HTTP/1.0, which closes unless told otherwise. */
  isOld = false;
  hasBody = false;
  /** It asks for another protocol (WebSocket). */
  hasUpgrade = false;
  /** Index behind the request line. */
  headersFrom = 0;
  /** Where a `Connection` header's name begins, for each. */
  readonly connectionAt: number[] = [];

  /** Reads the head from `from` to `to`, which is what `headEnd` said. False where it is malformed. */
  parse(bytes: Uint8Array, from: number, to: number): boolean {
    this.hasBody = false;
    this.hasUpgrade = false;
    this.connectionAt.length = 0;
    let at = this.#requestLine(bytes, from);
    if (at < 0) return false;
    this.headersFrom = at;
    const end = to - 2;
    while (at < end) {
      at = this.#header(bytes, at);
      if (at < 0) return false;
    }
    return at === end;
  }

  /** Method, target and version. Returns the index behind the line, -1 where it is none. */
  #requestLine(bytes: Uint8Array, from: number): number {
    let at = from;
    while (IS_TOKEN[bytes[at]!] === 1) at++;
    if (at === from || bytes[at] !== SPACE) return -1;
    this.isGet = startsWith(bytes, from, GET);
    const targetAt = ++at;
    let queryMark = -1;
    for (let byte = bytes[at]!; byte > SPACE && byte !== 0x7f; byte = bytes[++at]!)
      if (byte === QUESTION && queryMark < 0) queryMark = at;
    if (at === targetAt || bytes[at] !== SPACE) return -1;
    this.#readTarget(bytes, targetAt, queryMark < 0 ? at : queryMark);
    this.queryFrom = queryMark < 0 ? at : queryMark + 1;
    this.queryTo = at;
    const minor = bytes[at + VERSION_BYTES];
    if (!startsWith(bytes, at + 1, HTTP_1) || (minor !== 0x30 && minor !== 0x31)) return -1;
    this.isOld = minor === 0x30;
    this.keepAlive = !this.isOld;
    at += VERSION_BYTES + 1;
    return bytes[at] === CR && bytes[at + 1] === LF ? at + 2 : -1;
  }

  /** The path may stand behind `http://host`, the form that proxies are sent. */
  #readTarget(bytes: Uint8Array, from: number, to: number): void {
    let pathAt = from;
    if (bytes[from] !== 0x2f && startsWithLower(bytes, from, SCHEME)) {
      pathAt += SCHEME.length;
      while (pathAt < to && bytes[pathAt] !== 0x2f) pathAt++;
    }
    if (to - pathAt === ANNOUNCE.length && startsWith(bytes, pathAt, ANNOUNCE)) this.target = Target.announce;
    else if (to - pathAt === SCRAPE.length && startsWith(bytes, pathAt, SCRAPE)) this.target = Target.scrape;
    else this.target = Target.other;
  }

  /** One header. Returns the index behind its line, -1 where it is none: a folded line, a control character. */
  #header(bytes: Uint8Array, from: number): number {
    let at = from;
    while (IS_TOKEN[bytes[at]!] === 1) at++;
    if (at === from || bytes[at] !== COLON) return -1;
    const nameBytes = at - from;
    let valueFrom = ++at;
    for (let byte = bytes[at]!; (byte >= SPACE && byte !== 0x7f) || byte === 9; ) byte = bytes[++at]!;
    if (bytes[at] !== CR || bytes[at + 1] !== LF) return -1;
    let valueTo = at;
    while (valueFrom < valueTo && isBlank(bytes[valueFrom]!)) valueFrom++;
    while (valueFrom < valueTo && isBlank(bytes[valueTo - 1]!)) valueTo--;
    this.#note(bytes, from, nameBytes, valueFrom, valueTo);
    return at + 2;
  }

  #note(bytes: Uint8Array, from: number, nameBytes: number, valueFrom: number, valueTo: number): void {
    if (nameBytes === CONNECTION.length && startsWithLower(bytes, from, CONNECTION)) {
      this.connectionAt.push(from);
      if (hasWord(bytes, valueFrom, valueTo, CLOSE)) this.keepAlive = false;
      else if (this.isOld && hasWord(bytes, valueFrom, valueTo, KEEP_ALIVE)) this.keepAlive = true;
    } else if (nameBytes === CONTENT_LENGTH.length && startsWithLower(bytes, from, CONTENT_LENGTH)) {
      if (valueTo - valueFrom !== 1 || bytes[valueFrom] !== 0x30) this.hasBody = true;
    } else if (nameBytes === TRANSFER_ENCODING.length && startsWithLower(bytes, from, TRANSFER_ENCODING)) {
      this.hasBody = true;
    } else if (nameBytes === UPGRADE.length && startsWithLower(bytes, from, UPGRADE)) {
      this.hasUpgrade = true;
    }
  }
}

function codes(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function isBlank(byte: number): boolean {
  return byte === SPACE || byte === 9;
}

function startsWith(bytes: Uint8Array, at: number, wanted: Uint8Array): boolean {
  for (let n = 0; n < wanted.length; n++) if (bytes[at + n] !== wanted[n]) return false;
  return true;
}

/** The same for a lower-case word, whatever the case of the bytes. */
function startsWithLower(bytes: Uint8Array, at: number, wanted: Uint8Array): boolean {
  for (let n = 0; n < wanted.length; n++) {
    const byte = bytes[at + n]!;
    if ((byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte) !== wanted[n]) return false;
  }
  return true;
}

/** Whether a comma-separated list has that word. */
function hasWord(bytes: Uint8Array, from: number, to: number, word: Uint8Array): boolean {
  for (let at = from; at + word.length <= to; at++) {
    if (!startsWithLower(bytes, at, word)) continue;
    const before = at === from || isBlank(bytes[at - 1]!) || bytes[at - 1] === 0x2c;
    const behind = at + word.length;
    if (before && (behind === to || isBlank(bytes[behind]!) || bytes[behind] === 0x2c)) return true;
  }
  return false;
}
