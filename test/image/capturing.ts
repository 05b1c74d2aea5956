/** Captures in the test's own thread, and a reference that finds extents by reading a file byte for byte. */
import { closeSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type CaptureOptions, type CaptureReport, capture } from "../../src/image/capture.ts";
import type { WorkControl } from "../../src/image/work-thread.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import type { Metainfo, RangeTable } from "../../src/torrent/types.ts";
import type { Extent } from "../harness/image.ts";
import { run } from "../harness/process.ts";
import { PYTHON } from "../harness/tools.ts";

export interface Captured {
  readonly report: CaptureReport;
  readonly metainfo: Metainfo;
  readonly warnings: string[];
}

/** Captures `sourcePath` into `folder`/image.torrent. */
export function captureHere(
  sourcePath: string,
  folder: string,
  options: Partial<CaptureOptions> = {},
  control: Partial<WorkControl> = {},
): Captured {
  const warnings: string[] = [];
  const work: CaptureOptions = {
    sourcePath,
    outputPath: join(folder, "image.torrent"),
    savePath: null,
    trackers: [],
    pieceBytes: null,
    extents: "data",
    survey: null,
    origin: null,
    exact: null,
    ezio: false,
    mergeGapBytes: 65536,
    name: "image",
    signKey: null,
    force: false,
    io: "auto",
    direct: true,
    ...options,
  };
  const watch: WorkControl = {
    stopped: () => false,
    progress: () => {},
    warning: (code) => void warnings.push(code),
    ...control,
  };
  const report = capture(work, watch);
  return { report, metainfo: parseMetainfo(readFileSync(work.outputPath)), warnings };
}

export function rangesOf(table: RangeTable): Extent[] {
  return Array.from({ length: table.count }, (_, i) => ({
    offsetBytes: table.diskOffsetBytes[i],
    lengthBytes: table.lengthBytes[i],
  }));
}

/**
 * Writes to `outputPath` what a node would make of a dirty disk: the extents copied from the source, the zero
 * ranges zeroed, everything else full of 0xaa.
 */
export function rebuild(metainfo: Metainfo, sourcePath: string, outputPath: string, diskBytes: number): void {
  const source = openSync(sourcePath, "r");
  const output = openSync(outputPath, "w");
  writeSync(output, Buffer.alloc(diskBytes, 0xaa), 0, diskBytes, 0);
  for (const { offsetBytes, lengthBytes } of rangesOf(metainfo.extents)) {
    const bytes = Buffer.alloc(lengthBytes);
    readSync(source, bytes, 0, lengthBytes, offsetBytes);
    writeSync(output, bytes, 0, lengthBytes, offsetBytes);
  }
  for (const { offsetBytes, lengthBytes } of rangesOf(metainfo.image!.zeroRanges)) {
    writeSync(output, Buffer.alloc(lengthBytes), 0, lengthBytes, offsetBytes);
  }
  closeSync(source);
  closeSync(output);
}

/** What libtorrent makes of the torrent and its source. */
export interface LibtorrentReading {
  readonly infoHash: string;
  readonly isV2: boolean;
  readonly name: string;
  readonly pieceBytes: number;
  readonly pieceCount: number;
  readonly pieceCountRead: number;
  readonly bytesTotal: number;
  readonly extentCount: number;
  readonly badPieces: number[];
  readonly trackers: string[];
}

export function readWithLibtorrent(torrentPath: string, sourcePath: string): LibtorrentReading {
  return JSON.parse(
    run([PYTHON, join(import.meta.dir, "libtorrent_check.py"), torrentPath, sourcePath]),
  ) as LibtorrentReading;
}
