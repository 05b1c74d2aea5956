/** `capture`: makes the torrent of a disk, partition or raw image, and if wanted a sparse copy of it. */
import { ExitCode } from "../errors.ts";
import type { CaptureOptions, CaptureReport } from "../image/capture.ts";
import { imageName } from "../image/capture-defaults.ts";
import { runWork } from "../image/work.ts";
import { formatBytes, formatDuration, formatRate } from "../units.ts";
import { type Context, defineCommand } from "./command.ts";
import { peakRssBytes } from "./memory.ts";
import { choice, flag, type OptionTable, repeated, size, text, trackerUrl } from "./options.ts";
import { workHooks } from "./work-hooks.ts";

const OPTIONS = {
  output: text("FILE", "the torrent to write; without it NAME.torrent in the current folder", "o"),
  save: text("FILE", "write a sparse copy of the source as well, in the same pass"),
  tracker: repeated(trackerUrl("announce there; may be given more than once")),
  pieceSize: size("bytes of a piece, a power of two; without it what makes about 4000 pieces"),
  extents: choice(
    ["auto", "data", "all"],
    "what is sent: data leaves out what reads as zero, all sends every byte",
    "auto",
  ),
  compat: choice(["ezio"], "make a torrent that EZIO can deploy: every byte is sent, in pieces of 16M"),
  mergeGap: size("zeros between data that are shorter are sent as data", "64K"),
  name: text("TEXT", "what the image is called; without it the source's file name"),
  io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
  direct: choice(["auto", "off"], "read past the page cache (O_DIRECT)", "auto"),
  force: flag("capture a disk also while it is mounted read-write"),
} satisfies OptionTable;

export const capture = defineCommand({
  name: "capture",
  arguments: "<source>",
  summary: "make the torrent of a disk, a partition or a raw image",
  details: `
The source is read once; blocks that are zero are not sent, nodes make them zero by themselves. It must
not change meanwhile: a mounted disk is refused, a file that was written to fails the capture. Nothing
is left behind by a capture that fails or is interrupted.
EZIO knows no zero ranges: with --compat ezio a raw source is sent as a whole.`,
  options: OPTIONS,
  examples: [
    "diskswarm capture /dev/sdb -o classroom.torrent --tracker http://10.0.0.1:6969/announce",
    "diskswarm capture classroom.raw",
    "diskswarm capture /dev/sdb --save classroom.raw --name classroom",
  ],
  exitCodes: [ExitCode.done, ExitCode.failed, ExitCode.usage, ExitCode.refused, ExitCode.interrupted],
  async run(context) {
    const { output, signal } = context;
    const work = workOf(context);
    const startMs = performance.now();
    output.start(`capturing ${work.sourcePath}`, {
      command: "capture",
      source: work.sourcePath,
      torrent: work.outputPath,
    });
    const report = await runWork<CaptureOptions, CaptureReport>(
      "image/capture-worker",
      work,
      workHooks(output, "capture"),
      signal,
    );
    if (report === null) return ExitCode.interrupted;
    tell(context, report, (performance.now() - startMs) / 1000);
    return ExitCode.done;
  },
});

type CaptureContext = Context<typeof OPTIONS>;

function workOf({ arguments: words, options }: CaptureContext): CaptureOptions {
  const sourcePath = words[0]!;
  const name = options.name ?? imageName(sourcePath);
  return {
    sourcePath,
    outputPath: options.output ?? `${name}.torrent`,
    savePath: options.save,
    trackers: options.tracker,
    pieceBytes: options.pieceSize,
    extents: options.extents === "all" ? "all" : "data",
    ezio: options.compat === "ezio",
    mergeGapBytes: options.mergeGap,
    name,
    force: options.force,
    io: options.io,
    direct: options.direct === "auto",
  };
}

function tell({ output }: CaptureContext, report: CaptureReport, seconds: number): void {
  output.event("done", {
    ...report,
    bytesTotal: report.payloadBytes,
    bytesFetched: 0,
    bytesReused: 0,
    seconds,
    peakRssBytes: peakRssBytes(),
    flushed: true,
    verified: false,
  });
  const zeros = report.zeroBytes > 0 ? `, ${formatBytes(report.zeroBytes)} of zeros are not sent` : "";
  const extents = report.extentCount === 1 ? "1 extent" : `${report.extentCount} extents`;
  output.line(
    `${report.outputPath}: ${formatBytes(report.payloadBytes)} of ${formatBytes(report.diskBytes)} in ${extents}${zeros}`,
  );
  output.line(
    `  name ${report.name}, ${report.pieceCount} pieces of ${formatBytes(report.pieceBytes)}, info hash ${report.infoHash}`,
  );
  if (report.savedPath !== null) output.line(`  copy saved to ${report.savedPath}`);
  output.line(`  took ${formatDuration(seconds * 1000)}, ${formatRate(report.payloadBytes / seconds)}`);
}
