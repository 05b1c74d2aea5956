/** The reading of a source by extents that are given: one pass, whose hashes are compared where somebody knows them. */
import { assert, ExitCode, Failure } from "../errors.ts";
import { type IoChoice, openReactor } from "../kernel/select.ts";
import { rangesEndBytes } from "../torrent/extents.ts";
import { runPass, type PassResult } from "./capture-pass.ts";
import type { CaptureSource } from "./capture-source.ts";
import { type ExactExtents, readingOf } from "./exact-extents.ts";
import { RangeList } from "./range-list.ts";
import type { SaveFile } from "./save-file.ts";
import type { WorkControl } from "./work-thread.ts";

const SHA1_BYTES = 20;

export interface ExactOptions {
  readonly exact: ExactExtents;
  readonly pieceBytes: number;
  readonly sha256: boolean;
  readonly save: SaveFile | null;
  readonly io: IoChoice;
}

/** Throws Failure (exit 3) where a piece does not hash to what is expected. */
export function readExact(source: CaptureSource, options: ExactOptions, control: WorkControl): PassResult {
  const { exact, pieceBytes, sha256, save, io } = options;
  const endBytes = rangesEndBytes(exact.extents);
  if (endBytes > source.sizeBytes) {
    const sizes = `${source.sizeBytes} bytes, and the extents end at ${endBytes}`;
    throw new Failure(ExitCode.failed, "source-too-small", `${source.path} has ${sizes}: name the right disk`);
  }
  const result = runPass(
    {
      source,
      ranges: readingOf(exact.extents),
      given: RangeList.from(exact.extents),
      classify: { diskBytes: source.sizeBytes, mergeGapBytes: 0, extentsMax: exact.extents.count, all: true },
      pieceBytes,
      sha256,
      save,
      openReactor: (queueDepth) => openReactor(io, queueDepth),
    },
    control,
  );
  assert("pieceHashes" in result, "extents that are given are never too many");
  throwIfOther(source, exact, result.pieceHashes, pieceBytes);
  return result;
}

function throwIfOther(
  source: CaptureSource,
  { extents, expected }: ExactExtents,
  pieceHashes: Uint8Array,
  pieceBytes: number,
): void {
  if (expected === null) return;
  const differs = pieceHashes.findIndex((byte, i) => byte !== expected.pieceHashes[i]);
  if (differs < 0) return;
  const piece = Math.floor(differs / SHA1_BYTES);
  let extent = 0;
  for (let left = piece * pieceBytes; left >= extents.lengthBytes[extent]; extent++)
    left -= extents.lengthBytes[extent];
  const what = `${source.path} is not what ${expected.path} was made of: piece ${piece} differs`;
  const where = `from byte ${extents.diskOffsetBytes[extent]} on`;
  throw new Failure(ExitCode.integrity, "torrent-info", `${what}, ${where}; name the right disk, or capture it anew`);
}
