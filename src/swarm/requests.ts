/**
 * Who is asked for what.
 *
 * One source per piece, asked in order. A piece is begun with the source that has least to do for us, and with one of
 * our own kind only where it granted us one (`grants.ts`); it is told at once whether we would begin one (interest).
 * A lost source's piece goes on with the next. When nothing is left to begin, idle sources help with pieces of
 * others, and at the very end fetch units twice.
 *
 * Invariant: for every session, the units of its outstanding requests are free and counted in the progress of
 * their piece.
 */
import { assert } from "../errors.ts";
import { REQUEST_FRAME_BYTES } from "../wire/frames.ts";
import { pieceIndex } from "../units.ts";
import type { SwarmActions } from "./actions.ts";
import type { Line } from "./line.ts";
import type { Picker } from "./picker.ts";
import {
  ENDGAME_PIECES_MAX,
  ENDGAME_SILENCE_FACTOR,
  ENDGAME_SILENCE_MS_MIN,
  ENDGAME_SLOW_FACTOR,
  PACKED_BLOCK_BYTES,
  PACKED_SHARE_BYTES,
  PACKED_SHARE_MIN,
  REFILL_BELOW,
  type SwarmOptions,
  UNIT_BYTES,
} from "./policy.ts";
import type { PieceProgress } from "./progress.ts";
import type { Session } from "./session.ts";

/** Room for a request, and for the state messages that must not wait behind requests. */
const REQUEST_ROOM_BYTES = REQUEST_FRAME_BYTES + 64;

export interface RequestsHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
  /** Our line, inwards. */
  readonly receiving: Line;
}

export class Requests {
  /** Sessions that wait for memory, oldest first. */
  private readonly starved: Session[] = [];
  private readonly inFlightMax: number;
  /** Set while sources are being refilled because of a change: a refill does not start another round. */
  private refilling = false;
  /** How long a piece takes from its first request to its last block, on average; 0: none was fetched. */
  private pieceMs = 0;
  /** Share of the payload that came packed lately. */
  private packedShare = 0;

  constructor(
    private readonly options: SwarmOptions,
    private readonly picker: Picker,
    private readonly actions: SwarmActions,
    private readonly host: RequestsHost,
    /** Nothing is fetched (any more). */
    private readonly isFinished: () => boolean,
  ) {
    // As many as others grant us, and one more. Of small pieces several are needed to keep one source busy: with fewer real
    // links were slower, with one more per source large fleets are (decision 0014).
    const perSource = Math.max(1, Math.ceil(options.outstandingBytesPerSource / options.pieceBytes));
    this.inFlightMax = (options.piecesInFlightMax - 1) * perSource + 1;
  }

  /** Somebody waits for memory. */
  get starving(): boolean {
    return this.starved.length > 0;
  }

  /**
   * How long a source may fall silent in the middle of a block. Nobody else can be asked for that block meanwhile, so
   * at the end, when all waits for it, it is not much longer than a whole piece takes.
   */
  get claimTimeoutMs(): number {
    const { snubTimeoutMs } = this.options;
    if (this.picker.missingCount > 0 || this.pieceMs === 0) return snubTimeoutMs;
    return Math.min(snubTimeoutMs, ENDGAME_SILENCE_MS_MIN + ENDGAME_SILENCE_FACTOR * this.pieceMs);
  }

  /** A source of our own kind lets us begin a piece. */
  granted(session: Session): void {
    // Where we have said meanwhile that we would not begin one, it has taken the grant back.
    if (session.amInterested) session.source.grants++;
  }

  /** All of a piece was received. */
  pieceWhole(progress: PieceProgress): void {
    const tookMs = this.host.nowMs - progress.begunMs;
    this.pieceMs = this.pieceMs === 0 ? tookMs : this.pieceMs + (tookMs - this.pieceMs) / 8;
  }

