/**
 * Which other clients are served: the upload slots. Peers of our own kind get grants instead (`grants.ts`).
 *
 * A slot is used by a peer that has requests with us. While slots are free, some more peers are unchoked (offers),
 * so that the line never idles because the ones served want nothing just now. When there are more than that, a slot
 * is kept for whole pieces and then goes to the one in line with the fewest pieces, among equals to the one served
 * longest ago. Slots move with events (interest, a piece served, a peer gone), not with a timer alone: a small image
 * is over in less than a second.
 *
 * Invariant: at most `slots` + OFFERS open sessions of other clients are unchoked.
 */
import type { Dispersal } from "./dispersal.ts";
import { OFFERS, SLOT_BYTES_MIN, SLOT_IDLE_MS, SLOT_MS_MAX, SLOT_MS_MIN_FOREIGN } from "./policy.ts";
import type { Session } from "./session.ts";

export interface ChokerHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
}

export class Choker {
  /** Counts slots given, so that the one served longest ago is known. */
  private turn = 0;

  constructor(
    private readonly slots: number,
    private readonly pieceBytes: number,
    private readonly host: ChokerHost,
    private readonly dispersal: Dispersal | null,
  ) {}

  interestChanged(session: Session): void {
    if (!session.peerInterested && !session.amChoking && this.mayEnd(session)) this.end(session);
    this.fill();
  }

  /** A block of the session's slot begins to be sent; `piece` is where it lies. */
  blockStarted(session: Session, piece: number, lengthBytes: number): void {
    const slot = session.slot;
    slot.slotBytes += lengthBytes;
    slot.lastUploadMs = this.host.nowMs;
    slot.lastPiece = piece;
  }

  /** Everything begun for the session is sent: at the end of a piece its slot may move on. */
  blocksSent(session: Session): void {
    session.slot.lastUploadMs = this.host.nowMs;
    if (session.slot.slotBytes < Math.max(this.pieceBytes, SLOT_BYTES_MIN) || !session.isOpen || session.amChoking)
      return;
    if (session.queuedCount > 0 && session.uploadPiece(0) === session.slot.lastPiece) return;
    this.passOn(session);
    this.fill();
  }

  /** Slots of peers that ask for nothing, or are too slow for a piece in the time of one. */
  tick(): void {
    const now = this.host.nowMs;
    for (const session of this.host.sessions) {
      if (session.amChoking || !session.isOpen || session.isOurs) continue;
      const slot = session.slot;
      const idle =
        session.queuedCount === 0 &&
        slot.sendingBytes === 0 &&
        now - Math.max(slot.lastUploadMs, slot.sinceMs) >= SLOT_IDLE_MS;
      if (!session.peerInterested ? this.mayEnd(session) : false) this.end(session);
      else if (idle || now - slot.sinceMs >= SLOT_MS_MAX) this.passOn(session);
    }
    this.fill();
  }

  /** Gives free slots to those in line, and offers more as long as the slots are not really used. */
  fill(): void {
    let active = 0;
    let idle = 0;
    for (const session of this.host.sessions) {
      if (!session.isOpen || session.amChoking || session.isOurs) continue;
      if (isActive(session)) active++;
      else idle++;
    }
    while (active < this.slots && active + idle < this.slots + OFFERS) {
      const next = this.next();
      if (next === null) return;
      this.give(next);
      idle++;
    }
  }

  private passOn(session: Session): void {
    if (!this.mayEnd(session)) return;
    const next = this.next();
    if (next === null) {
      // Nobody waits: another piece.
      session.slot.slotBytes = 0;
      session.slot.sinceMs = this.host.nowMs;
      return;
    }
    this.end(session);
    this.give(next);
  }

  private end(session: Session): void {
    session.choke();
    this.dispersal?.takeBack(session);
  }

  private give(session: Session): void {
    session.slot.sinceMs = this.host.nowMs;
    session.slot.lastHeld = ++this.turn;
    session.slot.slotBytes = 0;
    session.slot.lastPiece = -1;
    session.unchoke();
    this.dispersal?.suggestAhead(session);
  }

  /** The one in line: interested, choked, with the fewest pieces, served longest ago. */
  private next(): Session | null {
    let best: Session | null = null;
    for (const session of this.host.sessions) {
      if (!session.isOpen || session.isOurs || !session.amChoking) continue;
      if (!session.peerInterested || !session.canUnchoke) continue;
      if (best === null || goesBefore(session, best)) best = session;
    }
    return best;
  }

  private mayEnd(session: Session): boolean {
    return this.host.nowMs - session.slot.sinceMs >= SLOT_MS_MIN_FOREIGN;
  }
}

function isActive(session: Session): boolean {
  return session.queuedCount > 0 || session.slot.sendingBytes > 0;
}

function goesBefore(a: Session, b: Session): boolean {
  if (a.remoteHave.count !== b.remoteHave.count) return a.remoteHave.count < b.remoteHave.count;
  return a.slot.lastHeld < b.slot.lastHeld;
}
