/**
 * A capture from start to end: open the source, choose piece size and merge gap, read it, write the torrent.
 *
 * Runs in the thread of `capture-worker.ts`. Nothing is left behind when it throws: torrent and copy are
 * written beside their names and renamed at the end.
 */
import { resolve } from "node:path";
import { diskFault } from "../disk/disk-fault.ts";
import { assert, ExitCode, Failure, usageError } from "../errors.ts";
import { pread } from "../kernel/libc.ts";
import { mapMemory } from "../kernel/memory.ts";
import { type IoChoice, openReactor } from "../kernel/select.ts";
import { EXTENTS_CAPTURE_MAX, PIECE_BYTES_MAX } from "../limits.ts";
import { encodeMetainfo, infoBytesOfTorrent, infoHashOfTorrent, withSignature } from "../torrent/create.ts";
import type { Signer } from "../torrent/ed25519.ts";
import { makeExtentTable, makeRangeTable } from "../torrent/extents.ts";
import { nameProblem } from "../torrent/metainfo.ts";
import { signTorrent } from "../torrent/signature.ts";
import type { ImageInfo } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { VERSION } from "../version.ts";
import { type AreaRow, areaRows } from "./area-table.ts";
import { writeFileAtomically } from "./atomic-file.ts";
import { readExact } from "./capture-exact.ts";
import { type PassOptions, type PassResult, runPass } from "./capture-pass.ts";
import { type CaptureSource, openCaptureSource } from "./capture-source.ts";
import { CLASSIFY_BLOCK_BYTES, gapForHoles } from "./classify.ts";
import { refuseMounted } from "./mounted-source.ts";
import { automaticPieceBytes, checkPieceBytes, SAMPLES } from "./piece-size.ts";
import type { ExactExtents } from "./exact-extents.ts";
import type { Origin } from "./foreign/prepared-source.ts";
import { RangeList } from "./range-list.ts";
import { SaveFile } from "./save-file.ts";
import type { Survey } from "./survey.ts";
import { WantedRanges } from "./wanted-ranges.ts";
import type { WorkControl } from "./work-thread.ts";
import { ZeroScanner } from "./zero-blocks.ts";

export interface CaptureOptions {
  /** What is read. */
  readonly sourcePath: string;
  /** What that was made of, where it is not what the user named. */
  readonly origin: Origin | null;
  /** The torrent to write. */
  readonly outputPath: string;
  /** The sparse copy to write in the same pass, or null. */
  readonly savePath: string | null;
  /** One tier each (BEP 12). */
  readonly trackers: readonly string[];
  /** null: chosen from the amount of data. */
  readonly pieceBytes: number | null;
  /** "data": blocks that are zero are not sent; "all": every byte is. */
  readonly extents: "data" | "all";
  /** What of the source has to be looked at, where its filesystems were asked; null: all of it. */
  readonly survey: Survey | null;
  /** A torrent that EZIO can deploy. */
  readonly ezio: boolean;
  /** What is sent, where it is not to be found out; null: it is. */
  readonly exact: ExactExtents | null;
  readonly mergeGapBytes: number;
  readonly name: string;
  /** A private key in PEM with which the torrent is signed, or null. */
  readonly signKey: string | null;
  /** Capture also what is mounted read-write. */
  readonly force: boolean;
  readonly io: IoChoice;
  /** Read around the page cache where possible. */
  readonly direct: boolean;
}

export interface CaptureReport {
  readonly name: string;
  /** Hexadecimal. */
  readonly infoHash: string;
  /** Public key of the signature in Base64, or null. */
  readonly signedBy: string | null;
  readonly sourcePath: string;
  /** What the source is, in words, where it is no raw disk or file. */
  readonly sourceFormat: string | null;
  readonly outputPath: string;
  readonly savedPath: string | null;
  readonly kind: ImageInfo["kind"];
  readonly diskBytes: number;
  /** What a node receives. */
  readonly payloadBytes: number;
  readonly zeroBytes: number;
  readonly extentCount: number;
  readonly pieceBytes: number;
  readonly pieceCount: number;
  readonly mergeGapBytes: number;
  /** Zeros that are sent because merging made them part of an extent. */
  readonly mergedZeroBytes: number;
  /** Neither sent nor zeroed: what the filesystems do not use. */
  readonly unusedBytes: number;
  /** Unused bytes that were read nevertheless, to fill blocks and to join ranges; those that are not zero are sent. */
  readonly mergedUnusedBytes: number;
  /** What was taken of each part of the disk; empty where its filesystems were not asked. */
  readonly areas: readonly AreaRow[];
}

/** `signer`: what `options.signKey` was read to. */
export function capture(options: CaptureOptions, control: WorkControl, signer: Signer | null = null): CaptureReport {
  checkOptions(options);
  const source = openCaptureSource(options.sourcePath, options.direct, options.origin?.madeOf);
  let save: SaveFile | null = null;
  try {
    if (source.isBlockDevice) refuseMounted(source, options.force, control.warning);
    checkSurvey(source, options.survey);
    save = openSave(source, options);
    const report = captureSource(source, save, options, control, signer);
    save?.commit();
    return report();
  } catch (error) {
    save?.abandon();
    throw error;
  } finally {
    source.close();
  }
}