  /** A block of `lengthBytes` came, packed or plain. */
  blockCame(lengthBytes: number, isPacked: boolean): void {
    const weight = Math.min(1, lengthBytes / PACKED_SHARE_BYTES);
    this.packedShare += ((isPacked ? 1 : 0) - this.packedShare) * weight;
  }

  /** Memory was freed: those who waited longest ask first. */
  memoryFreed(): void {
    for (let left = this.starved.length; left > 0; left--) {
      const session = this.starved.shift()!;
      session.source.starved = false;
      this.refill(session);
      if (!session.source.starved) continue;
      // Still none: it keeps its place at the head.
      this.starved.pop();
      this.starved.unshift(session);
      break;
    }
    this.tellInterest();
  }

  /** Asks a source for as much as it may have outstanding. */
  refill(session: Session): void {
    if (!this.mayRequest(session) || session.outstandingBytes > session.source.budgetBytes * REFILL_BELOW) return;
    while (this.hasBudget(session) && this.requestNext(session));
    if (session.room < REQUEST_ROOM_BYTES) session.source.waitsForRoom = true;
  }

  /** Sources that could do more do so: pieces became free, or fewer are in flight. */
  refillOthers(): void {
    if (this.refilling || this.isFinished()) return;
    this.refilling = true;
    this.spread();
    for (const session of this.host.sessions)
      if (session.outstandingBytes < session.source.budgetBytes) this.refill(session);
    this.refilling = false;
    this.tellInterest();
  }

  /**
   * Interest is told at once. Another client hears of it once, and until nothing is lacked; one of our own kind
   * exactly while we would begin a piece with it, because it grants one to whom is interested.
   */
  updateInterest(session: Session): void {
    const wants = session.isOurs ? this.wouldBegin(session) : session.source.lackedCount > 0;
    const interested = wants && !this.isFinished();
    if (interested === session.amInterested) return;
    session.setInterested(interested);
    if (interested || !session.isOurs) return;
    session.source.grants = 0;
    session.source.clearSuggestions();
  }

  forgetStarved(session: Session): void {
    if (!session.source.starved) return;
    session.source.starved = false;
    this.starved.splice(this.starved.indexOf(session), 1);
  }

  // ---------------------------------------------------------------- which source

  /** Begins pieces as long as more may be in flight, each with the source that has least to do for us. */
  private spread(): void {
    while (this.picker.inFlight.length < this.inFlightMax) {
      let best: Session | null = null;
      let ties = 0;
      for (const session of this.host.sessions) {
        if (!this.mayBegin(session)) continue;
        if (best === null || session.outstandingBytes < best.outstandingBytes) ties = 1;
        else if (session.outstandingBytes > best.outstandingBytes || this.options.random.below(++ties) !== 0) continue;
        best = session;
      }
      if (best === null || !this.beginNext(best)) return;
      const source = best.source;
      while (this.hasBudget(best) && usable(source.current, best) !== null)
        if (!this.requestMissing(best, source.current!)) break;
    }
  }

  private mayRequest(session: Session): boolean {
    const source = session.source;
    return (
      session.isOpen &&
      !session.peerChoking &&
      source.lackedCount > 0 &&
      this.host.nowMs >= source.restUntilMs &&
      !this.isFinished()
    );
  }

  private hasBudget(session: Session): boolean {
    const { outstanding, outstandingBytes, source } = session;
    return (
      outstanding.count < session.requestsMax &&
      !outstanding.full &&
      (outstandingBytes === 0 || outstandingBytes + this.blockUnits(session) * UNIT_BYTES <= source.budgetBytes) &&
      session.room >= REQUEST_ROOM_BYTES
    );
  }

  /** A missing piece may be begun with the source now. */
  private mayBegin(session: Session): boolean {
    const source = session.source;
    return (
      source.missingCount > 0 &&
      (!session.isOurs || source.grants > 0) &&
      !source.starved &&
      usable(source.current, session) === null &&
      this.mayRequest(session) &&
      this.hasBudget(session)
    );
  }

