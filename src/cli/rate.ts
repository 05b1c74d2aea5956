/** How fast something grows, over the last seconds: steady enough to be read, quick enough to show a stall. */

/** Long enough to even out the bursts of whole pieces, short enough to see that a node got stuck. */
const WINDOW_MS = 8000;

interface Sample {
  readonly timeMs: number;
  readonly bytes: number;
}

export class RateMeter {
  private samples: Sample[] = [];

  /** Notes the total so far. A total that shrank begins anew (another phase counts something else). */
  add(bytes: number, timeMs: number): void {
    const last = this.samples.at(-1);
    if (last && bytes < last.bytes) this.samples = [];
    this.samples.push({ timeMs, bytes });
    while (this.samples.length > 2 && this.samples[1]!.timeMs <= timeMs - WINDOW_MS) this.samples.shift();
  }

  /** Forgets everything: another thing is counted from now on. */
  reset(): void {
    this.samples = [];
  }

  /** Bytes per second over the window; 0 as long as nothing is known. */
  get bytesPerSecond(): number {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (!first || !last || last.timeMs <= first.timeMs) return 0;
    return Math.round(((last.bytes - first.bytes) * 1000) / (last.timeMs - first.timeMs));
  }

  /** Seconds until `bytesLeft` more are there, or null where nothing moves. */
  etaSeconds(bytesLeft: number): number | null {
    if (bytesLeft === 0) return 0;
    const rate = this.bytesPerSecond;
    return rate > 0 ? Math.ceil(bytesLeft / rate) : null;
  }
}
