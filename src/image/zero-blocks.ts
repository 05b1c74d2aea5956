/**
 * Finds which blocks of read data are zero. Native comparison (memcmp(3)) against a block of zeros that
 * never changes; a block whose first word is not zero, which is most data, is not even compared.
 */
import { CLASSIFY_BLOCK_BYTES } from "./classify.ts";

const COMPARE_BYTES = 1 << 20;
const ZEROS = Buffer.alloc(COMPARE_BYTES);

export interface RunSink {
  data(lengthBytes: number): void;
  zero(lengthBytes: number): void;
}

/**
 * Looks at mapped memory block by block. Made once per mapping: the views cost more than a comparison.
 * It does not own the memory.
 */
export class ZeroScanner {
  readonly #bytes: Buffer;
  readonly #words: Int32Array;

  constructor(memory: Uint8Array) {
    this.#bytes = Buffer.from(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#words = new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength >> 2);
  }

  /** True when `lengthBytes` from `start` are all zero. */
  isZero(start: number, lengthBytes: number): boolean {
    for (let done = 0; done < lengthBytes; done += COMPARE_BYTES) {
      const length = Math.min(COMPARE_BYTES, lengthBytes - done);
      if (this.#bytes.compare(ZEROS, 0, length, start + done, start + done + length) !== 0) return false;
    }
    return true;
  }

  /**
   * Tells `sink` the runs of data and of zeros in [start, start + lengthBytes), in whole blocks but for the
   * last. `start` is a multiple of 4.
   */
  runs(start: number, lengthBytes: number, sink: RunSink): void {
    let runStart = 0;
    let runIsZero = false;
    for (let offset = 0; offset < lengthBytes; offset += CLASSIFY_BLOCK_BYTES) {
      const blockBytes = Math.min(CLASSIFY_BLOCK_BYTES, lengthBytes - offset);
      const zero = this.#blockIsZero(start + offset, blockBytes);
      if (zero === runIsZero) continue;
      if (offset > runStart) tell(sink, runIsZero, offset - runStart);
      runStart = offset;
      runIsZero = zero;
    }
    if (lengthBytes > runStart) tell(sink, runIsZero, lengthBytes - runStart);
  }

  #blockIsZero(start: number, blockBytes: number): boolean {
    if (blockBytes >= 4 && this.#words[start >> 2] !== 0) return false;
    return this.#bytes.compare(ZEROS, 0, blockBytes, start, start + blockBytes) === 0;
  }
}

function tell(sink: RunSink, isZero: boolean, lengthBytes: number): void {
  if (isZero) sink.zero(lengthBytes);
  else sink.data(lengthBytes);
}
