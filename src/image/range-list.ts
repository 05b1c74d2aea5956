/**
 * A growing list of ranges [offset, offset + length) in two typed arrays: a fragmented disk has hundreds of
 * thousands of them, which as objects would cost more memory than the image's hashes.
 *
 * The list owns its arrays; `table` hands out views that are valid until the next `push`.
 */
import type { RangeTable } from "../torrent/types.ts";

export class RangeList {
  #offsets = new Float64Array(64);
  #lengths = new Float64Array(64);
  #count = 0;
  #totalBytes = 0;

  /** A list of the same ranges, with arrays of its own. */
  static from(table: RangeTable): RangeList {
    const list = new RangeList();
    for (let i = 0; i < table.count; i++) list.push(table.diskOffsetBytes[i], table.lengthBytes[i]);
    return list;
  }

  get count(): number {
    return this.#count;
  }

  /** Sum of all lengths. */
  get totalBytes(): number {
    return this.#totalBytes;
  }

  offsetAt(index: number): number {
    return this.#offsets[index];
  }

  lengthAt(index: number): number {
    return this.#lengths[index];
  }

  push(offsetBytes: number, lengthBytes: number): void {
    if (this.#count === this.#offsets.length) this.#grow();
    this.#offsets[this.#count] = offsetBytes;
    this.#lengths[this.#count] = lengthBytes;
    this.#count++;
    this.#totalBytes += lengthBytes;
  }

  /** Makes the last range longer. */
  extendLast(bytes: number): void {
    this.#lengths[this.#count - 1] += bytes;
    this.#totalBytes += bytes;
  }

  table(): RangeTable {
    return {
      count: this.#count,
      diskOffsetBytes: this.#offsets.subarray(0, this.#count),
      lengthBytes: this.#lengths.subarray(0, this.#count),
    };
  }

  #grow(): void {
    const offsets = new Float64Array(this.#count * 2);
    const lengths = new Float64Array(this.#count * 2);
    offsets.set(this.#offsets);
    lengths.set(this.#lengths);
    this.#offsets = offsets;
    this.#lengths = lengths;
  }
}

/** The same ranges with those joined that are less than `gapBytes` apart. */
export function joined(list: RangeList, gapBytes: number): RangeList {
  const wider = new RangeList();
  let endBytes = 0;
  for (let i = 0; i < list.count; i++) {
    const nextEndBytes = list.offsetAt(i) + list.lengthAt(i);
    if (i > 0 && list.offsetAt(i) - endBytes < gapBytes) wider.extendLast(nextEndBytes - endBytes);
    else wider.push(list.offsetAt(i), list.lengthAt(i));
    endBytes = nextEndBytes;
  }
  return wider;
}

/** What of [0, diskBytes) lies in no range of `list`, whose ranges ascend and do not overlap. */
export function complement(list: RangeList, diskBytes: number): RangeList {
  const rest = new RangeList();
  let position = 0;
  for (let i = 0; i < list.count; i++) {
    if (list.offsetAt(i) > position) rest.push(position, list.offsetAt(i) - position);
    position = list.offsetAt(i) + list.lengthAt(i);
  }
  if (diskBytes > position) rest.push(position, diskBytes - position);
  return rest;
}

/** What lies in both lists; each ascends without overlap. */
export function intersection(a: RangeList, b: RangeList): RangeList {
  const both = new RangeList();
  for (let i = 0, j = 0; i < a.count && j < b.count; ) {
    const start = Math.max(a.offsetAt(i), b.offsetAt(j));
    const aEnd = a.offsetAt(i) + a.lengthAt(i);
    const bEnd = b.offsetAt(j) + b.lengthAt(j);
    const end = Math.min(aEnd, bEnd);
    if (end > start) both.push(start, end - start);
    if (aEnd < bEnd) i++;
    else j++;
  }
  return both;
}
