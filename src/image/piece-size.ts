/**
 * Which piece size an image gets. The number of pieces should be near PIECES_WANTED, so the amount of
 * data has to be known before the first byte is hashed, but reading a disk twice only for that would double
 * the time of a capture. So a few hundred blocks, evenly spread over what may be data, are looked at first:
 * the share of them that is not zero is the share of data, near enough for a power of two. The places are
 * fixed, so the same source always gives the same torrent.
 */
import { usageError } from "../errors.ts";
import { PIECE_BYTES_MAX, PIECE_BYTES_MIN, PIECES_WANTED } from "../limits.ts";
import { formatBytes, KiB } from "../units.ts";

/** Below this, automatic pieces only make the hash list longer: small images end within a second anyway. */
const PIECE_BYTES_AUTO_MIN = 256 * KiB;
/** On a hard disk these cost some 2 seconds; they place the share within 3 percent of the truth. */
export const SAMPLES = 256;

/** Power of two from 256 KiB to 16 MiB that makes at most PIECES_WANTED pieces where it can. */
export function automaticPieceBytes(dataBytes: number): number {
  let pieceBytes = PIECE_BYTES_AUTO_MIN;
  while (pieceBytes < PIECE_BYTES_MAX && dataBytes / pieceBytes > PIECES_WANTED) pieceBytes *= 2;
  return pieceBytes;
}

/** Throws a usage failure where `pieceBytes` is no piece size. */
export function checkPieceBytes(pieceBytes: number): void {
  const isPowerOfTwo = Number.isInteger(Math.log2(pieceBytes));
  if (isPowerOfTwo && pieceBytes >= PIECE_BYTES_MIN && pieceBytes <= PIECE_BYTES_MAX) return;
  const range = `${formatBytes(PIECE_BYTES_MIN)} to ${formatBytes(PIECE_BYTES_MAX)}`;
  throw usageError(`--piece-size is ${formatBytes(pieceBytes)} but must be a power of two from ${range}, such as 4M`);
}
