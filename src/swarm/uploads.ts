/**
 * The way out of a swarm: who may ask us (grants among our own kind, slots for others), what a seeder suggests, and
 * in which order the requests are served.
 */
import { Choker } from "./choker.ts";
import { Dispersal } from "./dispersal.ts";
import { Grants } from "./grants.ts";
import type { Line } from "./line.ts";
import type { SwarmOptions } from "./policy.ts";
import type { Session } from "./session.ts";
import { Turns } from "./turns.ts";

export interface UploadsHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
  /** Our line, outwards. */
  readonly sending: Line;
}

export class Uploads {
  private readonly dispersal: Dispersal | null;
  private readonly turns: Turns;
  private readonly grants: Grants;
  private readonly choker: Choker;

  constructor(options: SwarmOptions, host: UploadsHost, isSeeder: boolean, sessionsMax: number) {
    this.dispersal = isSeeder ? new Dispersal(options.pieceCount, sessionsMax, options.random) : null;
    this.turns = new Turns(host);
    this.grants = new Grants(options.pieceBytes, host, this.dispersal, this.turns, options.random);
    this.choker = new Choker(options.uploadSlots, options.pieceBytes, host, this.dispersal);
  }

  remoteHas(session: Session, piece: number): void {
    this.dispersal?.remoteHas(session, piece);
  }

  remoteHasSet(session: Session): void {
    this.dispersal?.remoteHasSet(session);
  }

  interestChanged(session: Session): void {
    if (session.isOurs) return this.grants.interestChanged(session);
    this.choker.interestChanged(session);
    this.turns.fill();
  }

  /** The peer asked us for a block of the piece, which is `pieceBytes` long. */
  queued(session: Session, piece: number, pieceBytes: number): void {
    this.dispersal?.requested(session, piece);
    if (session.isOurs) this.grants.requested(session, piece, pieceBytes);
    this.turns.queued(session);
  }

  /** A block begins to be sent. */
  started(session: Session, piece: number, lengthBytes: number): void {
    session.slot.sendingBytes += lengthBytes;
    this.turns.started(session, piece);
    this.choker.blockStarted(session, piece, lengthBytes);
    this.dispersal?.served(session, piece);
  }

  /** Payload of a block that was begun is sent. */
  sent(session: Session, lengthBytes: number): void {
    const slot = session.slot;
    slot.sendingBytes -= lengthBytes;
    session.uploadedBytes += lengthBytes;
    if (slot.sendingBytes === 0 && !session.isOurs) this.choker.blocksSent(session);
    this.turns.sent(session);
    this.grants.sent(session, lengthBytes);
  }

  /** The session is over; it is still among the sessions. */
  gone(session: Session): void {
    this.dispersal?.gone(session);
  }

  /** What gone sessions held is given to others. */
  fill(): void {
    this.choker.fill();
    this.grants.fill();
    this.turns.fill();
  }

  tick(): void {
    this.choker.tick();
    this.grants.fill();
    this.turns.fill();
  }
}
