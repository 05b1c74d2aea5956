/** `capture`: makes the torrent of a disk, partition or image of one, and if wanted a sparse raw copy of it. */
import { existsSync } from "node:fs";
import { ExitCode } from "../errors.ts";
import type { CaptureReport } from "../image/capture.ts";
import { imageName } from "../image/capture-defaults.ts";
import { type CaptureRequest, captureImage, EXTENTS_CHOICES } from "../image/capture-image.ts";
import { formatOf } from "../image/foreign/format.ts";
import { formatBytes, formatDuration, formatRate } from "../units.ts";
import { areaLines } from "./area-lines.ts";
import { type Context, defineCommand } from "./command.ts";
import { readPrivateKey } from "./key-files.ts";
import { peakRssBytes } from "./memory.ts";
import { choice, flag, type OptionTable, repeated, size, text, trackerUrl } from "./options.ts";
import { workHooks } from "./work-hooks.ts";

const OPTIONS = {
  output: text("FILE", "the torrent to write; without it NAME.torrent in the current folder", "o"),
  save: text("FILE", "write a sparse copy of the source as well, in the same pass"),
  tracker: repeated(trackerUrl("announce there; may be given more than once")),
  pieceSize: size("bytes of a piece, a power of two; without it what makes about 4000 pieces"),
  extents: choice(
    EXTENTS_CHOICES,
    "what is sent: partclone asks the filesystems for their used blocks, data leaves out zeros alone, all sends every byte; auto is partclone for a disk, a partition or an image that is no raw file, data for a raw file",
    "auto",
  ),
  format: choice(["auto", "raw"], "raw: capture a file's own bytes, whatever it is an image of", "auto"),
  compat: choice(
    ["ezio"],
    "make the torrent that EZIO's tool makes: used blocks as partclone lists them, in pieces of 16M, without zero ranges",
  ),
  mergeGap: size("zeros or unused bytes between data are sent too where they are fewer", "64K"),
  name: text("TEXT", "what the image is called; without it the source's file name"),
  sign: text("KEYFILE", "sign the torrent with this private key (keygen), for deploy --key"),
  io: choice(["auto", "uring", "epoll"], "how to talk to the kernel", "auto"),
  direct: choice(["auto", "off"], "read past the page cache (O_DIRECT)", "auto"),
  force: flag("capture also what is mounted read-write, unclean or damaged; what is in doubt is sent as data"),
} satisfies OptionTable;

export const capture = defineCommand({
  name: "capture",
  arguments: "<source>",
  summary: "make the torrent of a disk, a partition or an image of one",
  details: `
The source is read once. Of filesystems that partclone knows (ext2/3/4, XFS, Btrfs, F2FS, NTFS, FAT,
exFAT, HFS+, APFS and others) used blocks alone are read and sent, of swap its header, in LVM too where
a volume lies in one run; nodes leave the rest as it is. Of everything else blocks that are zero are not
sent, nodes make them zero by themselves: boot code, partition tables, space without a partition, LUKS,
BitLocker, RAID and what is unknown. The table at the end, and inspect, say what was taken of each
partition and why.
An image is told by its content. A virtual disk (qcow2, VMDK, VHDX, VDI, VHD) is looked into like a disk and
can be seeded as it is. An image of partclone, a folder of Clonezilla with one disk in it, and a compressed
raw image, split into files or not (name the first), are unpacked into the file of --save, which is what is
seeded then; the blocks that partclone's image leaves out are unused.
It needs partclone, sfdisk, blkid and losetup for a disk or partition (Debian: partclone fdisk util-linux
mount; for XFS xfsprogs, for LVM lvm2) and none of them with --extents data or for a raw file; for virtual
disks qemu-utils and qemu-system-common, for compressed images the program that unpacks them.
The source must not change meanwhile: a disk that is mounted read-write is refused, a file that was
written to fails the capture; so do a filesystem that was not cleanly unmounted and a damaged partition
table. Nothing is left behind by a capture that fails or is interrupted.
EZIO knows no zero ranges: with --compat ezio, what no filesystem's map speaks of is sent as a whole, and
everything with --extents all. TORRENT.INFO=SOURCE takes what is sent from the torrent.info that partclone
wrote (-t, --btfiles_torrent) and fails (exit 3) where the source is not what that was made of; with the same
--name both give the torrent that EZIO's partclone_create_torrent.py gives.`,
  options: OPTIONS,
  examples: [
    "diskswarm capture /dev/sdb -o classroom.torrent --tracker http://10.0.0.1:6969/announce",
    "diskswarm capture classroom.raw",
    "diskswarm capture /dev/sdb --save classroom.raw --name classroom",
    "diskswarm capture classroom.qcow2",
    "diskswarm capture /home/partimag/classroom-img --save classroom.raw",
    "diskswarm capture torrent.info=/dev/sdb1 --name sda1",
  ],
  exitCodes: [
    ExitCode.done,
    ExitCode.failed,
    ExitCode.usage,
    ExitCode.integrity,
    ExitCode.refused,
    ExitCode.interrupted,
  ],
  async run(context) {
    const { output, signal } = context;
    const work = await workOf(context);
    const startMs = performance.now();
    output.start(`capturing ${work.sourcePath}`, {
      command: "capture",
      source: work.sourcePath,
      torrent: work.outputPath,
    });
    const report = await captureImage(work, workHooks(output, "capture"), workHooks(output, "unpack"), signal);
    if (report === null) return ExitCode.interrupted;
    tell(context, report, (performance.now() - startMs) / 1000);
    return ExitCode.done;
  },
});

