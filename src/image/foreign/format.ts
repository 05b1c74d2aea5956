/**
 * What a source is, told by its content: a raw disk or image is captured as it is, everything else (virtual disks,
 * images of partclone and Clonezilla, compressed files) has to be opened by the program that knows it. Names are not
 * asked: the `.img` of one program is another's raw disk, and sending a container where its disk was meant would
 * leave a room of machines that do not boot.
 */
import { closeSync, existsSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Codec, codecOf } from "./codecs.ts";

/** qemu's names of the virtual disks that are opened. */
export type DiskDriver = "qcow2" | "qcow" | "vmdk" | "vhdx" | "vdi" | "vpc";

export type SourceFormat =
  | { readonly kind: "raw" }
  | { readonly kind: "virtual-disk"; readonly driver: DiskDriver }
  | { readonly kind: "partclone" }
  /** What is inside shows only when it is unpacked. */
  | { readonly kind: "compressed"; readonly codec: Codec }
  /** A raw image in several files. */
  | { readonly kind: "split" }
  | { readonly kind: "clonezilla" }
  | { readonly kind: "torrent-info" }
  /** Known, and not to be taken for a raw image: `what` it is. */
  | { readonly kind: "unsupported"; readonly what: string };

interface Magic {
  readonly offsetBytes: number;
  readonly bytes: string;
  readonly format: SourceFormat;
}

const disk = (driver: DiskDriver): SourceFormat => ({ kind: "virtual-disk", driver });
const unsupported = (what: string): SourceFormat => ({ kind: "unsupported", what });

/** From each program's own documentation; as Latin-1 text. */
const MAGICS: readonly Magic[] = [
  { offsetBytes: 0, bytes: "QFI\xfb\0\0\0\x01", format: disk("qcow") },
  { offsetBytes: 0, bytes: "QFI\xfb", format: disk("qcow2") },
  { offsetBytes: 0, bytes: "KDMV", format: disk("vmdk") },
  { offsetBytes: 0, bytes: "COWD", format: disk("vmdk") },
  { offsetBytes: 0, bytes: "# Disk DescriptorFile", format: disk("vmdk") },
  { offsetBytes: 0, bytes: "vhdxfile", format: disk("vhdx") },
  { offsetBytes: 64, bytes: "\x7f\x10\xda\xbe", format: disk("vdi") },
  { offsetBytes: 0, bytes: "conectix", format: disk("vpc") },
  { offsetBytes: 0, bytes: "partclone-image", format: { kind: "partclone" } },
  { offsetBytes: 0, bytes: "block_size: ", format: { kind: "torrent-info" } },
  { offsetBytes: 0, bytes: "PaRtImAgE-VoLuMe", format: unsupported("an image of partimage") },
  { offsetBytes: 0, bytes: "\0ntfsclone-image", format: unsupported("an image of ntfsclone") },
];
const HEAD_BYTES = 512;
/** A fixed VHD is a raw disk with this behind it. */
const FOOTER_BYTES = 512;

/** What lies at that path. A path where nothing is, or no file, disk or image folder, is told as raw: whoever opens it says what is wrong. */
export function formatOf(path: string): SourceFormat {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory() && isClonezillaFolder(path)) return { kind: "clonezilla" };
  if (!stat?.isFile()) return { kind: "raw" };
  const fd = openSync(path, "r");
  try {
    const footer = read(fd, Math.max(0, stat.size - FOOTER_BYTES), FOOTER_BYTES);
    return formatOfBytes(read(fd, 0, HEAD_BYTES), footer);
  } finally {
    closeSync(fd);
  }
}

/** The same for a file's first and last 512 bytes, of which a short file has fewer. */
export function formatOfBytes(head: Buffer, footer: Buffer): SourceFormat {
  const found = MAGICS.find(({ offsetBytes, bytes }) => textAt(head, offsetBytes, bytes.length) === bytes);
  if (found) return found.format;
  const codec = codecOf(head);
  if (codec !== null) return { kind: "compressed", codec };
  return textAt(footer, 0, 8) === "conectix" ? disk("vpc") : { kind: "raw" };
}

/** Clonezilla writes `disk` or `parts` (or both) into each of its images. */
function isClonezillaFolder(path: string): boolean {
  return existsSync(join(path, "disk")) || existsSync(join(path, "parts"));
}

function read(fd: number, offsetBytes: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  return bytes.subarray(0, readSync(fd, bytes, 0, lengthBytes, offsetBytes));
}

function textAt(bytes: Buffer, offsetBytes: number, lengthBytes: number): string {
  return bytes.toString("latin1", offsetBytes, offsetBytes + lengthBytes);
}
