/**
 * How a seeder spreads an image nobody has yet: it suggests (BEP 6) to each peer pieces that no other has.
 *
 * Without it several peers take the same piece from the seeder, whose line is the bottleneck of a swarm's start.
 * It is an order and no gate: a peer may fetch anything else. Invariant: a piece counts each peer that has it, and
 * each peer that does not have it yet but it was suggested to or that has asked us for it.
 */
import { SUGGESTIONS_AHEAD } from "./policy.ts";
import type { Random } from "./random.ts";
import { RarityOrder } from "./rarity.ts";
import type { Session } from "./session.ts";

/** Pieces counted as on their way to one peer; one that takes without ever having is not counted further. */
const GIVEN_MAX = 64;

/** How far a piece is that a peer does not have yet. */
export const enum Given {
  suggested,
  requested,
  served,
}

export class Dispersal {
  private readonly order: RarityOrder;

  constructor(
    private readonly pieceCount: number,
    sessionsMax: number,
    random: Random,
  ) {
    this.order = new RarityOrder(pieceCount, sessionsMax, random);
  }

  /** Pieces that nobody we know has or is fetching from us. */
  get unseenCount(): number {
    return this.order.startOf(1);
  }

  remoteHasSet(session: Session): void {
    for (let piece = 0; piece < this.pieceCount; piece++)
      if (session.remoteHave.has(piece)) this.order.increment(piece);
  }

  remoteHas(session: Session, piece: number): void {
    // What was given to it is counted already.
    if (session.slot.given?.delete(piece)) return;
    this.order.increment(piece);
  }

  /** The peer asked us for a block of the piece. */
  requested(session: Session, piece: number): void {
    if (session.remoteHave.has(piece)) return;
    session.slot.given ??= new Map();
    const given = session.slot.given;
    const stage = given.get(piece);
    if (stage === undefined) this.give(given, piece, Given.requested);
    else if (stage === Given.suggested) given.set(piece, Given.requested);
    if (!session.isOurs) this.suggestAhead(session);
  }

  /** A block of the piece begins to be sent. */
  served(session: Session, piece: number): void {
    if (session.slot.given?.has(piece)) session.slot.given.set(piece, Given.served);
  }

  /** The peer is choked, or it gave its grants back: what it did not ask for is for others. */
  takeBack(session: Session): void {
    const given = session.slot.given;
    if (given === null) return;
    for (const [piece, stage] of given) {
      // A choke drops what another client asked for; what one of ours has begun goes on.
      if (stage === Given.served || (session.isOurs && stage === Given.requested)) continue;
      given.delete(piece);
      this.order.decrement(piece);
    }
  }

  gone(session: Session): void {
    for (let piece = 0; piece < this.pieceCount; piece++) {
      if (session.remoteHave.has(piece) || session.slot.given?.has(piece)) this.order.decrement(piece);
    }
    session.slot.given = null;
  }

  /** A piece that nobody has goes with a grant. */
  suggestOne(session: Session): void {
    session.slot.given ??= new Map();
    this.suggest(session, session.slot.given);
  }

  /** Keeps a few suggestions ahead of another client that we serve: it may ask for more than one piece. */
  suggestAhead(session: Session): void {
    if (!session.isOpen || session.amChoking) return;
    session.slot.given ??= new Map();
    const given = session.slot.given;
    let ahead = 0;
    for (const stage of given.values()) if (stage === Given.suggested) ahead++;
    while (ahead++ < SUGGESTIONS_AHEAD) if (!this.suggest(session, given)) return;
  }

  private suggest(session: Session, given: Map<number, Given>): boolean {
    if (!session.fast || this.unseenCount === 0 || given.size >= GIVEN_MAX) return false;
    const piece = this.order.at(0);
    if (!session.writeSuggest(piece)) return false;
    this.give(given, piece, Given.suggested);
    return true;
  }

  private give(given: Map<number, Given>, piece: number, stage: Given): void {
    if (given.size >= GIVEN_MAX) return;
    given.set(piece, stage);
    this.order.increment(piece);
  }
}
