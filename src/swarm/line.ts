/**
 * How fast our line is, one way, and what it carries in a moment.
 *
 * The words of a connection (have, interest, grant, request) wait behind the payload of the same connection. So payload
 * is asked for, handed over and left with the kernel in *slices* of a few milliseconds of the line, whatever its rate:
 * on a line of 100 Mbit/s long blocks made words wait a quarter of a second, on one of 10 Gbit/s short ones only cost
 * the processor's time (decision 0026).
 */
import { MiB } from "../units.ts";
import { LINE_FORGOTTEN, LINE_MEASURED_BYTES, LINE_MEASURED_MS, SLICE_MS } from "./policy.ts";

export const SLICE_BYTES_MAX = 1 * MiB;

export class Line {
  /** What it carries when it is busy, as far as was seen; 0: nothing was measured. */
  bytesPerMs = 0;
  /** A power of two, from the least to SLICE_BYTES_MAX. Where nothing is known the line is taken to be slow: a fast one is measured within 20 ms. */
  sliceBytes: number;
  private measuredBytes = 0;
  private measuredSinceMs = 0;

  /** `sliceBytesMin`: a power of two. */
  constructor(private readonly sliceBytesMin: number) {
    this.sliceBytes = sliceBytesMin;
  }

  /** Payload crossed it. */
  carried(nowMs: number, lengthBytes: number): void {
    this.measuredBytes += lengthBytes;
    const intervalMs = nowMs - this.measuredSinceMs;
    if (intervalMs < LINE_MEASURED_MS || this.measuredBytes < LINE_MEASURED_BYTES) return;
    const rate = this.measuredBytes / intervalMs;
    this.bytesPerMs = Math.max(rate, this.bytesPerMs + (rate - this.bytesPerMs) * LINE_FORGOTTEN);
    this.measuredBytes = 0;
    this.measuredSinceMs = nowMs;
    const bytes = Math.max(this.sliceBytesMin, Math.min(this.bytesPerMs * SLICE_MS, SLICE_BYTES_MAX));
    this.sliceBytes = 2 ** Math.floor(Math.log2(bytes));
  }
}