  /** A piece would be begun with the source if it let us. */
  private wouldBegin(session: Session): boolean {
    const source = session.source;
    return (
      source.missingCount > 0 &&
      !source.starved &&
      this.host.nowMs >= source.restUntilMs &&
      this.picker.inFlight.length < this.inFlightMax
    );
  }

  private tellInterest(): void {
    for (const session of this.host.sessions) if (session.isOpen) this.updateInterest(session);
  }

  // ---------------------------------------------------------------- which piece

  private requestNext(session: Session): boolean {
    const source = session.source;
    const current = usable(source.current, session);
    source.current = current;
    if (current !== null && this.requestMissing(session, current)) return true;
    // Memory kept for an abandoned piece is put to use before any other is asked for.
    const orphan = this.picker.findOrphan(session);
    if (orphan !== null && this.requestMissing(session, orphan)) {
      if (current !== null && current.owner === session) current.owner = null;
      if (source.suspected) orphan.singleSource = true;
      orphan.owner = session;
      source.current = orphan;
      return true;
    }
    if (current !== null || orphan !== null) return false;
    if (this.picker.inFlight.length < this.inFlightMax && this.mayBegin(session)) return this.beginNext(session);
    if (source.suspected || (session.isOurs && this.picker.missingCount > 0)) return false;
    const shared = this.picker.findShared(session);
    if (shared !== null) {
      source.current = shared;
      return this.requestMissing(session, shared);
    }
    return this.picker.missingCount === 0 && this.requestCopy(session);
  }

  /** Begins what the source suggested, else the rarest that it has. */
  private beginNext(session: Session): boolean {
    const suggested = this.takeSuggestion(session);
    const piece = suggested >= 0 ? suggested : this.picker.pickNew(session);
    if (piece < 0) return false;
    const isBegun = this.beginPiece(session, piece);
    if (!isBegun && suggested >= 0 && this.picker.isMissing(piece)) session.source.putBackSuggestion(piece);
    return isBegun;
  }

  /** A piece that was suggested and is still missing, or -1. */
  private takeSuggestion(session: Session): number {
    for (;;) {
      const piece = session.source.takeSuggestion();
      if (piece < 0 || (this.picker.isMissing(piece) && session.remoteHave.has(piece))) return piece;
    }
  }

  private beginPiece(session: Session, piece: number): boolean {
    const units = Math.min(this.blockUnits(session), Math.ceil(this.picker.pieceLength(piece) / UNIT_BYTES));
    const bytes = Math.min(units * UNIT_BYTES, this.picker.pieceLength(piece));
    if (!this.actions.reserve(pieceIndex(piece), 0, bytes)) return this.starve(session);
    const progress = this.picker.begin(this.host.nowMs, piece, session.source.suspected);
    for (const other of this.host.sessions) if (other.remoteHave.has(piece)) other.source.missingCount--;
    if (session.isOurs) session.source.grants--;
    progress.owner = session;
    session.source.current = progress;
    return this.requestMissing(session, progress);
  }

  private requestMissing(session: Session, progress: PieceProgress): boolean {
    const unit = progress.nextMissing();
    const unitsMax = this.blockUnits(session);
    const units = progress.missingRun(unit, unitsMax - (unit % unitsMax));
    return this.request(session, progress, unit, units);
  }

  /** Fetches a second time what another source was asked for: at the very end, or where that one is slow. */
  private requestCopy(session: Session): boolean {
    const isEnd = this.picker.inFlight.length <= ENDGAME_PIECES_MAX;
    const begunUntilMs = isEnd ? Infinity : this.host.nowMs - ENDGAME_SLOW_FACTOR * this.pieceMs;
    const progress = this.picker.findEndgame(session, this.blockUnits(session), begunUntilMs);
    if (progress === null) return false;
    const { unit, units } = this.picker.endgameRange;
    return this.request(session, progress, unit, units);
  }