function openSave(source: CaptureSource, { savePath, origin }: CaptureOptions): SaveFile | null {
  if (savePath === null) return null;
  return new SaveFile(savePath, source.sizeBytes, origin?.path ?? source.path, origin?.isSaveWritten);
}

/** Throws a usage failure for options that do not go together. */
export function checkOptions(options: CaptureOptions): void {
  if (options.pieceBytes !== null) checkPieceBytes(options.pieceBytes);
  const problem = nameProblem(options.name);
  if (problem !== null) throw usageError(`the torrent's name ${problem}; give another one with --name`);
  if (!options.ezio) return;
  if (options.pieceBytes !== null && options.pieceBytes !== PIECE_BYTES_MAX) {
    throw usageError(`--compat ezio needs pieces of ${formatBytes(PIECE_BYTES_MAX)}; leave --piece-size away`);
  }
}

/** A survey belongs to the disk that it was made of. */
function checkSurvey(source: CaptureSource, survey: Survey | null): void {
  if (survey === null || survey.diskBytes === source.sizeBytes) return;
  const sizes = `from ${survey.diskBytes} to ${source.sizeBytes} bytes`;
  throw new Failure(ExitCode.failed, "source-changed", `${source.path} changed ${sizes}; capture it again`);
}

/** What is mounted changes under the capture: whoever forced it gets the image, and the truth about it. */
function failIfChanged(source: CaptureSource, force: boolean, control: WorkControl): void {
  const change = source.changed();
  if (change === null) return;
  const what = `${source.path} ${change} while it was captured`;
  if (!force || !source.isBlockDevice)
    throw new Failure(ExitCode.failed, "source-changed", `${what}; stop what writes to it and capture again`);
  control.warning("source-changed", `${what}; the image may be inconsistent`);
}

/** Reads the source. The answer writes the torrent, to be called when the copy has its name. */
function captureSource(
  source: CaptureSource,
  save: SaveFile | null,
  options: CaptureOptions,
  control: WorkControl,
  signer: Signer | null,
): () => CaptureReport {
  const all = options.ezio || options.extents === "all";
  const wanted = new WantedRanges(source, options.survey);
  // Of an image it is known what is written; of a disk only reading tells how much of it is zeros.
  if (options.origin !== null && !options.origin.isSaveWritten) save?.needRoom(wanted.narrowest.totalBytes);
  const pieceBytes = choosePieceBytes(source, wanted.narrowest, all, options);
  const { result, mergeGapBytes } =
    options.exact === null
      ? readUntilItFits(source, wanted, all, pieceBytes, save, options, control)
      : { result: readGiven(source, options.exact, pieceBytes, save, options, control), mergeGapBytes: 0 };
  failIfChanged(source, options.force, control);
  // EZIO knows none: what its extents leave out is unused.
  const zeros = options.exact === null ? wanted.zeros(result.extents, mergeGapBytes) : new RangeList();
  const seedPath = options.origin === null ? source.path : (save?.path ?? options.origin.path);
  const { torrent: unsigned, areas } = makeTorrent(source, result, zeros, pieceBytes, seedPath, options);
  const torrent = signer === null ? unsigned : sign(unsigned, result.sha256, signer);
  return () => {
    writeFileAtomically(options.outputPath, torrent);
    return {
      name: options.name,
      infoHash: Buffer.from(infoHashOfTorrent(torrent)).toString("hex"),
      signedBy: signer?.publicKey.toBase64() ?? null,
      sourcePath: options.origin?.path ?? source.path,
      sourceFormat: options.origin?.format ?? null,
      outputPath: resolve(options.outputPath),
      savedPath: save?.path ?? null,
      kind: source.kind,
      diskBytes: source.sizeBytes,
      payloadBytes: result.payloadBytes,
      zeroBytes: zeros.totalBytes,
      extentCount: result.extents.count,
      pieceBytes,
      pieceCount: result.pieceCount,
      mergeGapBytes,
      mergedZeroBytes: result.mergedZeroBytes,
      unusedBytes: source.sizeBytes - result.payloadBytes - zeros.totalBytes,
      mergedUnusedBytes: options.exact === null ? wanted.addedBytes(mergeGapBytes) : 0,
      areas,
    };
  };
}

function readGiven(
  source: CaptureSource,
  exact: ExactExtents,
  pieceBytes: number,
  save: SaveFile | null,
  options: CaptureOptions,
  control: WorkControl,
): PassResult {
  const { io, signKey } = options;
  const copy = save?.isWritten ? null : save;
  return readExact(source, { exact, pieceBytes, sha256: signKey !== null, save: copy, io }, control);
}

function sign(torrent: Uint8Array, sha256: Uint8Array | null, signer: Signer): Uint8Array {
  assert(sha256 !== null, "a capture that signs computes both hashes");
  return withSignature(torrent, sha256, signTorrent(signer, infoBytesOfTorrent(torrent), sha256));
}

