/**
 * What the kernel gave to block devices and in which order, from its own trace (block:block_rq_issue): requests after
 * everything that merges and sorts them, as the disk gets them.
 *
 * A tracing instance of its own is made, so nobody else's trace is disturbed, and removed with the scope.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "../../../src/units.ts";
import { run } from "../../harness/process.ts";
import { NAME_PREFIX, type Scope } from "../../harness/scope.ts";
import { cannotMeasure } from "./settings.ts";

const TRACEFS = "/sys/kernel/tracing";
const SECTOR_BYTES = 512;
/** Per core; a request takes some 100 bytes, so this holds 160,000 of them. */
const BUFFER_KIB = 16 * 1024;
/** As the simulator counts: what is at least this long is worth its seek. */
const LONG_RUN_BYTES = 4 * MiB;

export interface Request {
  readonly isWrite: boolean;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface WritePattern {
  readonly writtenBytes: number;
  /** Of what was written, in runs of at least 4 MiB. */
  readonly longRunShare: number;
  /** Runs of writes: so often the head had to move. */
  readonly runs: number;
  /** Requests that read, and moved it as well. */
  readonly reads: number;
}

/** Starts to record what those devices are given. The function returned ends it with the requests of each. */
export function traceRequests(scope: Scope, devices: readonly string[]): () => Request[][] {
  if (!existsSync(join(TRACEFS, "instances"))) mountTracefs(scope);
  const instance = join(TRACEFS, "instances", `${NAME_PREFIX}-${process.pid}`);
  const set = (file: string, text: string) => writeFileSync(join(instance, file), text);
  mkdirSync(instance);
  scope.defer(() => rmdirSync(instance));
  const numbers = devices.map((device) => numberOf(device));
  const isOne = numbers.map(([major, minor]) => `dev == ${major * 2 ** 20 + minor}`).join(" || ");
  set("buffer_size_kb", String(BUFFER_KIB));
  set("events/block/block_rq_issue/filter", isOne);
  set("events/block/block_rq_issue/enable", "1");
  return () => {
    set("events/block/block_rq_issue/enable", "0");
    const trace = readFileSync(join(instance, "trace"), "utf8");
    const [kept, written] = /entries-in-buffer\/entries-written: (\d+)\/(\d+)/.exec(trace)!.slice(1);
    if (kept !== written) throw cannotMeasure(`the kernel's trace lost ${Number(written) - Number(kept)} requests`);
    return numbers.map(([major, minor]) => requestsOf(trace, `${major},${minor}`));
  };
}

function mountTracefs(scope: Scope): void {
  try {
    run(["mount", "-t", "tracefs", "none", TRACEFS]);
  } catch (error) {
    throw cannotMeasure(`the kernel's trace of block devices is needed: ${(error as Error).message}`);
  }
  scope.defer(() => void run(["umount", TRACEFS]));
}

/** Major and minor number of a device node. */
function numberOf(device: string): [number, number] {
  const { rdev } = statSync(device);
  // makedev(3) for numbers that fit 8 bits each, as those of loop devices do.
  return [rdev >> 8, rdev & 0xff];
}

/** The requests of a device (`major,minor`) in a trace. Lines end as `block_rq_issue: 7,0 WS 524288 () 0 + 1024 be,0,4 [dd]`: device, kind, bytes, first sector, sectors. */
export function requestsOf(trace: string, device: string): Request[] {
  const requests: Request[] = [];
  for (const [, number, kind, sector, sectors] of trace.matchAll(
    /block_rq_issue: (\d+,\d+) (\S+) \d+ \([^)]*\) (\d+) \+ (\d+)/g,
  )) {
    if (number !== device || Number(sectors) === 0 || !/[RW]/.test(kind!)) continue;
    requests.push({
      isWrite: kind!.includes("W"),
      offsetBytes: Number(sector) * SECTOR_BYTES,
      lengthBytes: Number(sectors) * SECTOR_BYTES,
    });
  }
  return requests;
}

/** A run goes on while each request writes where the last one ended; a read in between ends it. */
export function patternOf(requests: readonly Request[]): WritePattern {
  const runs: number[] = [];
  let endBytes = -1;
  let reads = 0;
  for (const { isWrite, offsetBytes, lengthBytes } of requests) {
    if (!isWrite) {
      reads++;
      endBytes = -1;
      continue;
    }
    if (offsetBytes === endBytes) runs[runs.length - 1]! += lengthBytes;
    else runs.push(lengthBytes);
    endBytes = offsetBytes + lengthBytes;
  }
  const sum = (lengths: readonly number[]) => lengths.reduce((total, length) => total + length, 0);
  const writtenBytes = sum(runs);
  const longRunShare = sum(runs.filter((length) => length >= LONG_RUN_BYTES)) / Math.max(1, writtenBytes);
  return { writtenBytes, longRunShare, runs: runs.length, reads };
}
