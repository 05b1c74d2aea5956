/**
 * What is accepted as the payload of a packed block: exactly one zstd frame (RFC 8878) that says it inflates to the
 * block's length.
 *
 * It is looked at before anything is inflated, so that no frame can make the inflating side allocate more than a
 * block or read past what arrived: the sizes of its blocks must add up to the payload, to the byte. Whether the
 * blocks inflate to what the frame says is for the one who inflates.
 */

const MAGIC = 0xfd2fb528;
/** Magic, descriptor, one byte of window or content size, one block header. */
const FRAME_BYTES_MIN = 9;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
/** Window of the largest block there is: nobody needs a larger one to inflate it. */
const WINDOW_BYTES_MAX = 1024 * 1024;

const enum BlockType {
  raw = 0,
  repeated = 1,
  compressed = 2,
}

/** Null where `bytes` are one frame of `plainBytes` of content; else what is wrong, as a clause. */
export function zstdFrameProblem(bytes: Uint8Array, plainBytes: number): string | null {
  if (bytes.length < FRAME_BYTES_MIN || littleEndian(bytes, 0, 4) !== MAGIC) return "is no zstd frame";
  const descriptor = bytes[4]!;
  if ((descriptor & 0x0b) !== 0) return "names a dictionary or uses reserved bits";
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeCode = descriptor >> 6;
  const sizeBytes = sizeCode === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeCode;
  if (sizeBytes === 0) return "does not say how long it is";
  const sizeAt = isSingleSegment ? 5 : 6;
  const blocksAt = sizeAt + sizeBytes;
  if (blocksAt + BLOCK_HEADER_BYTES > bytes.length) return "is cut off";
  if (!isSingleSegment && windowBytes(bytes[5]!) > WINDOW_BYTES_MAX) return "asks for a large window";
  const contentBytes = littleEndian(bytes, sizeAt, sizeBytes) + (sizeBytes === 2 ? 256 : 0);
  if (contentBytes !== plainBytes) return `is of ${contentBytes} bytes, not ${plainBytes}`;
  const endAt = blocksEnd(bytes, blocksAt);
  if (endAt < 0) return "has a block that cannot be";
  const checksumBytes = (descriptor & 0x04) !== 0 ? CHECKSUM_BYTES : 0;
  return endAt + checksumBytes === bytes.length ? null : "does not end where the payload does";
}

/** Where the last block ends; -1 where a block does not fit or is of no known type. */
function blocksEnd(bytes: Uint8Array, blocksAt: number): number {
  for (let at = blocksAt; at + BLOCK_HEADER_BYTES <= bytes.length; ) {
    const header = littleEndian(bytes, at, BLOCK_HEADER_BYTES);
    const type = (header >> 1) & 3;
    if (type > BlockType.compressed) return -1;
    at += BLOCK_HEADER_BYTES + (type === BlockType.repeated ? 1 : header >> 3);
    if (at > bytes.length) return -1;
    if ((header & 1) === 1) return at;
  }
  return -1;
}

function windowBytes(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function littleEndian(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = count - 1; i >= 0; i--) value = value * 256 + bytes[at + i]!;
  return value;
}
