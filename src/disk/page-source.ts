/**
 * Payload that is in the kernel's page cache, to be sent from there without a copy.
 *
 * Only for a source that is read through the page cache and never written by us. A range counts as held when
 * cachestat(2) finds every page of it; what is evicted between that look and the send is read from the disk by
 * the sending thread, which is rare and only costs time. Where the kernel (before Linux 6.5) or the file system
 * cannot tell, nothing counts as held.
 */
import { PAGE_BYTES } from "../kernel/abi.ts";
import { cachedPages } from "../kernel/libc.ts";
import type { SendList } from "../kernel/send-list.ts";
import type { SegmentLocator } from "./queue.ts";

/** Ranges of the disk that one block may consist of: below, the calls cost more than the copy that they save. */
export const SEGMENTS_MAX = 16;

export class PageSource {
  #startBytes = -1;
  #lengthBytes = 0;
  #isHeld = false;
  #cannotTell = false;

  constructor(
    /** Opened without O_DIRECT; belongs to the caller. */
    readonly fd: number,
    readonly segments: SegmentLocator,
  ) {}

  /** Whether all of a range of the payload lies in the page cache, in few enough pieces. */
  holds(torrentOffsetBytes: number, lengthBytes: number): boolean {
    if (this.#startBytes === torrentOffsetBytes && this.#lengthBytes === lengthBytes) return this.#isHeld;
    this.#startBytes = torrentOffsetBytes;
    this.#lengthBytes = lengthBytes;
    this.#isHeld = !this.#cannotTell && this.#look(torrentOffsetBytes, lengthBytes);
    return this.#isHeld;
  }

  /** The next `holds` looks again: pages come and go. */
  forget(): void {
    this.#startBytes = -1;
  }

  /** Adds a range that is held to what is sent: at most SEGMENTS_MAX parts. */
  addTo(list: SendList, torrentOffsetBytes: number, lengthBytes: number): void {
    const segments = this.segments;
    for (let done = 0; done < lengthBytes; done += segments.lengthBytes) {
      segments.locate(torrentOffsetBytes + done, lengthBytes - done, 0);
      list.addFile(this.fd, segments.diskOffsetBytes, segments.lengthBytes);
    }
  }

  #look(torrentOffsetBytes: number, lengthBytes: number): boolean {
    const segments = this.segments;
    let count = 0;
    for (let done = 0; done < lengthBytes; done += segments.lengthBytes) {
      if (++count > SEGMENTS_MAX) return false;
      segments.locate(torrentOffsetBytes + done, lengthBytes - done, 0);
      const start = segments.diskOffsetBytes;
      const end = start + segments.lengthBytes;
      const pages = Math.ceil(end / PAGE_BYTES) - Math.floor(start / PAGE_BYTES);
      const cached = cachedPages(this.fd, start, segments.lengthBytes);
      this.#cannotTell = cached < 0;
      if (cached !== pages) return false;
    }
    return true;
  }
}