function choosePieceBytes(source: CaptureSource, ranges: RangeList, all: boolean, options: CaptureOptions): number {
  if (options.ezio) return PIECE_BYTES_MAX;
  if (options.pieceBytes !== null) return options.pieceBytes;
  return automaticPieceBytes(all ? source.sizeBytes : ranges.totalBytes * shareOfData(source, ranges));
}

/** Looks at SAMPLES blocks evenly spread over the ranges: 0 to 1. */
function shareOfData(source: CaptureSource, ranges: RangeList): number {
  const memory = mapMemory(CLASSIFY_BLOCK_BYTES);
  const scanner = new ZeroScanner(memory.bytes);
  try {
    let data = 0;
    let range = 0;
    let rangeStartBytes = 0;
    for (let sample = 0; sample < SAMPLES; sample++) {
      const positionBytes = Math.floor((ranges.totalBytes * (sample + 0.5)) / SAMPLES);
      while (range < ranges.count && positionBytes >= rangeStartBytes + ranges.lengthAt(range))
        rangeStartBytes += ranges.lengthAt(range++);
      if (range === ranges.count) break;
      const offsetBytes = ranges.offsetAt(range) + positionBytes - rangeStartBytes;
      const result = pread(source.bufferedFd, memory.address, CLASSIFY_BLOCK_BYTES, offsetBytes);
      if (result < 0) throw diskFault(source.path, "read", offsetBytes, result);
      if (!scanner.isZero(0, result)) data++;
    }
    return data / SAMPLES;
  } finally {
    memory.free();
  }
}

/** Repeats the pass with a wider merge gap until there are few enough extents; holes that are known save passes. */
function readUntilItFits(
  source: CaptureSource,
  wanted: WantedRanges,
  all: boolean,
  pieceBytes: number,
  save: SaveFile | null,
  options: CaptureOptions,
  control: WorkControl,
): { result: PassResult; mergeGapBytes: number } {
  const limits = { diskBytes: source.sizeBytes, extentsMax: EXTENTS_CAPTURE_MAX, all };
  const leastGapBytes = options.survey?.mergeGapBytes ?? options.mergeGapBytes;
  let mergeGapBytes = gapForHoles(wanted.narrowest, { ...limits, mergeGapBytes: leastGapBytes });
  for (;;) {
    const pass: PassOptions = {
      source,
      ranges: wanted.ranges(mergeGapBytes),
      classify: { ...limits, mergeGapBytes },
      given: null,
      pieceBytes,
      sha256: options.signKey !== null,
      save: save?.isWritten ? null : save,
      openReactor: (queueDepth) => openReactor(options.io, queueDepth),
    };
    const result = runPass(pass, control);
    if (!("widerGapBytes" in result)) {
      warnOfWiderGap(options.mergeGapBytes, mergeGapBytes, result, wanted.addedBytes(mergeGapBytes), control);
      return { result, mergeGapBytes };
    }
    control.warning(
      "fragmented",
      `${source.path} has more than ${EXTENTS_CAPTURE_MAX} extents; reading it again with --merge-gap ${formatBytes(result.widerGapBytes)}`,
    );
    mergeGapBytes = result.widerGapBytes;
  }
}

function warnOfWiderGap(
  wantedBytes: number,
  usedBytes: number,
  result: PassResult,
  unusedBytes: number,
  control: WorkControl,
): void {
  if (usedBytes === wantedBytes) return;
  const unused = unusedBytes > 0 ? `, and up to ${formatBytes(unusedBytes)} that no filesystem uses` : "";
  const price = `${formatBytes(result.mergedZeroBytes)} of zeros are sent as data${unused}`;
  control.warning(
    "merge-gap",
    `the merge gap was raised from ${formatBytes(wantedBytes)} to ${formatBytes(usedBytes)} to stay below ${EXTENTS_CAPTURE_MAX} extents: ${price}`,
  );
}

function makeTorrent(
  source: CaptureSource,
  result: PassResult,
  zeros: RangeList,
  pieceBytes: number,
  seedPath: string,
  options: CaptureOptions,
): { torrent: Uint8Array; areas: AreaRow[] } {
  const extents = result.extents.table();
  const zeroRanges = zeros.table();
  const image: ImageInfo = {
    version: 1,
    diskBytes: source.sizeBytes,
    sectorBytes: source.sectorBytes,
    kind: source.kind,
    zeroRanges: makeRangeTable(zeroRanges.diskOffsetBytes.slice(), zeroRanges.lengthBytes.slice()),
    ...(options.survey && {
      partitions: options.survey.partitions,
      filesystems: options.survey.filesystems,
      blockBytes: options.survey.blockBytes,
    }),
  };
  const torrent = encodeMetainfo({
    name: options.name,
    pieceBytes,
    pieceHashes: result.pieceHashes,
    extents: makeExtentTable(extents.diskOffsetBytes.slice(), extents.lengthBytes.slice()),
    image: options.ezio ? null : image,
    trackers: options.trackers.map((url) => [url]),
    sourcePath: seedPath,
    sourceFormat: options.origin?.format ?? null,
    createdBy: `diskswarm ${VERSION}`,
    creationDateSeconds: null,
  });
  return { torrent, areas: areaRows(image, extents) };
}
