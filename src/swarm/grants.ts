/**
 * Among our own kind: who may begin a piece with us, one piece at a time.
 *
 * A peer of our own kind is interested exactly while it would begin a piece with us at once. Whenever our line has
 * room for another piece, the one in line gets a grant: an unchoke, which may be repeated. So a piece is asked for
 * where it is served next, it does not wait in one queue while another line idles, and nobody of ours is ever choked.
 *
 * Invariant: a slot's `granted` counts grants not used yet, its `dueBytes` what is left to send of the pieces begun.
 */
import type { Dispersal } from "./dispersal.ts";
import type { Line } from "./line.ts";
import {
  GRANT_AHEAD_MS,
  GRANT_BYTES_MIN,
  GRANT_PIECES,
  GRANT_UNUSED_MS,
  GRANTS_FAR,
  NEAR_PEERS_MIN,
} from "./policy.ts";
import type { Random } from "./random.ts";
import type { Session } from "./session.ts";
import type { Turns } from "./turns.ts";

export interface GrantsHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
  /** Our line, outwards. */
  readonly sending: Line;
}

export class Grants {
  /** Counts grants, so that the one granted longest ago is known. */
  private turn = 0;

  constructor(
    private readonly pieceBytes: number,
    private readonly host: GrantsHost,
    private readonly dispersal: Dispersal | null,
    private readonly turns: Turns,
    private readonly random: Random,
  ) {}

  interestChanged(session: Session): void {
    if (!session.peerInterested) {
      // Most had nothing, and leave as much room as before.
      if (session.slot.granted === 0) return;
      // What it was granted and did not use it gave back with this.
      session.slot.granted = 0;
      this.dispersal?.takeBack(session);
    }
    this.fill();
  }

  /** A request of `piece` was queued; the piece is `lengthBytes` long. */
  requested(session: Session, piece: number, lengthBytes: number): void {
    const slot = session.slot;
    if (piece === slot.grantedPiece) return;
    slot.grantedPiece = piece;
    slot.sinceMs = this.host.nowMs;
    slot.dueBytes += lengthBytes;
    if (slot.granted > 0) slot.granted--;
  }

  /** Payload was sent; `sendingBytes` of the session is up to date. */
  sent(session: Session, lengthBytes: number): void {
    session.slot.dueBytes = Math.max(0, session.slot.dueBytes - lengthBytes);
    if (session.slot.sendingBytes === 0) this.fill();
  }

  /** Grants as much as our line has room for. */
  fill(): void {
    const roomBytes = Math.max(
      GRANT_PIECES * this.pieceBytes,
      GRANT_BYTES_MIN,
      this.host.sending.bytesPerMs * GRANT_AHEAD_MS,
    );
    let usedBytes = 0;
    for (const session of this.host.sessions) {
      if (!session.isOpen || !session.isOurs) continue;
      const slot = session.slot;
      // Pieces that were given up half-way are not due any more.
      if (session.queuedCount === 0 && slot.sendingBytes === 0) slot.dueBytes = 0;
      if (!this.isUnused(session)) usedBytes += slot.granted * this.pieceBytes;
      if (!this.turns.isStalled(session)) usedBytes += slot.dueBytes;
    }
    for (; usedBytes + this.pieceBytes <= roomBytes; usedBytes += this.pieceBytes) {
      const next = this.next();
      if (next === null) return;
      next.slot.lastHeld = ++this.turn;
      next.slot.granted++;
      next.slot.sinceMs = this.host.nowMs;
      this.dispersal?.suggestOne(next);
      next.grant();
    }
  }

  /**
   * Where enough peers of our own network are to be served, few pieces at a time go out of it: each network needs
   * every piece once, and more would fill what connects it, and the places of those who wait for them.
   */
  private hasFarEnough(): boolean {
    let far = 0;
    let near = 0;
    for (const session of this.host.sessions) {
      if (!session.isOpen || !session.isOurs) continue;
      if (!session.isNear && isBusy(session)) far++;
      else if (session.isNear && !session.isSeed) near++;
    }
    return near >= NEAR_PEERS_MIN && far >= GRANTS_FAR;
  }

  /** It was granted a piece long ago and did not begin it. */
  private isUnused(session: Session): boolean {
    return session.slot.granted > 0 && this.host.nowMs - session.slot.sinceMs > GRANT_UNUSED_MS;
  }

  private next(): Session | null {
    const nearOnly = this.hasFarEnough();
    let best: Session | null = null;
    let ties = 0;
    for (const session of this.host.sessions) {
      if (nearOnly && !session.isNear) continue;
      if (!session.isOpen || !session.isOurs || !session.peerInterested || this.isUnused(session)) continue;
      const order = best === null ? -1 : compare(session, best);
      if (order < 0) ties = 1;
      else if (order > 0 || this.random.below(++ties) !== 0) continue;
      best = session;
    }
    return best;
  }
}

/**
 * Below 0 where `a` goes first: those we do nothing for, of them those of our network, then the one with the fewest
 * pieces, else the one granted longest ago. Equal are those never granted any: if all nodes took the first in their
 * lists, at the start the same few would be served by everybody.
 */
function compare(a: Session, b: Session): number {
  const busyA = isBusy(a);
  if (busyA !== isBusy(b)) return busyA ? 1 : -1;
  if (a.isNear !== b.isNear) return a.isNear ? -1 : 1;
  if (!busyA && a.remoteHave.count !== b.remoteHave.count) return a.remoteHave.count - b.remoteHave.count;
  return a.slot.lastHeld - b.slot.lastHeld;
}

function isBusy(session: Session): boolean {
  return session.slot.granted > 0 || session.slot.dueBytes > 0;
}
