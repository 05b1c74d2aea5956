/**
 * A volume as HFS+ describes it (Apple TN1150), without files: Debian 12 has no mkfs for it. Volume header,
 * allocation file and what that calls used are real; the trees are empty blocks.
 */
import { closeSync, openSync } from "node:fs";
import { writeFully } from "./image.ts";

const BLOCK_BYTES = 4096;
const HEADER_OFFSET = 1024;
const HEADER_BYTES = 512;
const ATTRIBUTE_UNMOUNTED = 0x100;
const ALLOCATION_BLOCK = 1;

/** Writes a volume of `lengthBytes` whose used blocks are its own and those of `usedRuns` (first block and count). */
export function writeHfsPlus(
  device: string,
  lengthBytes: number,
  usedRuns: readonly (readonly [number, number])[],
): void {
  const blocks = lengthBytes / BLOCK_BYTES;
  const bitmap = Buffer.alloc(Math.ceil(blocks / 8));
  const bitmapBlocks = Math.ceil(bitmap.length / BLOCK_BYTES);
  const extentsBlock = ALLOCATION_BLOCK + bitmapBlocks;
  const own: (readonly [number, number])[] = [
    [0, extentsBlock + 2],
    [blocks - 1, 1],
  ];
  let used = 0;
  for (const [first, count] of [...own, ...usedRuns]) {
    for (let block = first; block < first + count; block++) bitmap[block >> 3] |= 0x80 >> (block & 7);
    used += count;
  }
  const header = Buffer.alloc(HEADER_BYTES);
  header.write("H+", 0, "latin1");
  header.writeUInt16BE(4, 2);
  header.writeUInt32BE(ATTRIBUTE_UNMOUNTED, 4);
  header.writeUInt32BE(BLOCK_BYTES, 40);
  header.writeUInt32BE(blocks, 44);
  header.writeUInt32BE(blocks - used, 48);
  header.writeUInt32BE(16, 64);
  writeFork(header, 112, ALLOCATION_BLOCK, bitmapBlocks);
  writeFork(header, 192, extentsBlock, 1);
  writeFork(header, 272, extentsBlock + 1, 1);
  const fd = openSync(device, "r+");
  writeFully(fd, Buffer.alloc((extentsBlock + 2) * BLOCK_BYTES), 0);
  writeFully(fd, header, HEADER_OFFSET);
  writeFully(fd, header, lengthBytes - HEADER_OFFSET);
  writeFully(fd, bitmap, ALLOCATION_BLOCK * BLOCK_BYTES);
  closeSync(fd);
}

/** HFSPlusForkData: logical size, clump size, blocks, the first extent. */
function writeFork(header: Buffer, at: number, first: number, count: number): void {
  header.writeBigUInt64BE(BigInt(count * BLOCK_BYTES), at);
  header.writeUInt32BE(count, at + 12);
  header.writeUInt32BE(first, at + 16);
  header.writeUInt32BE(count, at + 20);
}