type CaptureContext = Context<typeof OPTIONS>;

async function workOf({ arguments: words, options }: CaptureContext): Promise<CaptureRequest> {
  const { torrentInfoPath, sourcePath } = sourceOf(words[0]!);
  const name = options.name ?? imageName(sourcePath);
  return {
    sourcePath,
    torrentInfoPath,
    outputPath: options.output ?? `${name}.torrent`,
    savePath: options.save,
    trackers: options.tracker,
    pieceBytes: options.pieceSize,
    extents: options.extents,
    format: options.format,
    ezio: options.compat === "ezio",
    mergeGapBytes: options.mergeGap,
    name,
    signKey: options.sign === null ? null : await readPrivateKey(options.sign),
    force: options.force,
    io: options.io,
    direct: options.direct === "auto",
  };
}

/** `TORRENT.INFO=SOURCE`, or a source. A file that exists is never taken apart. */
function sourceOf(word: string): { torrentInfoPath: string | null; sourcePath: string } {
  const [, torrentInfoPath, sourcePath] = /^(.*?\.info|[^=]+)=(.+)$/.exec(word) ?? [];
  if (torrentInfoPath === undefined || existsSync(word) || formatOf(torrentInfoPath).kind !== "torrent-info")
    return { torrentInfoPath: null, sourcePath: word };
  return { torrentInfoPath, sourcePath };
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
  const unused = report.unusedBytes > 0 ? `, ${formatBytes(report.unusedBytes)} are unused` : "";
  if (report.sourceFormat !== null) output.line(`${report.sourcePath} is ${report.sourceFormat}`);
  const extents = report.extentCount === 1 ? "1 extent" : `${report.extentCount} extents`;
  output.line(
    `${report.outputPath}: ${formatBytes(report.payloadBytes)} of ${formatBytes(report.diskBytes)} in ${extents}${zeros}${unused}`,
  );
  for (const line of areaLines(report.areas)) output.line(`  ${line}`);
  output.line(
    `  name ${report.name}, ${report.pieceCount} pieces of ${formatBytes(report.pieceBytes)}, info hash ${report.infoHash}`,
  );
  if (report.mergedUnusedBytes > 0)
    output.line(
      `  up to ${formatBytes(report.mergedUnusedBytes)} of unused bytes are sent as well, between used ones that are closer than ${formatBytes(report.mergeGapBytes)}`,
    );
  if (report.signedBy !== null) output.line(`  signed by ${report.signedBy}`);
  if (report.savedPath !== null) output.line(`  copy saved to ${report.savedPath}`);
  output.line(`  took ${formatDuration(seconds * 1000)}, ${formatRate(report.payloadBytes / seconds)}`);
}
