/** Reads the ranges of a disk that must be zero, and tells what in them is not. */
import type { OpenDisk } from "../disk/open-disk.ts";
import { mapMemory } from "../kernel/memory.ts";
import type { Reactor } from "../kernel/reactor.ts";
import type { RangeTable } from "../torrent/types.ts";
import { KiB } from "../units.ts";
import { dataRangesOf } from "./data-ranges.ts";
import { intersection, RangeList } from "./range-list.ts";
import { ReadAhead, READS_MAX } from "./read-ahead.ts";
import type { DiskRange } from "./verify.ts";
import { Interrupted, type WorkControl } from "./work-thread.ts";
import { ZeroScanner } from "./zero-blocks.ts";

const SLAB_BYTES = 256 * KiB;
const SLABS = 2 * READS_MAX;
const SLEEP_MS = 200;

/** What of the zero ranges has to be read: all of it, but for the holes of a sparse file. */
export function zeroRangesToRead(disk: OpenDisk, zeroRanges: RangeTable): RangeList {
  const wanted = new RangeList();
  for (let i = 0; i < zeroRanges.count; i++) wanted.push(zeroRanges.diskOffsetBytes[i], zeroRanges.lengthBytes[i]);
  return disk.kind === "block"
    ? wanted
    : intersection(wanted, dataRangesOf(disk.bufferedFd, disk.path, disk.sizeBytes));
}

/** Reads the ranges. Returns the runs of blocks that are not zero, in order. Throws DiskFault or Interrupted. */
export function findNonZero(reactor: Reactor, disk: OpenDisk, ranges: RangeList, control: WorkControl): DiskRange[] {
  const memory = mapMemory(SLABS * SLAB_BYTES);
  const slabs = { address: memory.address, slabBytes: SLAB_BYTES, count: SLABS };
  const reads = new ReadAhead(reactor, disk, ranges, slabs, 0);
  const scanner = new ZeroScanner(memory.bytes);
  const found = new FoundRuns();
  let fault: Error | null = null;
  const completed = (slab: number, result: number) => {
    try {
      if (fault === null) reads.completed(slab, result);
    } catch (error) {
      fault = error as Error;
    }
  };
  try {
    for (;;) {
      reads.pump();
      for (let slab = reads.take(); slab >= 0; slab = reads.take()) {
        found.positionBytes = reads.diskOffset(slab);
        scanner.runs(slab * SLAB_BYTES, reads.lengthBytes(slab), found);
        reads.release(slab);
        reads.pump();
      }
      if (reads.ended) return found.runs;
      if (control.stopped()) throw new Interrupted("stopped");
      control.progress(reads.bytesTaken, ranges.totalBytes);
      reactor.run(SLEEP_MS, completed);
      if (fault !== null) throw fault;
    }
  } finally {
    while (reactor.inFlight > 0) reactor.run(Number.POSITIVE_INFINITY, () => {});
    memory.free();
  }
}

/** Collects runs of data; those that touch become one. */
class FoundRuns {
  readonly runs: { offsetBytes: number; lengthBytes: number }[] = [];
  positionBytes = 0;

  data(lengthBytes: number): void {
    const last = this.runs.at(-1);
    if (last !== undefined && last.offsetBytes + last.lengthBytes === this.positionBytes)
      last.lengthBytes += lengthBytes;
    else this.runs.push({ offsetBytes: this.positionBytes, lengthBytes });
    this.positionBytes += lengthBytes;
  }

  zero(lengthBytes: number): void {
    this.positionBytes += lengthBytes;
  }
}
