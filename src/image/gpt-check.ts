/**
 * Are both copies of a GUID partition table sound? sfdisk quietly goes on with the one that is, and a clone of
 * such a disk would be as damaged as its source; whoever makes a golden image wants to know it before.
 *
 * UEFI specification 2.10, 5.3: header at LBA 1 and, mirrored, at the disk's last LBA, each with a CRC-32 of
 * itself and of its partition entries; the MBR before it has one entry of type 0xEE.
 */
import { MiB } from "../units.ts";
import type { ReadDisk } from "./disk-reader.ts";

export interface GptState {
  /** What is wrong with each copy, as words that follow "its header", or null. */
  readonly primary: string | null;
  readonly backup: string | null;
  /** Where the backup's header is, or should be. */
  readonly backupOffsetBytes: number;
}

interface Header {
  readonly problem: string | null;
  readonly alternateLba: number;
}

const PROTECTIVE_TYPE = 0xee;
const HEADER_BYTES = 92;
/** 128 entries of 128 bytes are usual; the specification allows more. */
const ENTRIES_BYTES_MAX = 4 * MiB;

/** The state of the GPT, or null where the disk has none: its MBR says so. */
export function checkGpt(read: ReadDisk, diskBytes: number, sectorBytes: number): GptState | null {
  if (!hasProtectiveEntry(read(0, 512))) return null;
  const lastLba = Math.floor(diskBytes / sectorBytes) - 1;
  const primary = checkHeader(read, sectorBytes, 1, lastLba);
  const backupLba = primary.problem === null ? primary.alternateLba : lastLba;
  const backup = checkHeader(read, sectorBytes, backupLba, lastLba);
  return { primary: primary.problem, backup: backup.problem, backupOffsetBytes: backupLba * sectorBytes };
}

/** One of the four entries, at any place: a hybrid MBR has others beside it. */
function hasProtectiveEntry(mbr: Buffer): boolean {
  if (mbr.length < 512 || mbr.readUInt16LE(510) !== 0xaa55) return false;
  return [0, 1, 2, 3].some((entry) => mbr[446 + entry * 16 + 4] === PROTECTIVE_TYPE);
}

function checkHeader(read: ReadDisk, sectorBytes: number, lba: number, lastLba: number): Header {
  const bad = (problem: string): Header => ({ problem, alternateLba: 0 });
  if (lba < 1 || lba > lastLba) return bad("lies beyond the disk's end");
  const sector = read(lba * sectorBytes, sectorBytes);
  if (sector.length < sectorBytes || sector.toString("latin1", 0, 8) !== "EFI PART") return bad("is missing");
  const headerBytes = sector.readUInt32LE(12);
  if (headerBytes < HEADER_BYTES || headerBytes > sectorBytes) return bad("has an impossible size");
  const header = Buffer.from(sector.subarray(0, headerBytes));
  header.writeUInt32LE(0, 16);
  if (Bun.hash.crc32(header) !== sector.readUInt32LE(16)) return bad("has a wrong checksum");
  if (sector.readBigUInt64LE(24) !== BigInt(lba)) return bad("belongs to another place");
  const entriesBytes = sector.readUInt32LE(80) * sector.readUInt32LE(84);
  const entriesOffset = Number(sector.readBigUInt64LE(72)) * sectorBytes;
  if (entriesBytes > ENTRIES_BYTES_MAX || entriesOffset + entriesBytes > (lastLba + 1) * sectorBytes)
    return bad("points to entries beyond the disk's end");
  if (Bun.hash.crc32(read(entriesOffset, entriesBytes)) !== sector.readUInt32LE(88))
    return bad("has entries with a wrong checksum");
  return { problem: null, alternateLba: Number(sector.readBigUInt64LE(32)) };
}
