/**
 * Takes out of an executable what Bun brings for other languages than English: 9 of its megabytes, the densest there are,
 * and 7 of the 52 of a node's image. diskswarm formats nothing in any language.
 *
 * The data is one package of ICU in its "common data" form (ICU's User Guide, "ICU Data", and unicode/udata.h): a header
 * that says what it is, a table of names and offsets, and the items. The package is written anew in its place, with a
 * table of those that stay, so that ICU finds the others missing, as in any ICU that was built without them, and falls
 * back on what has no language ("root"). Offsets are from the table's beginning. An item ends where the next begins, which
 * says nothing of the last.
 */

/** Why the data is left as it is: this Bun keeps it in another way than the one that is known here. */
export class UnicodeDataProblem extends Error {}

export interface Trimmed {
  readonly keptItems: number;
  readonly droppedItems: number;
  /** Zeros now. */
  readonly freedBytes: number;
}

interface Item {
  /** `icudt78l/coll/de.res` */
  readonly name: string;
  readonly offset: number;
  readonly endOffset: number;
}

interface Package {
  readonly tableAt: number;
  /** All but the last. */
  readonly items: readonly Item[];
}

const FORMAT = Buffer.from("CmnD");
/** In the header: its length, two bytes that say that it is one, then from byte 4 on what kind of data follows. */
const MAGIC = 0x27da;
const INFO_BYTES = 20;
const FORMAT_AT = 12;
const ENTRY_BYTES = 8;
const ALIGN_BYTES = 16;
const NAME_BYTES_MAX = 256;
/** Bun packs most items; ICU is told their length by the table. */
const ZSTD_MAGIC = 0xfd2fb528;

const LOCALE = /^[a-z]{2,3}(_[A-Z0-9][A-Za-z0-9]*|_)*$/;
const ENGLISH = /^en(_US(_POSIX)?)?$/;

/** Whether an item is there for a language other than English. `name` as in the table. */
export function isForeign(name: string): boolean {
  const [, stem = "", kind = ""] = /([^/]*)\.([a-z]+)$/.exec(name) ?? [];
  // Dictionaries say where words end in languages that are written without spaces.
  return kind === "dict" || (kind === "res" && LOCALE.test(stem) && !ENGLISH.test(stem));
}

/** Changes `bytes`, an executable. Throws UnicodeDataProblem, and has changed nothing then. */
export function trimUnicodeData(bytes: Buffer): Trimmed {
  const { tableAt, items } = readPackage(bytes);
  const kept = items.filter(({ name }) => !isForeign(name));
  const last = kept.at(-1);
  if (last === undefined || kept.length === items.length) throw new UnicodeDataProblem("no item is for a language");
  if (bytes.readUInt32LE(tableAt + last.offset) === ZSTD_MAGIC)
    throw new UnicodeDataProblem(`${last.name} would be the last, and its length is not known then`);
  const made = makePackage(
    kept.map(({ name, offset, endOffset }) => ({
      name,
      content: bytes.subarray(tableAt + offset, tableAt + endOffset),
    })),
  );
  const roomBytes = items.at(-1)!.endOffset;
  made.copy(bytes, tableAt);
  bytes.fill(0, tableAt + made.length, tableAt + roomBytes);
  return {
    keptItems: kept.length,
    droppedItems: items.length - kept.length,
    freedBytes: roomBytes - made.length,
  };
}

function readPackage(bytes: Buffer): Package {
  const tableAt = findTable(bytes);
  const fail = (what: string): never => {
    throw new UnicodeDataProblem(`the table at byte ${tableAt} ${what}`);
  };
  const roomBytes = bytes.length - tableAt;
  const count = roomBytes < 4 ? 0 : bytes.readUInt32LE(tableAt);
  const firstAt = 4 + count * ENTRY_BYTES;
  if (count < 2 || firstAt > roomBytes) fail(`has ${count} items`);
  const entries = Array.from({ length: count }, (_, i) => {
    const at = tableAt + 4 + i * ENTRY_BYTES;
    const [nameOffset, offset] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    if (nameOffset < firstAt || nameOffset >= roomBytes) fail(`has a name at ${nameOffset}`);
    const end = bytes.indexOf(0, tableAt + nameOffset);
    if (end < 0 || end - tableAt - nameOffset > NAME_BYTES_MAX) fail(`has a name without an end at ${nameOffset}`);
    return { name: bytes.toString("latin1", tableAt + nameOffset, end), offset };
  });
  const items = entries.slice(0, -1).map((entry, i) => ({ ...entry, endOffset: entries[i + 1]!.offset }));
  for (const { name, offset, endOffset } of items) {
    if (offset < firstAt || offset % ALIGN_BYTES !== 0) fail(`has ${name} at ${offset}`);
    if (endOffset - offset < 4 || endOffset > roomBytes) fail(`has ${name} from ${offset} to ${endOffset}`);
  }
  return { tableAt, items };
}

/** Where the package's table begins. The executable has one package, or it is not known which is read. */
function findTable(bytes: Buffer): number {
  const tables: number[] = [];
  for (let at = bytes.indexOf(FORMAT); at >= 0; at = bytes.indexOf(FORMAT, at + 1)) {
    const headerAt = at - FORMAT_AT;
    if (headerAt < 0 || at + INFO_BYTES > bytes.length) continue;
    const [headerBytes, magic, infoBytes] = [0, 2, 4].map((field) => bytes.readUInt16LE(headerAt + field)) as [
      number,
      number,
      number,
    ];
    // Then two bytes without meaning, the order of bytes (little-endian), ASCII, and UTF-16.
    const isOurs = bytes.readUInt32LE(headerAt + 8) === 0x00_02_00_00;
    const isFirstVersion = bytes[at + FORMAT.length] === 1;
    if (magic === MAGIC && infoBytes === INFO_BYTES && isOurs && isFirstVersion) tables.push(headerAt + headerBytes);
  }
  if (tables.length !== 1) throw new UnicodeDataProblem(`${tables.length} packages of ICU's data were found`);
  return tables[0]!;
}

/** A table and the items, in the order given, which has to be that of the names: ICU searches it by halves. */
export function makePackage(items: readonly { readonly name: string; readonly content: Uint8Array }[]): Buffer {
  const names = items.map(({ name }) => Buffer.from(`${name}\0`, "latin1"));
  const table = Buffer.alloc(4 + items.length * ENTRY_BYTES);
  table.writeUInt32LE(items.length);
  let nameOffset = table.length;
  let offset = align(nameOffset + names.reduce((sum, name) => sum + name.length, 0));
  const gap = Buffer.alloc(offset - nameOffset - names.reduce((sum, name) => sum + name.length, 0));
  const contents: Buffer[] = [];
  for (const [i, { content }] of items.entries()) {
    table.writeUInt32LE(nameOffset, 4 + i * ENTRY_BYTES);
    table.writeUInt32LE(offset, 8 + i * ENTRY_BYTES);
    nameOffset += names[i]!.length;
    const padded = Buffer.alloc(align(content.length));
    padded.set(content);
    contents.push(padded);
    offset += padded.length;
  }
  return Buffer.concat([table, ...names, gap, ...contents]);
}

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGN_BYTES) * ALIGN_BYTES;
}
