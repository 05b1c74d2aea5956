/**
 * Looking at a disk before the swarm is joined: which pieces a target has already, whether a source is
 * still what was captured. A few pieces decide whether reading all of them is worth it.
 */
import type { Hasher } from "../disk/hasher.ts";
import type { DiskFiles, SegmentLocator } from "../disk/queue.ts";
import { PieceScan, SCAN_MEMORY_BYTES } from "../disk/scan.ts";
import { ExitCode, Failure } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import type { Memory } from "../kernel/memory.ts";
import type { Reactor } from "../kernel/reactor.ts";
import type { PieceDigests } from "../torrent/piece-digests.ts";
import type { Metainfo } from "../torrent/types.ts";
import { Bitfield } from "../wire/bitfield.ts";
import type { PeerOptions } from "./api.ts";
import type { Inbox } from "./inbox.ts";
import type { Reporter } from "./reporter.ts";

/** With half of a target right, none of these pieces is right once in four thousand million. */
const TARGET_PROBES = 32;
/** Enough to notice another image or a shifted one, few enough to start at once. */
const SOURCE_PROBES = 8;

export interface ScanContext {
  readonly reactor: Reactor;
  readonly memory: Memory;
  readonly hasher: Hasher;
  readonly metainfo: Metainfo;
  /** What `hasher` computes is compared with these. */
  readonly digests: PieceDigests;
  readonly files: DiskFiles;
  readonly segments: SegmentLocator;
  readonly options: PeerOptions;
  readonly inbox: Inbox;
  readonly reporter: Reporter;
}

/** Pieces of a target that are right already (`--delta`), or null when it was stopped. Throws DiskFault. */
export function scanTarget(context: ScanContext, isNew: boolean): Bitfield | null {
  const { options, metainfo } = context;
  const none = new Bitfield(metainfo.pieceCount);
  if (options.delta === "never" || isNew) return none;
  if (options.delta === "auto") {
    const probes = spread(metainfo.pieceCount, TARGET_PROBES);
    const found = hashPieces(context, probes, (good) => good.count > 0);
    if (found === null || found.count === 0) return found;
  }
  return hashPieces(context, null, () => false);
}

/** Compares a source with its torrent: all of it with `--check`, else a few pieces. True when it was stopped. Throws Failure (exit 3). */
export function probeSource(context: ScanContext): boolean {
  const { options, metainfo } = context;
  const probes = options.check ? null : spread(metainfo.pieceCount, SOURCE_PROBES);
  const good = hashPieces(context, probes, () => false);
  if (good === null) return true;
  const looked = probes === null ? metainfo.pieceCount : probes.size;
  const badCount = looked - good.count;
  if (badCount === 0) return false;
  const text = `${options.path} is not what was captured: ${badCount} of ${looked} pieces looked at differ`;
  throw new Failure(ExitCode.integrity, "source-changed", `${text}; capture it again, or name the right source`);
}

/** Hashes pieces (null: all of them). Returns those that are right, or null when it was stopped. */
function hashPieces(
  context: ScanContext,
  wanted: Set<number> | null,
  enough: (good: Bitfield) => boolean,
): Bitfield | null {
  const { metainfo, digests, reporter, inbox, reactor, hasher, files, segments, memory } = context;
  const totalBytes = metainfo.extents.totalBytes;
  const good = new Bitfield(metainfo.pieceCount);
  const memoryBytes = Math.min(memory.lengthBytes, SCAN_MEMORY_BYTES);
  const options = {
    reactor,
    hasher,
    files,
    segments,
    memoryAddress: memory.address,
    memoryBytes,
    pieceBytes: metainfo.pieceBytes,
    totalBytes,
  };
  const scan = new PieceScan(options);
  const stats = () => ({
    phase: "check" as const,
    bytesDone: scan.bytesDone,
    bytesTotal: totalBytes,
    bytesFetched: 0,
    bytesReused: 0,
    bytesUploaded: 0,
    bytesReceived: 0,
    bytesSent: 0,
    bytesLeft: totalBytes,
    piecesMissing: metainfo.pieceCount - good.count,
    peers: 0,
  });
  reporter.phase("check");
  scan.run(
    {
      piece: (index, digest) => {
        if (digests.isRight(index, digest)) good.set(index);
      },
      stopped: () => {
        if (wanted === null) reporter.progress(nowMs(), stats);
        return inbox.stopped || enough(good);
      },
    },
    wanted === null ? null : (index) => wanted.has(index),
  );
  return inbox.stopped ? null : good;
}

/** At most `count` indices spread evenly over [0, length), the first and the last among them. */
function spread(length: number, count: number): Set<number> {
  const indices = new Set<number>();
  for (let i = 0; i < count; i++) indices.add(Math.round((i * (length - 1)) / Math.max(1, count - 1)));
  return indices;
}
