/**
 * Whom to call: keeps the places for calls filled, with peers of our own network first.
 *
 * Whoever gets most pieces from its own rack leaves the uplinks to what has to pass them. Where we are shows only when
 * the first peer tells us our address (`yourip`), so at the start a few are called at random; the other places are kept
 * for near peers until they had the time to become known, by the tracker's answer and by the first peers' exchange.
 */
import type { SwarmActions } from "./actions.ts";
import { networkOf } from "./networks.ts";
import type { Peers } from "./peers.ts";
import { DIALS_FAR_FIRST, NEAR_FIRST_MS } from "./policy.ts";
import type { Session } from "./session.ts";

export interface DiallingHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
}

export class Dialling {
  /** We got everything in this swarm: whoever lacks something calls us, and calling all others only finds the complete. */
  private waitsForCalls = false;
  /** Networks of this machine, as peers see it. */
  private readonly own = new Set<string>();
  /** When the first address became known; -1: none is. */
  private startedMs = -1;

  constructor(
    private readonly dialMax: number,
    private readonly peers: Peers,
    private readonly actions: SwarmActions,
    private readonly host: DiallingHost,
  ) {}

  /** A peer told us under which address it sees us. */
  learnOwn(host: string): void {
    const network = networkOf(host);
    if (network !== null) this.own.add(network);
  }

  /** From now on nobody is called. */
  end(): void {
    this.waitsForCalls = true;
  }

  /** Calls as many as there are places for. Seeds only where they are of use. */
  fill(seedsToo: boolean): void {
    if (this.waitsForCalls) return;
    if (this.startedMs < 0 && this.peers.size > 0) this.startedMs = this.host.nowMs;
    let outgoing = this.peers.dialling;
    for (const session of this.host.sessions) if (session.outgoing) outgoing++;
    while (outgoing < this.dialMax) {
      const isNear = (network: string | null): boolean => network !== null && this.own.has(network);
      const mayBeFar = outgoing < DIALS_FAR_FIRST || this.host.nowMs - this.startedMs >= NEAR_FIRST_MS;
      const address = this.peers.choose(this.host.nowMs, seedsToo, isNear, mayBeFar);
      if (address === null) return;
      this.peers.dialStarted(address);
      this.actions.dial(address);
      outgoing++;
    }
  }
}
