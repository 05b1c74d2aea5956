/**
 * Reads info["files"] straight into typed arrays: every file is an extent whose name is its disk offset in hex
 * (EZIO's and partclone's layout). Nothing is allocated per file.
 *
 * A torrent of ordinary files is refused here, because its names say nothing about where bytes belong on a disk.
 */
import type { Failure } from "../errors.ts";
import { EXTENTS_MAX } from "../limits.ts";
import type { BencodeCursor } from "./bencode-scan.ts";
import { rangesProblem } from "./extents.ts";

export interface FileList {
  /** Files with at least one byte. */
  readonly count: number;
  readonly diskOffsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
  /** Why these cannot be extents of one disk, or null. */
  readonly problem: string | null;
}

type Refuse = (reason: string) => Failure;

/** EZIO and partclone write 32; fewer digits say the same. */
const OFFSET_DIGITS_MAX = 32;
const INITIAL_CAPACITY = 1024;
const UNSET = -1;
const PAD_ATTRIBUTE = 0x70;
const LINK_ATTRIBUTE = 0x6c;
const NUL = 0;
const SLASH = 0x2f;

/** Reads the list at the cursor. `refuse` makes the failure of a reason. */
export function readFileList(cursor: BencodeCursor, refuse: Refuse): FileList {
  let diskOffsetBytes = new Float64Array(INITIAL_CAPACITY);
  let lengthBytes = new Float64Array(INITIAL_CAPACITY);
  const file = { diskOffset: UNSET, length: UNSET };
  let count = 0;
  let index = 0;
  cursor.enterList();
  for (; cursor.nextItem(); index++) {
    if (index === EXTENTS_MAX) throw refuse(`it has more than ${EXTENTS_MAX} files`);
    readFile(cursor, index, file, refuse);
    // A file without bytes has no place in the payload and nothing to write.
    if (file.length === 0) continue;
    if (count === diskOffsetBytes.length) {
      diskOffsetBytes = grown(diskOffsetBytes);
      lengthBytes = grown(lengthBytes);
    }
    diskOffsetBytes[count] = file.diskOffset;
    lengthBytes[count] = file.length;
    count++;
  }
  const problem = rangesProblem(diskOffsetBytes, lengthBytes, count);
  return { count, diskOffsetBytes, lengthBytes, problem: problem === null ? null : `of its extents, ${problem}` };
}

function readFile(
  cursor: BencodeCursor,
  index: number,
  file: { diskOffset: number; length: number },
  refuse: Refuse,
): void {
  file.diskOffset = UNSET;
  file.length = UNSET;
  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs("length")) file.length = cursor.readCount();
    else if (cursor.stringIs("path")) file.diskOffset = readPath(cursor, index, refuse);
    else if (cursor.stringIs("attr")) checkAttributes(cursor, index, refuse);
    else cursor.skipValue();
  }
  if (file.length === UNSET) throw refuse(`file ${index} has no length`);
  if (file.diskOffset === UNSET) throw refuse(`file ${index} has no path`);
}

function readPath(cursor: BencodeCursor, index: number, refuse: Refuse): number {
  cursor.enterList();
  if (!cursor.nextItem()) throw refuse(`file ${index} has an empty path`);
  cursor.readString();
  const offset = offsetOfName(cursor);
  if (offset === null) throw refuse(notAnOffset(cursor, index));
  if (offset > Number.MAX_SAFE_INTEGER)
    throw refuse(`file ${index} is named for disk offset 0x${cursor.stringText()}, beyond 2^53`);
  if (cursor.nextItem())
    throw refuse(`the path of file ${index} has several components; its files are no extents of a disk`);
  return offset;
}

function notAnOffset(cursor: BencodeCursor, index: number): string {
  const named = `file ${index} is named ${cursor.quotedString()}`;
  if (cursor.stringIs(".") || cursor.stringIs("..")) return `${named}, a path that leaves its directory`;
  const name = cursor.bytes.subarray(cursor.stringStart, cursor.stringEnd);
  if (name.includes(NUL) || name.includes(SLASH)) return `${named}, which no file can be`;
  return `${named}, no disk offset in hex; a torrent of several files must be a disk's extents`;
}

/** Value of the hex digits read last, or null where they are none. Beyond 2^53 it is inexact and only compared. */
function offsetOfName(cursor: BencodeCursor): number | null {
  const { bytes, stringStart, stringEnd } = cursor;
  const digits = stringEnd - stringStart;
  if (digits < 1 || digits > OFFSET_DIGITS_MAX) return null;
  let value = 0;
  for (let at = stringStart; at < stringEnd; at++) {
    const digit = hexDigit(bytes[at]!);
    if (digit < 0) return null;
    value = value * 16 + digit;
  }
  return value;
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** BEP 47. A padding file or a link would be written to the disk as data. */
function checkAttributes(cursor: BencodeCursor, index: number, refuse: Refuse): void {
  const attributes = cursor.readBytes();
  if (attributes.includes(PAD_ATTRIBUTE))
    throw refuse(`file ${index} is padding (BEP 47), which would be written to the disk`);
  if (attributes.includes(LINK_ATTRIBUTE)) throw refuse(`file ${index} is a symbolic link`);
}

function grown(array: Float64Array): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(array.length * 2);
  larger.set(array);
  return larger;
}
