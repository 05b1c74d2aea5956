/**
 * How fast our line is, one way, and what it carries in a moment.
 *
 * The words of a connection (have, interest, grant, request) wait behind the payload of the same connection. So payload
 * is asked for, handed over and left with the kernel in *slices* of a few milliseconds of the line, whatever its rate:
 * on a line of 100 Mbit/s long blocks made words wait a quarter of a second, on one of 10 Gbit/s short ones only cost
 * the processor's time (decision 0026).
 */
import { MiB } from "../units.ts";
import { LINE_FORGOTTEN, LINE_MEASURED_BYTES, LINE_MEASURED_MS, SLICE_MS, UNIT_BYTES } from "./policy.ts";

/** Where nothing is known the line is taken to be slow: a fast one is measured within 20 ms. */
export const SLICE_BYTES_MIN = UNIT_BYTES;
export const SLICE_BYTES_MAX = 1 * MiB;

export class Line {
  /** What it carries when it is busy, as far as was seen; 0: nothing was measured. */
  bytesPerMs = 0;
  /** A power of two, from SLICE_BYTES_MIN to SLICE_BYTES_MAX. */
  sliceBytes: number = SLICE_BYTES_MIN;
  private measuredBytes = 0;
  private measuredSinceMs = 0;

  /** Payload crossed it. */
  carried(nowMs: number, lengthBytes: number): void {
    this.measuredBytes += lengthBytes;
    const intervalMs = nowMs - this.measuredSinceMs;
    if (intervalMs < LINE_MEASURED_MS || this.measuredBytes < LINE_MEASURED_BYTES) return;
    const rate = this.measuredBytes / intervalMs;
    this.bytesPerMs = Math.max(rate, this.bytesPerMs + (rate - this.bytesPerMs) * LINE_FORGOTTEN);
    this.measuredBytes = 0;
    this.measuredSinceMs = nowMs;
    this.sliceBytes = sliceOf(this.bytesPerMs);
  }
}

/** The largest power of two that the line carries in SLICE_MS. */
function sliceOf(bytesPerMs: number): number {
  const bytes = Math.max(SLICE_BYTES_MIN, Math.min(bytesPerMs * SLICE_MS, SLICE_BYTES_MAX));
  return 2 ** Math.floor(Math.log2(bytes));
}
