/** What a torrent says, as plain data: made by `metainfo.ts`, read by every layer above. */
import type { DiskOffset, PieceIndex, TorrentOffset } from "../units.ts";

/**
 * Runs of used bytes, in torrent order. Three parallel arrays so that 2 million extents cost 48 MB and no objects.
 * `torrentOffsetBytes[i]` is where extent i starts in the payload (sum of the lengths before it).
 * Lengths are at least 1; extents do not overlap on disk and disk offsets ascend.
 */
export interface ExtentTable {
  readonly count: number;
  readonly diskOffsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
  readonly torrentOffsetBytes: Float64Array;
  /** Sum of all lengths. */
  readonly totalBytes: number;
}

/** Ranges that must read as zero on the target. Ascending, disjoint from each other and from the extents. */
export interface RangeTable {
  readonly count: number;
  readonly diskOffsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
}

/** info["diskswarm"]: what our captures add; absent in EZIO's and ordinary torrents. */
export interface ImageInfo {
  readonly version: 1;
  readonly diskBytes: number;
  readonly sectorBytes: number;
  readonly kind: "disk" | "partition" | "file";
  readonly zeroRanges: RangeTable;
  /**
   * The partition table as `sfdisk --json` prints it, where the source is a disk that has one; without the device's
   * name, and with a number for each node, so that equal disks give equal torrents.
   */
  readonly partitions?: string;
  /** Filesystem types in the order of the partitions (one for a partition), "" where there is none known. */
  readonly filesystems?: readonly string[];
  /** Of each filesystem, the largest sectors that a disk may have for it to be mounted, in bytes; 0 where that is not known. */
  readonly blockBytes?: readonly number[];
}

/** Outside the info dictionary: Ed25519 over the raw info bytes and the list of SHA-256 digests. */
export interface TorrentSignature {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64 bytes. */
  readonly bytes: Uint8Array;
}

export interface Metainfo {
  /** SHA-1 of the raw info bytes, 20 bytes. */
  readonly infoHash: Uint8Array;
  /** The raw bytes of the info dictionary, exactly as hashed. */
  readonly infoBytes: Uint8Array;
  readonly name: string;
  readonly pieceBytes: number;
  readonly pieceCount: number;
  /** pieceCount SHA-1 digests, 20 bytes each. */
  readonly pieceHashes: Uint8Array;
  readonly extents: ExtentTable;
  /** "extents": file names are disk offsets; "single": one ordinary file from offset 0. */
  readonly layout: "extents" | "single";
  readonly image: ImageInfo | null;
  /** BEP 27: peers come from its trackers alone; no PEX, no local discovery. */
  readonly isPrivate: boolean;
  /** Tracker tiers (BEP 12), in order; empty when none is named. */
  readonly trackers: string[][];
  /** pieceCount SHA-256 digests, 32 bytes each (outside the info dictionary), or null. */
  readonly sha256: Uint8Array | null;
  /** What the torrent says of who signed it; whether it holds is asked of `signature.ts`. */
  readonly signature: TorrentSignature | null;
  /** Where the capture read from (outside the info dictionary; never served over HTTP), or null. */
  readonly sourcePath: string | null;
  /** What the source is, in words, where it was no raw disk or file; somebody else may have written it. */
  readonly sourceFormat: string | null;
}

/** Bytes of piece `index`: pieceBytes, or what is left for the last. */
export type PieceLength = (index: PieceIndex) => number;
export type ExtentVisitor = (disk: DiskOffset, torrent: TorrentOffset, lengthBytes: number) => void;
