/**
 * What a peer tells the main thread: figures about once a second, and what happened to whom.
 */
import { errnoText } from "../kernel/libc.ts";
import type { SwarmReport } from "../swarm/actions.ts";
import { formatAddress } from "../wire/address.ts";
import type { PeerEvent, PeerStats } from "./api.ts";
import type { WorkerReport } from "./worker-messages.ts";

/** Often enough for a progress line to move, rare enough to cost nothing. */
const PROGRESS_MS = 500;

export class Reporter {
  /** Hosts banned for wrong data, in order. */
  readonly banned: string[] = [];
  #nextProgressMs = 0;
  #phase: PeerStats["phase"] | null = null;

  constructor(readonly post: (report: WorkerReport) => void) {}

  log(level: "debug" | "info" | "warning", code: string, message: string): void {
    this.post({ type: "log", level, code, message } satisfies PeerEvent);
  }

  /** Posts figures when they are due or the phase has changed. */
  progress(nowMs: number, stats: () => PeerStats): void {
    if (nowMs < this.#nextProgressMs) return;
    this.#nextProgressMs = nowMs + PROGRESS_MS;
    // The heap of this thread is so small that the collector would let garbage outgrow it many times over; 1 ms each.
    Bun.gc(false);
    this.post({ type: "progress", stats: stats() });
  }

  /** The next call of `progress` posts when this phase is new. */
  phase(phase: PeerStats["phase"]): void {
    if (phase !== this.#phase) this.#nextProgressMs = 0;
    this.#phase = phase;
  }

  acceptFailed(errno: number): void {
    this.log("warning", "accept-failed", `cannot accept a peer: ${errnoText(errno)}; trying again`);
  }

  swarm(event: SwarmReport): void {
    switch (event.kind) {
      case "peer-connected":
        this.log("debug", event.kind, `${formatAddress(event.address)} connected (${event.client})`);
        break;
      case "peer-dropped":
        this.#dropped(
          formatAddress(event.address),
          event.reason?.kind ?? null,
          event.reason?.text ?? "closed by the peer",
        );
        break;
      case "banned":
        this.banned.push(formatAddress(event.address));
        this.log(
          "warning",
          "peer-banned",
          `peer ${formatAddress(event.address)} sent wrong data for piece ${event.piece}: banned`,
        );
        break;
      case "piece-failed":
        this.log(
          "warning",
          event.kind,
          `piece ${event.piece} did not match its hash (${sources(event.sources)}): fetching it again`,
        );
        break;
      case "snubbed":
        this.log("debug", event.kind, `${formatAddress(event.address)} answers no requests: they go to others`);
        break;
      case "complete":
        break;
    }
  }

  #dropped(peer: string, kind: string | null, text: string): void {
    const isFault = kind === "fault" || kind === "wrong-torrent";
    this.log(isFault ? "warning" : "debug", "peer-dropped", `peer ${peer} dropped: ${text}`);
  }
}

function sources(count: number): string {
  return count === 1 ? "1 source" : `${count} sources`;
}
