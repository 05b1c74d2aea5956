/**
 * The torrents that a server hands to nodes: `/torrents/<name>.torrent`. They are kept in memory and looked up
 * by their exact name, so no path ever reaches a file system.
 *
 * A torrent that names no tracker gets this server's own, by the address that the node used to reach it: a
 * node needs nothing but that one URL.
 */
import { ExitCode, Failure } from "../errors.ts";
import { withTrackers } from "../torrent/create.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { hostOf } from "./host.ts";

export interface ServedTorrent {
  /** What stands before `.torrent` in the URL. */
  readonly name: string;
  /** The torrent file without the path of its source. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly metainfo: Metainfo;
}

interface Entry {
  readonly torrent: ServedTorrent;
  readonly infoHash: string;
  /** Of the file without our tracker; tells versions apart that share an info hash. */
  readonly digest: bigint;
  /** The file by tracker URL; made once and shared by all replies, or a room that boots would hold a copy per node. */
  readonly files: Map<string, Blob>;
}

const PATH = "/torrents/";
const SUFFIX = ".torrent";
/** Names by which nodes reach a server: a few interfaces and a host name. Beyond, the oldest file is made anew. */
const FILES_KEPT_MAX = 16;
const TEXT = { "Content-Type": "text/plain; charset=utf-8" };

export class TorrentShelf {
  readonly #entries = new Map<string, Entry>();

  /** Throws a Failure where two torrents have one name, or a name is no file name. */
  constructor(torrents: readonly ServedTorrent[]) {
    for (const torrent of torrents) {
      if (!/^[^/\\\u0000-\u001f\u007f]{1,200}$/.test(torrent.name) || /^\.+$/.test(torrent.name))
        throw new Failure(
          ExitCode.usage,
          "torrent-name",
          `"${torrent.name}" cannot be the name of a torrent: rename it`,
        );
      if (this.#entries.has(torrent.name))
        throw new Failure(
          ExitCode.usage,
          "torrent-name",
          `two torrents are named ${torrent.name}: rename one (capture --name)`,
        );
      const infoHash = torrent.metainfo.infoHash.toHex();
      this.#entries.set(torrent.name, {
        torrent,
        infoHash,
        digest: Bun.hash.xxHash64(torrent.bytes),
        files: new Map(),
      });
    }
  }

  /** Answers `/torrents/...`; null for any other path. */
  handle(path: string, request: Request): Response | null {
    if (!path.startsWith(PATH)) return null;
    if (request.method !== "GET" && request.method !== "HEAD")
      return new Response("only GET and HEAD are answered here\n", {
        status: 405,
        headers: { ...TEXT, Allow: "GET, HEAD" },
      });
    const entry = this.#find(path.slice(PATH.length));
    return entry === null ? this.#notFound() : this.#file(entry, request);
  }

  /** What `/` says: the images, and what to type on a node. */
  summary(request: Request): Response {
    const host = hostOf(request) ?? "SERVER";
    const lines = [...this.#entries.values()].flatMap(({ torrent, infoHash }) => [
      "",
      `${torrent.name}: ${formatBytes(torrent.metainfo.extents.totalBytes)} in ${torrent.metainfo.pieceCount} pieces, info hash ${infoHash}`,
      `  diskswarm deploy http://${host}${urlPath(torrent.name)} /dev/TARGET`,
    ]);
    const head =
      this.#entries.size === 0
        ? "diskswarm server without images"
        : "diskswarm server. Images, and what to run on a node:";
    return new Response(`${[head, ...lines].join("\n")}\n`, { headers: { ...TEXT, "Cache-Control": "no-store" } });
  }

  /** Where the torrents are, by the name that the request called this server; null where it called it by none. */
  urls(request: Request): string[] | null {
    const host = hostOf(request);
    return host === null ? null : [...this.#entries.keys()].map((name) => `http://${host}${urlPath(name)}`);
  }

  #find(file: string): Entry | null {
    if (!file.endsWith(SUFFIX)) return null;
    try {
      return this.#entries.get(decodeURIComponent(file.slice(0, -SUFFIX.length))) ?? null;
    } catch (error) {
      // A broken percent escape is the name of nothing.
      if (error instanceof URIError) return null;
      throw error;
    }
  }

  #file(entry: Entry, request: Request): Response {
    const tracker = entry.torrent.metainfo.trackers.length > 0 ? "" : trackerOf(request);
    const headers = {
      "Content-Type": "application/x-bittorrent",
      ETag: `"${entry.infoHash}-${Bun.hash.xxHash64(tracker, entry.digest).toString(16)}"`,
      "Cache-Control": "no-cache",
      Vary: "Host",
    };
    const known = request.headers.get("If-None-Match");
    if (known?.split(",").some((tag) => tag.trim().replace(/^W\//, "") === headers.ETag))
      return new Response(null, { status: 304, headers });
    return new Response(fileFor(entry, tracker), { headers });
  }

  #notFound(): Response {
    const names = [...this.#entries.keys()].map((name) => urlPath(name));
    const text =
      names.length === 0 ? "no torrent is served here" : `no such torrent. Served here:\n${names.join("\n")}`;
    return new Response(`${text}\n`, { status: 404, headers: TEXT });
  }
}

/** Path of a torrent's URL on its server. */
export function urlPath(name: string): string {
  return `${PATH}${encodeURIComponent(name)}${SUFFIX}`;
}

function fileFor(entry: Entry, tracker: string): Blob {
  const made = entry.files.get(tracker);
  if (made) return made;
  if (entry.files.size >= FILES_KEPT_MAX) entry.files.delete(entry.files.keys().next().value!);
  const { bytes } = entry.torrent;
  const file = new Blob([tracker === "" ? bytes : new Uint8Array(withTrackers(bytes, [[tracker]]))]);
  entry.files.set(tracker, file);
  return file;
}

function trackerOf(request: Request): string {
  const host = hostOf(request);
  return host === null ? "" : `http://${host}/announce`;
}
