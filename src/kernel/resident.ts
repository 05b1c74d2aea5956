/**
 * Gives back the pages of the executable and its libraries that nobody touches any more.
 *
 * Of the 80 MB of program text that Bun brings, half becomes resident while a process starts and hardly any of it
 * is needed to move bytes. The kernel gives such pages up under pressure only; a small machine should not have to
 * get there. They stay in the page cache: what is touched again comes back by a minor fault, 16 pages at a time.
 */
import { existsSync, readFileSync } from "node:fs";
import { assert } from "../errors.ts";
import { KiB } from "../units.ts";
import { MADV_DONTNEED } from "./abi.ts";
import { errnoText, madvise } from "./libc.ts";

/** `start-end perms offset device inode path`, proc(5). */
const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) /;
/** Pages that were written to and belong to this process alone, as relocation leaves them in read-only mappings. */
const ANONYMOUS = /^Anonymous: +(\d+) kB$/;

/** Resident pages of files, proc(5). */
const RESIDENT_OF_FILES = /^RssFile:\s+(\d+) kB$/m;

export class ProgramPages {
  #mappings: readonly Range[] | null = null;
  #nextLookMs = 0;

  constructor(
    /** More resident than this is given back. */
    readonly residentBytesMax: number,
    readonly intervalMs: number,
  ) {}

  /** Looks every `intervalMs` whether there is something to give back. */
  turn(nowMs: number): void {
    if (nowMs < this.#nextLookMs) return;
    this.#nextLookMs = nowMs + this.intervalMs;
    if (residentFileBytes() > this.residentBytesMax) this.drop();
  }

  /** Drops every resident page of the read-only file mappings in which nothing was ever written. */
  drop(): void {
    // Text is never written to once the loader is done with it, so that what is clean now stays so.
    this.#mappings ??= cleanMappings(readFileSync("/proc/self/smaps", "latin1"));
    for (const { start, end } of this.#mappings) {
      const result = madvise(start, end - start, MADV_DONTNEED);
      assert(result === 0, `madvise of the program's own text failed: ${errnoText(result)}`);
    }
  }
}

/** Pages of files that this process maps, in bytes; 0 where the kernel does not tell, or there is no /proc. */
export function residentFileBytes(): number {
  if (!existsSync("/proc/self/status")) return 0;
  const match = RESIDENT_OF_FILES.exec(readFileSync("/proc/self/status", "latin1"));
  return match ? Number(match[1]) * KiB : 0;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Of the text of /proc/self/smaps: read-only private mappings of files without a page that differs from the file. */
export function cleanMappings(smaps: string): Range[] {
  const found: Range[] = [];
  let candidate: Range | null = null;
  for (const line of smaps.split("\n")) {
    const mapping = MAPPING.exec(line);
    if (mapping !== null) {
      const [, start, end, permissions, inode] = mapping;
      const isProgram = inode !== "0" && /^r-[-x]p$/.test(permissions!);
      candidate = isProgram ? { start: Number.parseInt(start!, 16), end: Number.parseInt(end!, 16) } : null;
      continue;
    }
    if (candidate === null) continue;
    const anonymous = ANONYMOUS.exec(line);
    if (anonymous === null) continue;
    if (anonymous[1] === "0") found.push(candidate);
    candidate = null;
  }
  return found;
}
