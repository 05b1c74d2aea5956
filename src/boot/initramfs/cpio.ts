/**
 * Writes the archive that kernels unpack as their first root: cpio in its "newc" form (cpio(5); the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst). Pure: bytes out, in pieces.
 *
 * The same entries give the same bytes: no times, no owner but root, inode numbers in the order of the entries.
 */
import { assert } from "../../errors.ts";

export type CpioEntry =
  | { readonly type: "folder"; readonly path: string; readonly mode: number }
  | { readonly type: "file"; readonly path: string; readonly mode: number; readonly lengthBytes: number }
  | { readonly type: "link"; readonly path: string; readonly target: string }
  | {
      readonly type: "device";
      readonly path: string;
      readonly mode: number;
      readonly major: number;
      readonly minor: number;
    };

/** The type of a file in its mode (inode(7)). */
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

/** Sizes are eight hexadecimal digits. */
export const CPIO_FILE_BYTES_MAX = 0xffff_ffff;
const ALIGN_BYTES = 4;
const TRAILER = "TRAILER!!!";

/** What stands before an entry's content: its header and its name. `inode` is 1 for the first entry and so on. */
export function cpioHeader(entry: CpioEntry, inode: number): Uint8Array {
  const { mode, lengthBytes, links, device } = fieldsOf(entry);
  return headerBytes(entry.path, [inode, mode, 0, 0, links, 0, lengthBytes, 0, 0, ...device]);
}

/** What stands after the content of `lengthBytes` bytes, so that the next header is aligned. */
export function cpioPadding(lengthBytes: number): Uint8Array {
  return new Uint8Array(-lengthBytes & (ALIGN_BYTES - 1));
}

/** The content of an entry that has none in a file: where a link leads. */
export function cpioInlineContent(entry: CpioEntry): Uint8Array {
  return entry.type === "link" ? new TextEncoder().encode(entry.target) : new Uint8Array(0);
}

/** The end of an archive. Another archive, compressed or not, may follow it. */
export function cpioTrailer(): Uint8Array {
  return headerBytes(TRAILER, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

function fieldsOf(entry: CpioEntry) {
  const plain = { lengthBytes: 0, links: 1, device: [0, 0] as const };
  switch (entry.type) {
    case "folder":
      return { ...plain, mode: S_IFDIR | entry.mode, links: 2 };
    case "file":
      return { ...plain, mode: S_IFREG | entry.mode, lengthBytes: entry.lengthBytes };
    case "link":
      return { ...plain, mode: S_IFLNK | 0o777, lengthBytes: cpioInlineContent(entry).length };
    case "device":
      return { ...plain, mode: S_IFCHR | entry.mode, device: [entry.major, entry.minor] as const };
  }
}

/** `fields`: all between the magic number and the name's length. */
function headerBytes(path: string, fields: readonly number[]): Uint8Array {
  assert(!path.startsWith("/") && path !== "" && !path.includes("\0"), `no name for an archive: ${path}`);
  const name = new TextEncoder().encode(`${path}\0`);
  const text = ["070701", ...[...fields, name.length, 0].map(hex)].join("");
  const header = new Uint8Array(text.length + name.length + (-(text.length + name.length) & (ALIGN_BYTES - 1)));
  header.set(new TextEncoder().encode(text));
  header.set(name, text.length);
  return header;
}

function hex(value: number): string {
  assert(Number.isSafeInteger(value) && value >= 0 && value <= CPIO_FILE_BYTES_MAX, `no cpio field: ${value}`);
  return value.toString(16).toUpperCase().padStart(8, "0");
}
