/** `verify`: reads a disk again and says whether it holds the image, and where it does not. */
import { ExitCode } from "../errors.ts";
import { type BadPiece, type DiskRange, isProven, type VerifyReport, verifyTarget } from "../image/verify.ts";
import { requireSignature } from "../torrent/signature.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes, formatDuration } from "../units.ts";
import { defineCommand } from "./command.ts";
import { peakRssBytes } from "./memory.ts";
import { readPublicKey } from "./key-files.ts";
import { choice, duration, text } from "./options.ts";
import type { Output } from "./output.ts";
import { loadTorrentFile } from "./torrent-argument.ts";
import { workHooks } from "./work-hooks.ts";

/** More ranges of a piece than this are only counted in a line of text. */
const RANGES_SHOWN_MAX = 8;

export const verify = defineCommand({
  name: "verify",
  arguments: "<torrent> <target>",
  summary: "read a disk again and compare it with its torrent",
  details: `
Every piece is hashed and every zero range must read as zero. Each bad piece is named with its place on
the disk. Nothing is written.`,
  options: {
    key: text("PUBKEY", "the torrent must be signed by this key: Base64, or the file that keygen wrote beside the key"),
    io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
    direct: choice(["auto", "on", "off"], "read past the page cache (O_DIRECT)", "auto"),
    timeout: duration("how long a torrent's URL that does not answer is asked again", "60s"),
  },
  examples: ["diskswarm verify classroom.torrent /dev/sda", "diskswarm verify classroom.torrent classroom.raw --json"],
  exitCodes: [
    ExitCode.done,
    ExitCode.failed,
    ExitCode.usage,
    ExitCode.integrity,
    ExitCode.nothingToFetch,
    ExitCode.interrupted,
  ],
  async run({ arguments: words, options, output, signal }) {
    const { metainfo } = await loadTorrentFile(words[0]!, { timeoutMs: options.timeout, signal, output });
    const targetPath = words[1]!;
    const trusted = options.key !== null;
    if (options.key !== null) await requireSignature(metainfo, readPublicKey(options.key));
    const bytesTotal = metainfo.extents.totalBytes;
    output.start(`verifying ${targetPath} against ${metainfo.name} (${formatBytes(bytesTotal)})`, {
      command: "verify",
      name: metainfo.name,
      infoHash: metainfo.infoHash.toHex(),
      target: targetPath,
      bytesTotal,
    });
    const startMs = performance.now();
    const work = { metainfo, trusted, targetPath, io: options.io, direct: options.direct, tail: null };
    const report = await verifyTarget(work, workHooks(output, "verify"), signal);
    if (report === null) return ExitCode.interrupted;
    tellFaults(output, report, metainfo);
    return tellEnd(output, report, targetPath, bytesTotal, (performance.now() - startMs) / 1000);
  },
});

/** Names each bad piece and each range that should be zero: an event and a line for each. */
export function tellFaults(output: Output, report: VerifyReport, metainfo: Metainfo): void {
  for (const piece of report.badPieces) {
    output.event("bad-piece", { piece: piece.index, ranges: piece.ranges, rangeCount: piece.rangeCount });
    output.line(pieceText(piece, metainfo));
  }
  for (const range of report.badZeroRanges) {
    output.event("bad-zero-range", { ...range });
    output.line(`not zero: disk bytes ${rangeText(range)}`);
  }
  const unlisted = report.badPieceCount - report.badPieces.length;
  if (unlisted > 0) output.line(`and ${unlisted} more pieces`);
}

function pieceText({ index, ranges, rangeCount }: BadPiece, metainfo: Metainfo): string {
  const shown = ranges.slice(0, RANGES_SHOWN_MAX).map(rangeText).join(", ");
  const more = rangeCount > RANGES_SHOWN_MAX ? ` and ${rangeCount - RANGES_SHOWN_MAX} more ranges` : "";
  return `bad: piece ${index} of ${metainfo.pieceCount}, disk bytes ${shown}${more}`;
}

/** First and last byte. */
function rangeText({ offsetBytes, lengthBytes }: DiskRange): string {
  return `${offsetBytes}-${offsetBytes + lengthBytes - 1}`;
}

/** One line that says what is wrong, for messages. */
export function faultSummary(report: VerifyReport): string {
  const parts: string[] = [];
  if (report.badPieceCount > 0) parts.push(`${report.badPieceCount} of ${report.pieceCount} pieces differ`);
  if (report.badZeroBytes > 0) parts.push(`${formatBytes(report.badZeroBytes)} that should be zero are not`);
  return parts.join(" and ");
}

function tellEnd(
  output: Output,
  report: VerifyReport,
  targetPath: string,
  bytesTotal: number,
  seconds: number,
): ExitCode {
  if (!isProven(report)) {
    output.error("bad-data", `${targetPath} does not hold the image: ${faultSummary(report)}; deploy it again`);
    return ExitCode.integrity;
  }
  output.event("done", {
    bytesTotal,
    bytesFetched: 0,
    bytesReused: bytesTotal,
    seconds,
    peakRssBytes: peakRssBytes(),
    flushed: true,
    verified: true,
    pieceCount: report.pieceCount,
    bytesRead: report.bytesRead,
  });
  output.line(
    `${targetPath}: all ${report.pieceCount} pieces match, ${formatBytes(report.bytesRead)} read in ${formatDuration(seconds * 1000)}`,
  );
  return ExitCode.done;
}