  private request(session: Session, progress: PieceProgress, unit: number, units: number): boolean {
    const begin = unit * UNIT_BYTES;
    const bytes = progress.bytesOf(unit, units);
    if (!this.actions.reserve(pieceIndex(progress.piece), begin, bytes)) return this.starve(session);
    if (session.outstanding.count === 0) session.source.lastPayloadMs = this.host.nowMs;
    progress.requested(unit, units);
    progress.lastActiveMs = this.host.nowMs;
    session.request(progress.piece, begin, bytes);
    return true;
  }

  private starve(session: Session): false {
    if (!session.source.starved) {
      session.source.starved = true;
      this.starved.push(session);
    }
    return false;
  }

  /**
   * Units per request: a slice of our line, longer where blocks come packed, and at least four requests fill the budget,
   * so that the source never waits for the next.
   */
  private blockUnits(session: Session): number {
    const { sliceBytes } = this.host.receiving;
    const wantedBytes = this.packedShare >= PACKED_SHARE_MIN ? Math.max(sliceBytes, PACKED_BLOCK_BYTES) : sliceBytes;
    const bytes = Math.min(session.blockBytes, this.options.blockBytesMax, wantedBytes);
    let units = Math.max(1, Math.floor(bytes / UNIT_BYTES));
    while (units > 1 && units * UNIT_BYTES * 4 > session.source.budgetBytes) units >>= 1;
    return units;
  }

  // ---------------------------------------------------------------- taking back

  /** Takes back all requests of a session. With `tell` they are cancelled, else the remote peer knows. */
  dropRequests(session: Session, tell: boolean): void {
    const ring = session.outstanding;
    while (ring.count > 0) {
      this.progressOf(ring.piece(0)).unrequested(ring.begin(0) / UNIT_BYTES, unitsOf(ring.length(0)));
      if (tell) session.cancel(0);
      else session.forgetRequest(0);
    }
    this.disown(session);
  }

  /** Its pieces go on with whoever is free; one of which nothing came yet is as good as not begun. */
  disown(session: Session): void {
    session.source.current = null;
    for (let i = this.picker.inFlight.length - 1; i >= 0; i--) {
      const progress = this.picker.inFlight[i];
      if (progress.owner !== session) continue;
      progress.owner = null;
      if (isUntouched(progress)) this.discard(progress);
    }
  }

  cancelCopies(progress: PieceProgress, winner: Session, begin: number, length: number): void {
    const unit = begin / UNIT_BYTES;
    let copies = 0;
    for (let i = unit; i < unit + unitsOf(length); i++) copies += progress.requests[i];
    if (copies === 0) return;
    for (const session of this.host.sessions) {
      if (session === winner) continue;
      const ring = session.outstanding;
      for (let i = ring.count - 1; i >= 0; i--) {
        if (
          ring.piece(i) !== progress.piece ||
          ring.begin(i) >= begin + length ||
          ring.begin(i) + ring.length(i) <= begin
        )
          continue;
        progress.unrequested(ring.begin(i) / UNIT_BYTES, unitsOf(ring.length(i)));
        session.cancel(i);
      }
    }
  }

  /** Drops a piece's progress; it is missing again. */
  discard(progress: PieceProgress): void {
    const piece = progress.piece;
    this.picker.drop(progress);
    for (const session of this.host.sessions) {
      if (session.remoteHave.has(piece)) session.source.missingCount++;
      if (session.source.current === progress) session.source.current = null;
    }
    this.actions.discard(pieceIndex(piece));
  }

  /** Of a piece in flight or whole. */
  progressOf(piece: number): PieceProgress {
    const progress = this.picker.progress(piece);
    assert(progress !== null, "a piece being received has progress");
    return progress;
  }
}

/** Nothing of it was received, is arriving, or is asked for. */
export function isUntouched(progress: PieceProgress): boolean {
  return progress.missingCount === progress.unitCount;
}

/** The piece a source is at, while it can go on with it. */
function usable(current: PieceProgress | null, session: Session): PieceProgress | null {
  if (current === null || current.missingCount === 0) return null;
  return current.singleSource && current.owner !== session ? null : current;
}

export function unitsOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / UNIT_BYTES);
}
