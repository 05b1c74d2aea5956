/**
 * The arguments of `serve`: each becomes a torrent and the source it is served from. A torrent is used as it
 * is; anything else is a source and is captured first, into a folder that ends with the command.
 */
import { closeSync, existsSync, openSync, readSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ExitCode, Failure, usageError } from "../errors.ts";
import { imageName, MERGE_GAP_BYTES } from "../image/capture-defaults.ts";
import { type CaptureRequest, captureImage } from "../image/capture-image.ts";
import type { SeedSource } from "../image/foreign/prepared-source.ts";
import { openSeedSource } from "./seed-source.ts";
import { type LoadOptions, loadTorrentFile, type TorrentFile } from "./torrent-argument.ts";
import { workHooks } from "./work-hooks.ts";

export interface ServedImage {
  readonly torrent: TorrentFile;
  /** As it was named. */
  readonly sourcePath: string;
  /** What is read; whoever serves closes it. */
  readonly source: SeedSource;
}

/** One argument, taken apart: a torrent with its source (null: to be looked for), or a source alone. */
type Argument =
  | { readonly torrent: string; readonly source: string | null }
  | { readonly torrent: null; readonly source: string };

/** Makes the argument ready. Null where the user stopped a capture. */
export async function prepareImage(word: string, folder: string, options: LoadOptions): Promise<ServedImage | null> {
  const argument = splitArgument(word);
  if (argument.torrent === null) return captureSource(argument.source, folder, options);
  const torrent = await loadTorrentFile(argument.torrent, options);
  return withSource(torrent, argument.source ?? findSource(argument.torrent, torrent), options);
}

async function withSource(
  torrent: TorrentFile,
  sourcePath: string,
  { signal }: LoadOptions,
): Promise<ServedImage | null> {
  const source = await openSeedSource(sourcePath, torrent.metainfo, signal);
  return source && { torrent, sourcePath, source };
}

/** `TORRENT=SOURCE`, a torrent, or a source. A file that exists is never taken apart. */
function splitArgument(word: string): Argument {
  const isUrl = /^https?:\/\//i.test(word);
  const named = (isUrl ? /^(.*?\.torrent)=(.+)$/ : /^(.*?\.torrent|[^=]+)=(.+)$/).exec(word);
  if (named && !existsSync(word)) return { torrent: named[1]!, source: named[2]! };
  if (isUrl) return { torrent: word, source: null };
  const stat = statSync(word, { throwIfNoEntry: false });
  if (!stat) throw new Failure(ExitCode.failed, "no-such-file", `cannot serve ${word}: no such file`);
  if (stat.isDirectory())
    throw usageError(`${word} is a folder; serve takes disks, images and torrents. Capture it first, with --save FILE`);
  return stat.isFile() && looksLikeTorrent(word) ? { torrent: word, source: null } : { torrent: null, source: word };
}

/** By its name or by how every torrent begins: a dictionary with a key. A raw image begins with code or zeros. */
function looksLikeTorrent(path: string): boolean {
  if (path.endsWith(".torrent")) return true;
  const head = Buffer.alloc(16);
  const fd = openSync(path, "r");
  const length = readSync(fd, head, 0, head.length, 0);
  closeSync(fd);
  return /^d\d{1,2}:[a-z]/.test(head.toString("latin1", 0, length));
}

/** Where the torrent was captured from, or an image beside it with its name. */
function findSource(path: string, torrent: TorrentFile): string {
  const stem = join(dirname(path), basename(path, ".torrent"));
  const candidates = [torrent.metainfo.sourcePath, `${stem}.raw`, `${stem}.img`, stem === path ? null : stem];
  candidates.push(join(dirname(path), torrent.metainfo.name));
  const found = candidates.find((candidate) => candidate !== null && candidate !== path && existsSync(candidate));
  if (found) return found;
  const gone =
    torrent.metainfo.sourcePath === null
      ? ""
      : ` (it was captured from ${torrent.metainfo.sourcePath}, which is not there)`;
  throw usageError(`where is the image of ${path}?${gone} Name it as ${path}=SOURCE`);
}

async function captureSource(sourcePath: string, folder: string, options: LoadOptions): Promise<ServedImage | null> {
  const { output, signal } = options;
  const name = imageName(sourcePath);
  const outputPath = join(folder, `${name}.torrent`);
  const work: CaptureRequest = {
    sourcePath,
    torrentInfoPath: null,
    outputPath,
    savePath: null,
    trackers: [],
    pieceBytes: null,
    extents: "auto",
    format: "auto",
    ezio: false,
    mergeGapBytes: MERGE_GAP_BYTES,
    name,
    signKey: null,
    force: false,
    io: "auto",
    direct: true,
  };
  output.line(`capturing ${sourcePath}`);
  const report = await captureImage(work, workHooks(output, "capture"), workHooks(output, "unpack"), signal);
  return report && withSource(await loadTorrentFile(outputPath, options), sourcePath, options);
}
