/** info["diskswarm"], what our captures say about the disk beside its extents: reading and writing. */
import type { Encodable } from "bencode";
import type { Failure } from "../errors.ts";
import { PARTITIONS_MAX } from "../limits.ts";
import type { BencodeCursor } from "./bencode-scan.ts";
import { NO_RANGES } from "./extents.ts";
import { decodeRanges, encodeRanges } from "./range-codec.ts";
import type { ImageInfo, RangeTable } from "./types.ts";

const VERSION = 1;
const SECTOR_BYTES_MIN = 512;
const SECTOR_BYTES_MAX = 64 * 1024;
const KINDS = ["disk", "partition", "file"] as const;

/** Reads the dictionary at the cursor. Unknown keys are borne: a later version may add what this one can do without. */
export function readImageInfo(cursor: BencodeCursor, refuse: (reason: string) => Failure): ImageInfo {
  let version = 0;
  let diskBytes = 0;
  let sectorBytes = 0;
  let kind: ImageInfo["kind"] | undefined;
  let zeroRanges: RangeTable = NO_RANGES;
  let partitions: string | undefined;
  let filesystems: string[] | undefined;
  let blockBytes: number[] | undefined;

  cursor.enterDict();
  while (cursor.nextKey()) {
    if (cursor.stringIs("version")) version = cursor.readCount();
    else if (cursor.stringIs("disk bytes")) diskBytes = cursor.readCount();
    else if (cursor.stringIs("sector bytes")) sectorBytes = cursor.readCount();
    else if (cursor.stringIs("kind")) kind = readKind(cursor, refuse);
    else if (cursor.stringIs("zero ranges")) zeroRanges = readZeroRanges(cursor, refuse);
    else if (cursor.stringIs("partitions")) partitions = cursor.readText();
    else if (cursor.stringIs("filesystems")) filesystems = readPerPartition(cursor, refuse, () => cursor.readText());
    else if (cursor.stringIs("block bytes")) blockBytes = readPerPartition(cursor, refuse, () => cursor.readCount());
    else cursor.skipValue();
  }
  if (version !== VERSION) throw refuse(`its diskswarm version is ${version}, this program reads ${VERSION}`);
  if (diskBytes === 0) throw refuse("its diskswarm entry names no disk size");
  if (kind === undefined) throw refuse("its diskswarm entry names no kind of source");
  if (!isSectorSize(sectorBytes)) throw refuse(`its sector size is ${sectorBytes} bytes`);
  return { version: VERSION, diskBytes, sectorBytes, kind, zeroRanges, partitions, filesystems, blockBytes };
}

/** The dictionary as data for `bencode.encode`. */
export function imageInfoEntries(image: ImageInfo): Encodable {
  return {
    version: image.version,
    "disk bytes": image.diskBytes,
    "sector bytes": image.sectorBytes,
    kind: image.kind,
    "zero ranges": encodeRanges(image.zeroRanges),
    partitions: image.partitions,
    filesystems: image.filesystems,
    "block bytes": image.blockBytes,
  };
}

function readKind(cursor: BencodeCursor, refuse: (reason: string) => Failure): ImageInfo["kind"] {
  cursor.readString();
  for (const kind of KINDS) if (cursor.stringIs(kind)) return kind;
  throw refuse(`its kind of source is ${cursor.quotedString()}`);
}

function readZeroRanges(cursor: BencodeCursor, refuse: (reason: string) => Failure): RangeTable {
  const ranges = decodeRanges(cursor.readBytes());
  if (typeof ranges === "string") throw refuse(`its zero ranges are malformed: ${ranges}`);
  return ranges;
}

function readPerPartition<T>(cursor: BencodeCursor, refuse: (reason: string) => Failure, read: () => T): T[] {
  const items: T[] = [];
  cursor.enterList();
  while (cursor.nextItem()) {
    if (items.length === PARTITIONS_MAX) throw refuse(`it names more than ${PARTITIONS_MAX} filesystems`);
    items.push(read());
  }
  return items;
}

function isSectorSize(bytes: number): boolean {
  return bytes >= SECTOR_BYTES_MIN && bytes <= SECTOR_BYTES_MAX && (bytes & (bytes - 1)) === 0;
}
