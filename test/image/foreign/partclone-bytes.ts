/** Head and bitmap of an image as partclone writes them, from IMAGE_FORMATS.md alone. */

/** `used` are block numbers. */
export function partcloneBytes(
  version: 1 | 2,
  blockCount: number,
  blockBytes: number,
  used: readonly number[],
  deviceBytes = blockCount * blockBytes,
): Buffer {
  const sizes = { blockCount, blockBytes, deviceBytes, usedCount: used.length };
  return version === 1 ? version1(sizes, used) : version2(sizes, used);
}

interface Sizes {
  readonly blockCount: number;
  readonly blockBytes: number;
  readonly deviceBytes: number;
  readonly usedCount: number;
}

function version1({ blockCount, blockBytes, deviceBytes, usedCount }: Sizes, used: readonly number[]): Buffer {
  const head = Buffer.alloc(4160);
  head.write("partclone-image", 0);
  head.write("EXTFS", 15);
  head.write("0001", 30);
  head.writeUInt32LE(blockBytes, 36);
  for (const [i, value] of [deviceBytes, blockCount, usedCount].entries())
    head.writeBigUInt64LE(BigInt(value), 40 + i * 8);
  const map = Buffer.alloc(blockCount);
  for (const block of used) map[block] = 1;
  return Buffer.concat([head, map, Buffer.from("BiTmAgIc")]);
}

function version2({ blockCount, blockBytes, deviceBytes, usedCount }: Sizes, used: readonly number[]): Buffer {
  const head = Buffer.alloc(110);
  head.write("partclone-image", 0);
  head.write("0.3.23", 16);
  head.write("0002", 30);
  head.writeUInt16LE(0xc0de, 34);
  head.write("EXTFS", 36);
  for (const [i, value] of [deviceBytes, blockCount, usedCount, usedCount].entries())
    head.writeBigUInt64LE(BigInt(value), 52 + i * 8);
  head.writeUInt32LE(blockBytes, 84);
  head.writeUInt32LE(18, 88);
  for (const [i, value] of [2, 64, 1, 4].entries()) head.writeUInt16LE(value, 92 + i * 2);
  head.writeUInt32LE(256, 100);
  head[104] = 1;
  head[105] = 1;
  head.writeUInt32LE(crcOf(head.subarray(0, 106)), 106);
  const map = Buffer.alloc(Math.ceil(blockCount / 8));
  for (const block of used) map[block >> 3] |= 1 << (block & 7);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crcOf(map));
  return Buffer.concat([head, map, crc]);
}

/** CRC-32, reflected, from all ones and without the inversion at its end. */
function crcOf(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc >>> 0;
}
