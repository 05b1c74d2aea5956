/** Small reads of a disk's structures (headers, superblocks) through the page cache. */
import { readSync } from "node:fs";

/** Returns that many bytes of the disk, fewer at its end. */
export type ReadDisk = (offsetBytes: number, lengthBytes: number) => Buffer;

/** Reads from an open descriptor, which stays the caller's. */
export function diskReader(fd: number): ReadDisk {
  return (offsetBytes, lengthBytes) => {
    const bytes = Buffer.alloc(lengthBytes);
    return bytes.subarray(0, readSync(fd, bytes, 0, lengthBytes, offsetBytes));
  };
}
