/** Compressed files by their first bytes, and the programs that unpack them. */
import type { Tool } from "../external-tool.ts";

export interface Codec {
  /** As in `sda1.ext4-ptcl-img.NAME`. */
  readonly name: string;
  readonly magic: string;
  readonly tool: Tool;
}

const codec = (name: string, magic: string, program: string, packageName = program): Codec => ({
  name,
  magic,
  tool: { program, package: packageName, isNeeded: true },
});

/** What Clonezilla compresses with, as far as its tools can read a pipe (lrzip cannot); magic as Latin-1 text. */
export const CODECS: readonly Codec[] = [
  codec("gz", "\x1f\x8b\x08", "gzip"),
  codec("zst", "\x28\xb5\x2f\xfd", "zstd"),
  codec("xz", "\xfd7zXZ\0", "xz", "xz-utils"),
  codec("bz2", "BZh", "bzip2"),
  codec("lz4", "\x04\x22\x4d\x18", "lz4"),
  codec("lzo", "\x89LZO\0\r\n\x1a\n", "lzop"),
  codec("lzip", "LZIP", "lzip"),
];

/** From standard input to standard output. */
export const UNPACK_OPTIONS = ["-d", "-c"];

/** The codec whose magic the bytes begin with, or null. */
export function codecOf(head: Buffer): Codec | null {
  return CODECS.find(({ magic }) => head.toString("latin1", 0, magic.length) === magic) ?? null;
}
