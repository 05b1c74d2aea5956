/**
 * Sizes, durations and the index types of the whole program.
 *
 * A branded type is a plain number at run time; the brand keeps a piece index from being passed
 * where a disk offset is meant. Only the functions of this file mint them.
 */

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** Index of a piece in a torrent, 0 to pieceCount - 1. */
export type PieceIndex = Branded<"PieceIndex">;
/** Bytes from the first byte of the disk, partition or file being imaged. */
export type DiskOffset = Branded<"DiskOffset">;
/** Bytes from the first byte of the torrent's payload (all extents joined). */
export type TorrentOffset = Branded<"TorrentOffset">;

/** Mints a piece index. The caller has checked the range; a value that is no index is a bug. */
export function pieceIndex(value: number): PieceIndex {
  assertIndex(value, "piece index");
  return value as PieceIndex;
}

/** Mints a disk offset in bytes. A value that is no safe non-negative integer is a bug. */
export function diskOffset(value: number): DiskOffset {
  assertIndex(value, "disk offset");
  return value as DiskOffset;
}

/** Mints an offset into the torrent's payload in bytes. A value that is no safe non-negative integer is a bug. */
export function torrentOffset(value: number): TorrentOffset {
  assertIndex(value, "torrent offset");
  return value as TorrentOffset;
}

function assertIndex(value: number, what: string): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${what} out of range: ${value}`);
}

const SIZE_UNITS: Record<string, number> = { "": 1, K: KiB, M: MiB, G: GiB, T: TiB };

/**
 * Reads a size such as `64M`, `4096` or `1.5G` (factors of 1024; `KiB`, `MB` and lower case are accepted).
 * Returns bytes, or null where the text is no size.
 */
export function parseSize(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  if (!match) return null;
  const bytes = Math.round(Number(match[1]) * SIZE_UNITS[match[2]!.toUpperCase()]!);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

const DURATION_UNITS_MS: Record<string, number> = { "": 1000, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Reads a duration such as `30s`, `5m`, `1h`, `250ms` or `60` (seconds). Returns milliseconds, or null. */
export function parseDuration(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  if (!match) return null;
  const ms = Math.round(Number(match[1]) * DURATION_UNITS_MS[match[2] ?? ""]!);
  return Number.isSafeInteger(ms) ? ms : null;
}

/** `1536` to `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** `bytesPerSecond` to `117.2 MiB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

/** Milliseconds to `0:07`, `12:30` or `1:02:03`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = String(seconds % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
