/**
 * `--allow TORRENT|DIR`: which info-hashes a tracker serves, kept up with the files. Folders are looked at every
 * two seconds rather than watched: that also works on network file systems, and a file copied in slowly is
 * simply read again once it is complete.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, Failure } from "../errors.ts";
import { TORRENT_BYTES_MAX } from "../limits.ts";
import { infoHashOfTorrent } from "../torrent/create.ts";

const POLL_INTERVAL_MS = 2000;

interface Known {
  /** Changes whenever the file does: inode, size and time of change. */
  readonly version: string;
  /** Null: no torrent, and it was said so. */
  readonly infoHash: string | null;
}

export class AllowList {
  readonly #paths: readonly string[];
  readonly #onWarning: (message: string) => void;
  #known = new Map<string, Known>();
  /** Paths whose absence was told. */
  readonly #missing = new Set<string>();
  #timer: Timer | undefined;

  /** `onWarning` hears of files that cannot be used, once for each version of a file. */
  constructor(paths: readonly string[], onWarning: (message: string) => void) {
    this.#paths = paths;
    this.#onWarning = onWarning;
  }

  /** First reading. Throws a Failure where a path that was given is missing or is a file but no torrent. */
  load(): Set<string> {
    for (const path of this.#paths) {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (!stat) throw new Failure(ExitCode.failed, "torrent-unreadable", `--allow ${path}: no such file or folder`);
      if (!stat.isDirectory())
        this.#known.set(path, { version: versionOf(stat), infoHash: readInfoHash(path, stat.size) });
    }
    return this.read();
  }

  /** Reads what is new or has changed. Returns all info-hashes, 40 hex digits each. */
  read(): Set<string> {
    const before = this.#known;
    this.#known = new Map();
    for (const path of this.#paths.flatMap((one) => this.#torrentsAt(one))) {
      const known = this.#look(path, before.get(path));
      if (known) this.#known.set(path, known);
    }
    return new Set([...this.#known.values()].map((one) => one.infoHash).filter((infoHash) => infoHash !== null));
  }

  /** Calls `onChange` with all info-hashes whenever they are others than before, until `stop`. */
  follow(onChange: (infoHashes: Set<string>) => void): void {
    let current = this.read();
    this.#timer = setInterval(() => {
      const next = this.read();
      if (next.symmetricDifference(current).size > 0) onChange(next);
      current = next;
    }, POLL_INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The path itself, or the torrents of that folder. */
  #torrentsAt(path: string): string[] {
    try {
      if (!statSync(path).isDirectory()) return [path];
      const names = readdirSync(path).filter((name) => name.endsWith(".torrent"));
      this.#missing.delete(path);
      return names.map((name) => join(path, name));
    } catch (error) {
      this.#tellMissing(path, error);
      return [];
    }
  }

  #look(path: string, before: Known | undefined): Known | null {
    try {
      const stat = statSync(path);
      const version = versionOf(stat);
      this.#missing.delete(path);
      if (before?.version === version) return before;
      return { version, infoHash: this.#readOrWarn(path, stat.size) };
    } catch (error) {
      this.#tellMissing(path, error);
      return null;
    }
  }

  #readOrWarn(path: string, sizeBytes: number): string | null {
    try {
      return readInfoHash(path, sizeBytes);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.#onWarning(error.message);
      return null;
    }
  }

  #tellMissing(path: string, error: unknown): void {
    if ((error as NodeJS.ErrnoException).errno === undefined) throw error;
    if (!this.#missing.has(path))
      this.#onWarning(`${path}: ${(error as Error).message}; its torrents are no longer tracked`);
    this.#missing.add(path);
  }
}

function versionOf(stat: { ino: number; size: number; ctimeMs: number }): string {
  return `${stat.ino} ${stat.size} ${stat.ctimeMs}`;
}

function readInfoHash(path: string, sizeBytes: number): string {
  try {
    if (sizeBytes > TORRENT_BYTES_MAX)
      throw new Failure(ExitCode.failed, "torrent-invalid", "it is larger than a torrent can be");
    return infoHashOfTorrent(readFileSync(path)).toHex();
  } catch (error) {
    if (error instanceof Failure) throw new Failure(error.exitCode, error.code, `${path}: ${error.message}`);
    throw error;
  }
}
