/**
 * An NTFS keeps a copy of its boot sector behind its last cluster, where partclone's images end. Windows and ntfsfix
 * look for it there; what a restored filesystem needs is what its first sector says.
 */
import { closeSync, openSync, readSync } from "node:fs";
import type { RawTarget } from "./raw-target.ts";

const SECTOR_BYTES = 512;
const OEM_OFFSET = 3;
const OEM = "NTFS    ";
/** BIOS parameter block: bytes of a sector; sectors of the volume, without the one that holds the copy. */
const SECTOR_BYTES_OFFSET = 11;
const TOTAL_SECTORS_OFFSET = 40;

/** Puts the copy where it belongs, if an NTFS was restored at `offsetBytes` and it lies in its partition. */
export function restoreNtfsBackup(target: RawTarget, offsetBytes: number, lengthBytes: number): void {
  const sector = Buffer.alloc(SECTOR_BYTES);
  const fd = openSync(target.path, "r");
  readSync(fd, sector, 0, SECTOR_BYTES, offsetBytes);
  closeSync(fd);
  if (sector.toString("latin1", OEM_OFFSET, OEM_OFFSET + OEM.length) !== OEM) return;
  const backupBytes = Number(sector.readBigUInt64LE(TOTAL_SECTORS_OFFSET)) * sector.readUInt16LE(SECTOR_BYTES_OFFSET);
  if (backupBytes > 0 && backupBytes + SECTOR_BYTES <= lengthBytes) target.put(offsetBytes + backupBytes, sector);
}
