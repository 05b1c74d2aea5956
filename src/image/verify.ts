/**
 * Compares a disk with its torrent: every piece is read again and hashed, every zero range must read as zero.
 *
 * Runs in the thread of `verify-worker.ts`. What was cached is dropped first, so that the device answers and
 * not the page cache. `verifyTarget` is for the thread that asks.
 */
import { availableParallelism } from "node:os";
import { diskFault } from "../disk/disk-fault.ts";
import { openHasher } from "../disk/hash-pool.ts";
import { CONTEXTS_PER_THREAD } from "../disk/hasher.ts";
import type { DirectMode } from "../disk/open-disk.ts";
import { PieceScan, SCAN_MEMORY_BYTES } from "../disk/scan.ts";
import { Segments } from "../disk/segments.ts";
import { openSource, type Source } from "../disk/source.ts";
import { type TailContent, TailStore } from "../disk/tail-store.ts";
import { POSIX_FADV_DONTNEED } from "../kernel/abi.ts";
import { fadvise, fdatasync } from "../kernel/libc.ts";
import { mapMemory } from "../kernel/memory.ts";
import type { Reactor } from "../kernel/reactor.ts";
import { type IoChoice, openReactor } from "../kernel/select.ts";
import {
  forEachSegment,
  NO_RANGES,
  pieceLengthBytes,
  pieceOffset,
  rangesBelow,
  rangesEndBytes,
} from "../torrent/extents.ts";
import { PieceDigests } from "../torrent/piece-digests.ts";
import type { Metainfo } from "../torrent/types.ts";
import { MiB, type PieceIndex } from "../units.ts";
import { runWork, type WorkHooks } from "./work.ts";
import { Interrupted, type WorkControl } from "./work-thread.ts";
import { findNonZero, zeroRangesToRead } from "./zero-check.ts";

export interface VerifyOptions {
  readonly metainfo: Metainfo;
  /** The torrent's signature was checked against a trusted key: its list of SHA-256 is what counts. */
  readonly trusted: boolean;
  readonly targetPath: string;
  readonly io: IoChoice;
  readonly direct: DirectMode;
  /** What of the image lies beyond the target's end, as it was proven; null where all of it must be on the target. */
  readonly tail: TailContent | null;
}

/** A run of bytes of the disk. */
export interface DiskRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface BadPiece {
  readonly index: number;
  /** Where its bytes lie, at most RANGES_LISTED_MAX of them. */
  readonly ranges: readonly DiskRange[];
  readonly rangeCount: number;
}

export interface VerifyReport {
  readonly pieceCount: number;
  readonly badPieceCount: number;
  /** In order, at most BAD_LISTED_MAX of them. */
  readonly badPieces: readonly BadPiece[];
  /** Bytes, in whole blocks, that should be zero and are not. */
  readonly badZeroBytes: number;
  readonly badZeroRanges: readonly DiskRange[];
  readonly bytesRead: number;
}

/** A wrong disk has every piece wrong; a report names enough of them to see that. */
export const BAD_LISTED_MAX = 1000;
const RANGES_LISTED_MAX = 100;
const MEMORY_BYTES_MAX = 256 * MiB;
const QUEUE_DEPTH = 128;

