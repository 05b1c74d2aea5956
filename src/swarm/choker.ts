/**
 * Who is served: the upload slots.
 *
 * Everyone interested is served while there are slots. When there are more, a slot is kept for a whole piece and
 * then goes to the one in line with the fewest pieces, among equals to the one served longest ago. Slots move with
 * events (interest, a piece served, a peer gone), not with a timer: a small image is over in less than a second.
 *
 * Invariant: at most `slots` open sessions are unchoked.
 */
import { SLOT_IDLE_MS, SLOT_MS_MAX, SLOT_MS_MIN_FOREIGN } from "./policy.ts";
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
  ) {}

  interestChanged(session: Session): void {
    if (!session.peerInterested && !session.amChoking && this.mayEnd(session)) session.choke();
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
    if (session.slot.slotBytes < this.pieceBytes || !session.isOpen || session.amChoking) return;
    if (session.uploadCount > 0 && session.uploadPiece(0) === session.slot.lastPiece) return;
    this.passOn(session);
  }

  /** Slots of peers that ask for nothing, or are too slow for a piece in the time of one. */
  tick(): void {
    const now = this.host.nowMs;
    for (const session of this.host.sessions) {
      if (session.amChoking || !session.isOpen) continue;
      const slot = session.slot;
      const idle = session.uploadCount === 0 && slot.sendingBytes === 0 && now - Math.max(slot.lastUploadMs, slot.sinceMs) >= SLOT_IDLE_MS;
      if (!session.peerInterested ? this.mayEnd(session) : false) session.choke();
      else if (idle || now - slot.sinceMs >= SLOT_MS_MAX) this.passOn(session);
    }
    this.fill();
  }

  /** Gives free slots to those in line. */
  fill(): void {
    let free = this.slots;
    for (const session of this.host.sessions) if (session.isOpen && !session.amChoking) free--;
    for (; free > 0; free--) {
      const next = this.next();
      if (next === null) return;
      this.give(next);
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
    session.choke();
    this.give(next);
  }

  private give(session: Session): void {
    session.slot.sinceMs = this.host.nowMs;
    session.slot.lastHeld = ++this.turn;
    session.slot.slotBytes = 0;
    session.slot.lastPiece = -1;
    session.unchoke();
  }

  /** The one in line: interested, choked, with the fewest pieces, served longest ago. */
  private next(): Session | null {
    let best: Session | null = null;
    for (const session of this.host.sessions) {
      if (!session.isOpen || !session.amChoking || !session.peerInterested || !session.canUnchoke) continue;
      if (best === null || goesBefore(session, best)) best = session;
    }
    return best;
  }

  private mayEnd(session: Session): boolean {
    return session.isOurs || this.host.nowMs - session.slot.sinceMs >= SLOT_MS_MIN_FOREIGN;
  }
}

function goesBefore(a: Session, b: Session): boolean {
  if (a.remoteHave.count !== b.remoteHave.count) return a.remoteHave.count < b.remoteHave.count;
  return a.slot.lastHeld < b.slot.lastHeld;
}
