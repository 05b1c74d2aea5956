/**
 * How a seeder spreads an image nobody has yet: it suggests (BEP 6) to each peer pieces that no other has.
 *
 * Without it several peers take the same piece from the seeder, whose line is the bottleneck of a swarm's start.
 * It is an order and no gate: a peer may fetch anything else. Invariant: a piece counts each peer that has it and
 * each peer it was suggested to and that does not have it yet.
 */
import { SUGGESTIONS_AHEAD } from "./policy.ts";
import type { Random } from "./random.ts";
import { RarityOrder } from "./rarity.ts";
import type { Session } from "./session.ts";

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
    for (let piece = 0; piece < this.pieceCount; piece++) if (session.remoteHave.has(piece)) this.order.increment(piece);
  }

  remoteHas(session: Session, piece: number): void {
    // A suggestion that was followed is counted already.
    if (session.slot.suggested?.delete(piece)) return;
    this.order.increment(piece);
  }

  gone(session: Session): void {
    for (let piece = 0; piece < this.pieceCount; piece++) {
      if (session.remoteHave.has(piece) || session.slot.suggested?.has(piece)) this.order.decrement(piece);
    }
    session.slot.suggested = null;
  }

  /** Keeps a few suggestions ahead of a peer that we serve, while there are pieces nobody has. */
  suggest(session: Session): void {
    if (!session.isOpen || !session.fast || session.amChoking) return;
    const suggested = (session.slot.suggested ??= new Set());
    while (suggested.size < SUGGESTIONS_AHEAD && this.unseenCount > 0) {
      const piece = this.order.at(0);
      if (!session.writeSuggest(piece)) return;
      suggested.add(piece);
      this.order.increment(piece);
    }
  }
}
