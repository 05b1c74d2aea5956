/** A peer's figures as progress: how fast, how long still. */
import type { PeerStats } from "../peer/api.ts";
import type { Output } from "./output.ts";
import { RateMeter } from "./rate.ts";

export class PeerProgress {
  private readonly meter = new RateMeter();
  private phase: PeerStats["phase"] | null = null;

  constructor(
    private readonly output: Output,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Shows the state of a deployment. Each phase counts its own bytes. */
  show(stats: PeerStats): void {
    if (stats.phase === "serve") return this.showServing(stats);
    this.noteTotal(stats.phase, stats.phase === "fetch" ? stats.bytesFetched : stats.bytesDone);
    const { phase, bytesDone, bytesTotal, peers } = stats;
    const rateBytesPerSecond = this.meter.bytesPerSecond;
    const etaSeconds = phase === "metadata" ? null : this.meter.etaSeconds(Math.max(0, bytesTotal - bytesDone));
    const { bytesReceived } = stats;
    this.output.progress({ bytesDone, bytesTotal, rateBytesPerSecond, etaSeconds, peers, phase, bytesReceived });
  }

  /** Shows a seed, or a finished node: what it sends. A log gets a line only when something changed. */
  showServing({ bytesTotal, bytesUploaded, bytesSent, peers }: PeerStats): void {
    this.noteTotal("serve", bytesUploaded);
    const rateBytesPerSecond = this.meter.bytesPerSecond;
    this.output.serving({ bytesTotal, bytesUploaded, bytesSent, rateBytesPerSecond, peers });
  }

  private noteTotal(phase: PeerStats["phase"], bytes: number): void {
    if (phase !== this.phase) this.meter.reset();
    this.phase = phase;
    this.meter.add(bytes, this.now());
  }
}
