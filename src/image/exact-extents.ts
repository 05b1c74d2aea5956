/**
 * Extents that are given and not found: those of partclone, which EZIO's torrents consist of, so that a torrent of ours
 * and one of theirs are the same swarm. They are sent as they are, zeros and all, and neither merged nor aligned.
 *
 * partclone lists a run of used blocks in pieces of its buffer, 1 MiB unless it was told otherwise: reading a device
 * it fills the buffer anew for each run, restoring an image it fills it across runs.
 */
import { ExitCode, Failure } from "../errors.ts";
import { EXTENTS_MAX } from "../limits.ts";
import type { RangeTable } from "../torrent/types.ts";
import { MiB } from "../units.ts";
import type { ExtentSource, PayloadSink } from "./classify.ts";
import { joined, RangeList } from "./range-list.ts";

/** Plain data, handed to the thread of the capture. */
export interface ExactExtents {
  readonly extents: RangeTable;
  /** What the pieces have to hash to by the word of that file; null where nobody says. */
  readonly expected: { readonly path: string; readonly pieceHashes: Uint8Array } | null;
}

/** DEFAULT_BUFFER_SIZE of partclone. */
const BUFFER_BYTES = 1 * MiB;

/** The runs as partclone lists them, of a device or of an image. Throws Failure for more than a torrent may have. */
export function cutLikePartclone(runs: RangeTable, source: "device" | "image"): RangeTable {
  const cut = new RangeList();
  for (let i = 0; i < runs.count; i++) {
    const endBytes = runs.diskOffsetBytes[i] + runs.lengthBytes[i];
    for (let at = runs.diskOffsetBytes[i]; at < endBytes; ) {
      const usedBytes = source === "image" ? cut.totalBytes % BUFFER_BYTES : 0;
      const lengthBytes = Math.min(BUFFER_BYTES - usedBytes, endBytes - at);
      cut.push(at, lengthBytes);
      at += lengthBytes;
    }
    if (cut.count > EXTENTS_MAX) throw tooMany();
  }
  return cut.table();
}

/** Stands in a pass where extents are not to be found: all that is read is payload, all that is not is left out. */
export class GivenExtents implements ExtentSource {
  readonly mergedZeroBytes = 0;
  readonly overflowed = false;
  #positionBytes = 0;

  constructor(
    readonly extents: RangeList,
    readonly sink: PayloadSink,
  ) {}

  get positionBytes(): number {
    return this.#positionBytes;
  }

  data(lengthBytes: number): void {
    this.sink.data(this.#positionBytes, lengthBytes);
    this.#positionBytes += lengthBytes;
  }

  zero(lengthBytes: number): void {
    this.#positionBytes += lengthBytes;
  }

  finish(): void {
    // Nothing was held back.
  }

  widerGapBytes(): number {
    return 0;
  }
}

/** What has to be read for them: neighbours are read as one. */
export function readingOf(extents: RangeTable): RangeList {
  return joined(RangeList.from(extents), 1);
}

function tooMany(): Failure {
  const problem = `its used blocks make more than ${EXTENTS_MAX} extents, which no torrent for EZIO holds`;
  return new Failure(ExitCode.failed, "fragmented", `${problem}: capture it without --compat ezio`);
}
