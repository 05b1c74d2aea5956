/**
 * In which order queued requests are served: a few sessions at a time have the turn, each for one piece.
 *
 * A piece can be passed on only when it is whole. A line shared evenly by ten peers finishes ten pieces late; given to
 * one after the other, the first is finished ten times sooner and is being copied meanwhile. A session whose turn
 * stalls, because its own line or the way there is the bottleneck, keeps it, and another one gets a turn beside it.
 *
 * Invariant: `hasTurn` is set only by `fill`; a session without it reports no uploads to the host.
 */
import type { Line } from "./line.ts";
import { NEED_MARGIN_PIECES, STALL_FACTOR, STALL_MS_MIN, TURNS } from "./policy.ts";
import type { Session } from "./session.ts";

/** The line's rate is taken to be at least this, 10 Mbit/s, while nothing is known of it. */
const LINE_BYTES_PER_MS_MIN = 1250;

export interface TurnsHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
  /** Our line, outwards. */
  readonly sending: Line;
}

export class Turns {
  /** Bytes of all sessions that are begun and not yet sent, when `fill` last looked. */
  private sendingBytes = 0;
  /** Counts blocks begun, so that the session served longest ago is known. */
  private order = 0;

  constructor(private readonly host: TurnsHost) {}

  /** A request was queued. */
  queued(session: Session): void {
    if (!session.slot.hasTurn) this.fill();
  }

  /** A block begins to be sent. Its turn ends with the piece: what follows is another's. */
  started(session: Session, piece: number): void {
    const slot = session.slot;
    slot.turnPiece = piece;
    slot.lastServed = ++this.order;
    if (session.queuedCount > 0 && session.uploadPiece(0) !== piece) slot.hasTurn = false;
  }

  /** Payload was sent; `sendingBytes` of the session is up to date. */
  sent(session: Session): void {
    if (session.slot.sendingBytes === 0) this.fill();
  }

  /** Gives turns that are free. */
  fill(): void {
    this.sendingBytes = 0;
    for (const session of this.host.sessions) this.sendingBytes += session.slot.sendingBytes;
    let taken = 0;
    for (const session of this.host.sessions) {
      const slot = session.slot;
      if (!slot.hasTurn) continue;
      if (!session.isOpen || (slot.sendingBytes === 0 && session.queuedCount === 0)) slot.hasTurn = false;
      else if (!this.isStalled(session)) taken++;
    }
    for (; taken < TURNS; taken++) {
      const next = this.next();
      if (next === null) return;
      next.slot.hasTurn = true;
      next.wake();
    }
  }

  /** What was begun for it takes far longer than our line needs for all that is being sent. */
  isStalled(session: Session): boolean {
    const { sendingBytes, lastUploadMs } = session.slot;
    if (sendingBytes === 0) return false;
    const neededMs = this.sendingBytes / Math.max(this.host.sending.bytesPerMs, LINE_BYTES_PER_MS_MIN);
    return this.host.nowMs - lastUploadMs > STALL_MS_MIN + STALL_FACTOR * neededMs;
  }

  private next(): Session | null {
    let best: Session | null = null;
    for (const session of this.host.sessions) {
      if (session.slot.hasTurn || session.queuedCount === 0 || session.slot.sendingBytes > 0) continue;
      if (best === null || goesBefore(session, best)) best = session;
    }
    return best;
  }
}

/** A piece that was begun is finished first; then those that are behind; then the one served longest ago. */
function goesBefore(a: Session, b: Session): boolean {
  const begunA = isBegun(a);
  if (begunA !== isBegun(b)) return begunA;
  const ahead = a.remoteHave.count - b.remoteHave.count;
  if (Math.abs(ahead) > NEED_MARGIN_PIECES) return ahead < 0;
  return a.slot.lastServed < b.slot.lastServed;
}

function isBegun(session: Session): boolean {
  return session.uploadPiece(0) === session.slot.turnPiece && session.uploadBegin(0) > 0;
}
