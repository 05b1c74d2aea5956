/**
 * What of an image lies beyond the end of a smaller disk: the backup of its GPT and little else. It is kept in
 * memory, so that the pieces that it is part of can be hashed, proven and handed on like all others.
 *
 * Owns a few small buffers; nothing here is seen by the kernel.
 */
import { assert } from "../errors.ts";
import { viewAt } from "../kernel/memory.ts";
import type { Address } from "../kernel/reactor.ts";
import type { ExtentTable } from "../torrent/types.ts";

interface Run {
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

/** Plain data, to be handed to another thread. */
export interface TailContent {
  readonly startBytes: number;
  readonly runs: readonly Run[];
}

export class TailStore {
  /** `content` is shared, not copied. */
  constructor(readonly content: TailContent) {}

  /** For a disk of `diskBytes`; null where all extents lie on it. */
  static beyond(extents: ExtentTable, diskBytes: number): TailStore | null {
    const runs: Run[] = [];
    for (let i = 0; i < extents.count; i++) {
      const start = Math.max(extents.diskOffsetBytes[i], diskBytes);
      const end = extents.diskOffsetBytes[i] + extents.lengthBytes[i];
      if (end > start) runs.push({ offsetBytes: start, bytes: new Uint8Array(end - start) });
    }
    return runs.length === 0 ? null : new TailStore({ startBytes: diskBytes, runs });
  }

  /** Disk bytes from here on are in memory. */
  get startBytes(): number {
    return this.content.startBytes;
  }

  get totalBytes(): number {
    return this.content.runs.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** Takes bytes of one extent. */
  write(diskOffsetBytes: number, address: Address, lengthBytes: number): void {
    this.#at(diskOffsetBytes, lengthBytes).set(viewAt(address, lengthBytes));
  }

  /** Gives bytes of one extent: zeros before they were written. */
  read(diskOffsetBytes: number, address: Address, lengthBytes: number): void {
    viewAt(address, lengthBytes).set(this.#at(diskOffsetBytes, lengthBytes));
  }

  #at(diskOffsetBytes: number, lengthBytes: number): Uint8Array {
    const run = this.content.runs.findLast(({ offsetBytes }) => offsetBytes <= diskOffsetBytes);
    assert(run !== undefined, "the tail is asked for bytes beyond the disk's end");
    const start = diskOffsetBytes - run.offsetBytes;
    assert(start + lengthBytes <= run.bytes.length, "the tail is asked for bytes of one extent");
    return run.bytes.subarray(start, start + lengthBytes);
  }
}
