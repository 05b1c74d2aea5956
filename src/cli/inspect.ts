/** `inspect`: says what is in a torrent. */
import { ExitCode } from "../errors.ts";
import { areaRows } from "../image/area-table.ts";
import { rangesEndBytes, rangesTotalBytes } from "../torrent/extents.ts";
import { signatureHolds } from "../torrent/signature.ts";
import type { Metainfo, RangeTable } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { areaLines } from "./area-lines.ts";
import { defineCommand } from "./command.ts";
import { duration, value } from "./options.ts";
import { loadTorrentFile } from "./torrent-argument.ts";

export const inspect = defineCommand({
  name: "inspect",
  arguments: "<torrent>",
  summary: "show what is in a torrent",
  details: `
The torrent is a file or an http(s) URL. The first extents and zero ranges are listed; --list asks for
more of them.`,
  options: {
    list: value(
      {
        placeholder: "N",
        help: "how many extents and zero ranges are listed",
        expected: "a number",
        parse: (word) => (/^\d{1,7}$/.test(word) ? Number(word) : null),
      },
      10,
    ),
    timeout: duration("how long a torrent's URL that does not answer is asked again", "60s"),
  },
  examples: ["diskswarm inspect classroom.torrent", "diskswarm inspect classroom.torrent --json --list 100000"],
  exitCodes: [ExitCode.done, ExitCode.failed, ExitCode.usage, ExitCode.nothingToFetch],
  async run({ arguments: words, options, output, signal }) {
    const { metainfo } = await loadTorrentFile(words[0]!, { timeoutMs: options.timeout, signal, output });
    const signatureIsSound = await signatureHolds(metainfo);
    output.event("torrent", { ...describe(metainfo, options.list), signatureIsSound });
    for (const line of textOf(metainfo, options.list, signatureIsSound)) output.line(line);
    return ExitCode.done;
  },
});

function describe(metainfo: Metainfo, list: number): Record<string, unknown> {
  const { extents, image } = metainfo;
  return {
    name: metainfo.name,
    infoHash: metainfo.infoHash.toHex(),
    layout: metainfo.layout,
    bytesTotal: extents.totalBytes,
    diskBytes: diskBytesOf(metainfo),
    pieceBytes: metainfo.pieceBytes,
    pieceCount: metainfo.pieceCount,
    extentCount: extents.count,
    extents: listed(extents, list),
    kind: image?.kind ?? null,
    sectorBytes: image?.sectorBytes ?? null,
    zeroBytes: image === null ? null : rangesTotalBytes(image.zeroRanges),
    zeroRangeCount: image?.zeroRanges.count ?? null,
    zeroRanges: image === null ? null : listed(image.zeroRanges, list),
    filesystems: image?.filesystems ?? null,
    blockBytes: image?.blockBytes ?? null,
    partitions: image?.partitions ?? null,
    areas: image === null ? null : areaRows(image, extents),
    trackers: metainfo.trackers,
    isPrivate: metainfo.isPrivate,
    sourcePath: metainfo.sourcePath,
    signedBy: metainfo.signature?.publicKey.toBase64() ?? null,
    sourceFormat: metainfo.sourceFormat,
  };
}

/** What is known of the disk's size: without our own entry only how far the extents reach. */
function diskBytesOf({ image, extents }: Metainfo): number {
  return image?.diskBytes ?? rangesEndBytes(extents);
}

function listed(ranges: RangeTable, list: number): { offsetBytes: number; lengthBytes: number }[] {
  return Array.from({ length: Math.min(ranges.count, list) }, (_, i) => ({
    offsetBytes: ranges.diskOffsetBytes[i],
    lengthBytes: ranges.lengthBytes[i],
  }));
}

function* textOf(metainfo: Metainfo, list: number, signatureIsSound: boolean): Generator<string> {
  const { extents, image } = metainfo;
  yield `name        ${metainfo.name}`;
  yield `info hash   ${metainfo.infoHash.toHex()}`;
  yield `data        ${sizeText(extents.totalBytes)} in ${metainfo.pieceCount} pieces of ${formatBytes(metainfo.pieceBytes)}`;
  if (image !== null) {
    yield `source      a ${image.kind} of ${sizeText(image.diskBytes)}, sectors of ${image.sectorBytes} bytes`;
    yield* areaLines(areaRows(image, extents));
  } else if (metainfo.layout === "single")
    yield "source      an ordinary torrent of one file, written from the disk's start";
  else
    yield `source      made by EZIO or partclone: reaches to byte ${rangesEndBytes(extents)} of the disk, no zero ranges`;
  if (metainfo.signature !== null)
    yield `signed      by ${metainfo.signature.publicKey.toBase64()}${signatureIsSound ? "" : ": THE SIGNATURE IS WRONG"}`;
  if (metainfo.sourcePath !== null) yield `captured    from ${metainfo.sourcePath}`;
  if (metainfo.sourceFormat !== null) yield `made of     ${printable(metainfo.sourceFormat)}`;
  for (const tier of metainfo.trackers) yield `tracker     ${tier.join(" ")}`;
  if (metainfo.isPrivate) yield "private     peers come from its trackers alone";
  yield* rangesText("extents", extents, list);
  if (image !== null) yield* rangesText("zero ranges", image.zeroRanges, list);
}

/** Somebody else may have written it. */
function printable(text: string): string {
  return text.slice(0, 100).replace(/[^ -~]/g, "?");
}

function sizeText(bytes: number): string {
  return `${formatBytes(bytes)} (${bytes} bytes)`;
}

function* rangesText(title: string, ranges: RangeTable, list: number): Generator<string> {
  yield `${title.padEnd(11)} ${ranges.count}, ${formatBytes(rangesTotalBytes(ranges))}`;
  for (const { offsetBytes, lengthBytes } of listed(ranges, list))
    yield `  ${String(offsetBytes).padStart(16)} ${String(lengthBytes).padStart(16)}`;
  if (ranges.count > list) yield `  and ${ranges.count - list} more (--list ${ranges.count})`;
}
