/**
 * A tracker's reply as a tree. It comes from outside and may be anything; the `bencode` package runs forever on
 * a negative length and recurses without a limit, so the torrent's own strict cursor walks it. Keys may stand in
 * any order, as some trackers send them. Pure; byte strings returned are views of the input.
 */
import { BencodeCursor } from "../torrent/bencode-scan.ts";

export type BencodeValue = number | Uint8Array | BencodeValue[] | BencodeDictionary;
/** Keys as Latin-1: one character is one byte. */
export type BencodeDictionary = Map<string, BencodeValue>;

/** Reads one value that must fill the input. Throws a BencodeFault. */
export function decodeBencode(bytes: Uint8Array): BencodeValue {
  const cursor = new BencodeCursor(bytes, 0, bytes.length, false);
  const value = readValue(cursor);
  cursor.finish();
  return value;
}

/** Recursion is bounded by the cursor's limit of nesting. */
function readValue(cursor: BencodeCursor): BencodeValue {
  const type = cursor.type();
  if (type === "integer") return cursor.readInteger();
  if (type === "string") return cursor.readBytes();
  if (type === "list") return readList(cursor);
  return readDictionary(cursor);
}

function readList(cursor: BencodeCursor): BencodeValue[] {
  const list: BencodeValue[] = [];
  cursor.enterList();
  while (cursor.nextItem()) list.push(readValue(cursor));
  return list;
}

function readDictionary(cursor: BencodeCursor): BencodeDictionary {
  const dictionary: BencodeDictionary = new Map();
  cursor.enterDict();
  while (cursor.nextKey()) dictionary.set(cursor.stringText(), readValue(cursor));
  return dictionary;
}