/** Verifies in a thread of its own. Null when `signal` stopped it; rejects with the Failure that ended it. */
export function verifyTarget(
  options: VerifyOptions,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<VerifyReport | null> {
  return runWork<VerifyOptions, VerifyReport>("image/verify-worker", options, hooks, signal);
}

/** True where everything was as it should be. */
export function isProven(report: VerifyReport): boolean {
  return report.badPieceCount === 0 && report.badZeroBytes === 0;
}

/** Verifies in this thread. Throws DiskFault where the target cannot be read, Interrupted where it was stopped. */
export function verify(options: VerifyOptions, control: WorkControl): VerifyReport {
  const { metainfo, tail } = options;
  const zeroRanges = metainfo.image?.zeroRanges ?? NO_RANGES;
  const reachBytes = Math.max(rangesEndBytes(metainfo.extents), rangesEndBytes(zeroRanges));
  const needBytes = Math.min(reachBytes, tail?.startBytes ?? reachBytes);
  const source = openSource(options.targetPath, { needBytes, direct: options.direct });
  try {
    dropCache(source);
    const reactor = openReactor(options.io, QUEUE_DEPTH);
    try {
      return verifyWith(reactor, source, options, control);
    } finally {
      reactor.close();
    }
  } finally {
    source.close();
  }
}

function verifyWith(reactor: Reactor, source: Source, options: VerifyOptions, control: WorkControl): VerifyReport {
  const { metainfo, tail } = options;
  const zeroRanges = rangesBelow(metainfo.image?.zeroRanges ?? NO_RANGES, tail?.startBytes ?? Number.POSITIVE_INFINITY);
  const zeros = metainfo.image === null ? null : zeroRangesToRead(source.files, zeroRanges);
  const payloadBytes = metainfo.extents.totalBytes;
  const totalBytes = payloadBytes + (zeros?.totalBytes ?? 0);
  const bad = scanPieces(reactor, source, options, {
    ...control,
    progress: (done) => control.progress(done, totalBytes),
  });
  const nonZero =
    zeros === null
      ? []
      : findNonZero(reactor, source.files, zeros, {
          ...control,
          progress: (done) => control.progress(payloadBytes + done, totalBytes),
        });
  return {
    pieceCount: metainfo.pieceCount,
    badPieceCount: bad.length,
    badPieces: bad
      .sort((a, b) => a - b)
      .slice(0, BAD_LISTED_MAX)
      .map((index) => describe(metainfo, index)),
    badZeroBytes: nonZero.reduce((sum, range) => sum + range.lengthBytes, 0),
    badZeroRanges: nonZero.slice(0, BAD_LISTED_MAX),
    bytesRead: totalBytes,
  };
}

/** Dirty pages cannot be dropped, so they are stored first. */
function dropCache(source: Source): void {
  const { bufferedFd } = source.files;
  const flushed = fdatasync(bufferedFd);
  if (flushed < 0) throw diskFault(source.path, "flush", 0, flushed);
  const dropped = fadvise(bufferedFd, 0, 0, POSIX_FADV_DONTNEED);
  if (dropped < 0) throw diskFault(source.path, "drop the cache of", 0, dropped);
}

/** Hashes all pieces. Returns the wrong ones, in no order. */
function scanPieces(reactor: Reactor, source: Source, options: VerifyOptions, control: WorkControl): PieceIndex[] {
  const { metainfo, tail } = options;
  const { pieceBytes, extents } = metainfo;
  const digests = PieceDigests.of(metainfo, options.trusted);
  const workers = availableParallelism();
  const contextsMax = workers * CONTEXTS_PER_THREAD;
  const memory = mapMemory(Math.min(MEMORY_BYTES_MAX, Math.max(SCAN_MEMORY_BYTES, (contextsMax + 1) * pieceBytes)));
  const hasher = openHasher({
    address: memory.address,
    lengthBytes: memory.lengthBytes,
    contextsMax,
    workers: workers > 1 ? workers : 0,
    algorithm: digests.algorithm,
  });
  const zeroRanges = metainfo.image?.zeroRanges ?? null;
  const scan = new PieceScan({
    reactor,
    hasher,
    files: tail === null ? source.files : { ...source.files, tail: new TailStore(tail) },
    segments: new Segments({ extents, zeroRanges, pieceBytes, direct: source.files.direct }),
    memoryAddress: memory.address,
    memoryBytes: memory.lengthBytes,
    pieceBytes,
    totalBytes: extents.totalBytes,
  });
  const bad: PieceIndex[] = [];
  try {
    const isWhole = scan.run({
      piece: (index, digest) => void (digests.isRight(index, digest) || bad.push(index)),
      stopped: () => {
        control.progress(scan.bytesDone, extents.totalBytes);
        return control.stopped();
      },
    });
    if (!isWhole) throw new Interrupted("stopped");
    return bad;
  } finally {
    hasher.close();
    memory.free();
  }
}

function describe(metainfo: Metainfo, index: PieceIndex): BadPiece {
  const { extents, pieceBytes } = metainfo;
  const ranges: DiskRange[] = [];
  let rangeCount = 0;
  forEachSegment(
    extents,
    pieceOffset(pieceBytes, index),
    pieceLengthBytes(extents.totalBytes, pieceBytes, index),
    (offsetBytes, _torrent, lengthBytes) => {
      if (rangeCount++ < RANGES_LISTED_MAX) ranges.push({ offsetBytes, lengthBytes });
    },
  );
  return { index, ranges, rangeCount };
}
