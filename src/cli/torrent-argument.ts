/**
 * The `<torrent>` of a command line: a file, an http(s) URL or a magnet link, read with limits of size and
 * time. A server that does not answer yet is asked again, since nodes often boot before it.
 */
import { readFileSync, statSync } from "node:fs";
import { ExitCode, Failure } from "../errors.ts";
import { TORRENT_BYTES_MAX } from "../limits.ts";
import { pause } from "../pause.ts";
import { isMagnet, parseMagnet } from "../torrent/magnet.ts";
import { parseMetainfo } from "../torrent/metainfo.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes, formatDuration } from "../units.ts";
import { VERSION } from "../version.ts";
import type { Output } from "./output.ts";

/** A torrent of which everything is known. */
export interface TorrentFile {
  readonly bytes: Uint8Array;
  readonly metainfo: Metainfo;
}

/** What a deployment starts from: the file, or what a magnet link tells of it. */
export interface TorrentArgument {
  /** Null: the metadata comes from the swarm (BEP 9). */
  readonly file: TorrentFile | null;
  readonly infoHash: Uint8Array;
  readonly name: string | null;
  /** Tiers of announce URLs (BEP 12). */
  readonly trackers: readonly (readonly string[])[];
  /** `host:port`; hosts may be names. */
  readonly peers: readonly string[];
  readonly isPrivate: boolean;
}

export interface LoadOptions {
  /** How long a URL that does not answer is asked again. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly output: Output;
}

/** Between two attempts at a URL; a fleet that waits for its server asks this often. */
const RETRY_MS = 2000;
/** A transfer that brings no byte for this long is given up and begun again. */
const STALL_MS = 15_000;

/** Reads the argument in whichever of its three forms. */
export async function loadTorrentArgument(text: string, options: LoadOptions): Promise<TorrentArgument> {
  if (isMagnet(text)) {
    const { infoHash, name, trackers, peers } = parseMagnet(text);
    return { file: null, infoHash, name, trackers: trackers.map((url) => [url]), peers, isPrivate: false };
  }
  const file = await loadTorrentFile(text, options);
  const { infoHash, name, trackers, isPrivate } = file.metainfo;
  return { file, infoHash, name, trackers, peers: [], isPrivate };
}

/** Reads a torrent from a file or a URL. */
export async function loadTorrentFile(text: string, options: LoadOptions): Promise<TorrentFile> {
  const bytes = /^https?:\/\//i.test(text) ? await fetchTorrent(text, options) : readTorrent(text);
  try {
    return { bytes, metainfo: parseMetainfo(bytes) };
  } catch (error) {
    if (error instanceof Failure) throw new Failure(error.exitCode, error.code, `${text}: ${error.message}`);
    throw error;
  }
}

function readTorrent(path: string): Uint8Array {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw cannotRead(path, "no such file");
  if (!stat.isFile())
    throw cannotRead(path, "it is not a file (the torrent stands before the disk on the command line)");
  if (stat.size > TORRENT_BYTES_MAX)
    throw cannotRead(
      path,
      `${formatBytes(stat.size)} is more than a torrent can have (${formatBytes(TORRENT_BYTES_MAX)})`,
    );
  return readFileSync(path);
}

function cannotRead(path: string, why: string): Failure {
  return new Failure(ExitCode.failed, "torrent-unreadable", `cannot read the torrent ${path}: ${why}`);
}

/** A reason that trying again may mend. */
class Unreachable extends Error {}

async function fetchTorrent(url: string, { timeoutMs, signal, output }: LoadOptions): Promise<Uint8Array> {
  const deadlineMs = performance.now() + timeoutMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await fetchOnce(url, Math.min(STALL_MS, Math.max(1000, timeoutMs)), signal);
    } catch (error) {
      if (signal.aborted) throw new Failure(ExitCode.interrupted, "interrupted", `stopped while fetching ${url}`);
      if (!(error instanceof Unreachable)) throw error;
      if (performance.now() + RETRY_MS > deadlineMs) {
        const waited = `for ${formatDuration(timeoutMs)}`;
        throw unfetchable(
          url,
          `${error.message}, ${waited}: check the address and that the server runs (--timeout waits longer)`,
        );
      }
      if (attempt === 1) output.warning("torrent-unreachable", `${url}: ${error.message}; trying again`);
      else output.log("debug", `${url}: ${error.message}; attempt ${attempt}`);
    }
    await pause(RETRY_MS, signal);
  }
}

async function fetchOnce(url: string, stallMs: number, signal: AbortSignal): Promise<Uint8Array> {
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), stallMs);
  try {
    const headers = { "User-Agent": `diskswarm/${VERSION}`, Accept: "application/x-bittorrent, */*" };
    const response = await fetch(url, { headers, signal: AbortSignal.any([signal, stall.signal]) });
    if (!response.ok) await refuse(url, response);
    const chunks: Uint8Array[] = [];
    let lengthBytes = 0;
    for await (const chunk of response.body ?? []) {
      clearTimeout(timer);
      timer = setTimeout(() => stall.abort(), stallMs);
      lengthBytes += chunk.length;
      if (lengthBytes > TORRENT_BYTES_MAX)
        throw unfetchable(url, `it is longer than a torrent can be (${formatBytes(TORRENT_BYTES_MAX)})`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    if (error instanceof Failure || error instanceof Unreachable || signal.aborted) throw error;
    throw new Unreachable(stall.signal.aborted ? `no answer within ${formatDuration(stallMs)}` : reasonOf(error));
  } finally {
    clearTimeout(timer);
  }
}

/** A server that is overloaded or starting may answer later; one that knows no such torrent will not. */
async function refuse(url: string, response: Response): Promise<never> {
  const status = `the server answered ${response.status} ${response.statusText}`.trim();
  if (response.status >= 500 || response.status === 408 || response.status === 429) throw new Unreachable(status);
  const text = (await response.text()).slice(0, 200).trim().replaceAll(/\s+/g, " ");
  throw unfetchable(url, text ? `${status}: ${text}` : status);
}

function unfetchable(url: string, why: string): Failure {
  return new Failure(ExitCode.nothingToFetch, "torrent-unreachable", `cannot fetch ${url}: ${why}`);
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ConnectionRefused" || code === "ECONNREFUSED") return "connection refused";
  if (code === "FailedToOpenSocket" || code === "ENOTFOUND") return "the host is unknown or cannot be reached";
  return message;
}
