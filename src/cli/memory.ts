/** What this process may use of the machine's memory and of its processor, and what memory it did use. */
import { existsSync, readFileSync } from "node:fs";
import { usageError } from "../errors.ts";
import { POOL_BYTES_MIN } from "../limits.ts";
import { formatBytes, KiB, MiB } from "../units.ts";
import { choice, type Option, size } from "./options.ts";

/** More does not make a deployment faster; it would only be taken from the machine's other work. */
const POOL_BYTES_DEFAULT_MAX = 256 * MiB;

/** `--compress`, on whatever sends or receives blocks. */
export function compressOption(): Option<"auto" | "off"> {
  return choice(
    ["auto", "off"],
    "send and take compressed blocks among diskswarm peers; auto: where the network is what everything waits for",
    "auto",
  );
}

export function memoryOption(): Option<number | null> {
  return { ...size("bytes of the buffer pool"), fallbackText: "a quarter of the free memory, at most 256M" };
}

/** `--memory`, or a quarter of MemAvailable within the bounds. Throws a usage failure for a pool that is too small. */
export function poolBytes(given: number | null): number {
  if (given === null) return Math.max(POOL_BYTES_MIN, Math.min(POOL_BYTES_DEFAULT_MAX, availableBytes() / 4));
  if (given < POOL_BYTES_MIN)
    throw usageError(`--memory is ${formatBytes(given)} but must be at least ${formatBytes(POOL_BYTES_MIN)}`);
  return given;
}

/** MemAvailable of proc(5), in bytes. */
function availableBytes(): number {
  return procKiB("/proc/meminfo", "MemAvailable") * KiB;
}

/** The most that was resident at once since the program began (VmHWM of proc(5)); getrusage(2) would count the parent's too. */
export function peakRssBytes(): number {
  return procKiB("/proc/self/status", "VmHWM") * KiB;
}

/** 0 where /proc is not mounted: the pool is then the smallest, and what was resident is not known. */
function procKiB(path: string, name: string): number {
  if (!existsSync(path)) return 0;
  const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync(path, "latin1"));
  return match ? Number(match[1]) : 0;
}
