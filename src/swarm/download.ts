/**
 * Getting pieces: who is asked for what, what arrives, and who is to blame.
 *
 * One source per piece, asked in order; a lost source's piece goes on with the next. When nothing is left to
 * begin, idle sources help with pieces of others, and at the very end fetch units twice. Every request goes
 * through `refill`, which is O(1) per block while a source stays on its piece.
 *
 * Invariant: for every session, the units of its outstanding requests are free and counted in the progress of
 * their piece, and the block it is receiving is claimed there, unless it is to be discarded.
 */
import { assert } from "../errors.ts";
import { REQUEST_FRAME_BYTES } from "../wire/frames.ts";
import type { Bitfield } from "../wire/bitfield.ts";
import { pieceIndex } from "../units.ts";
import type { SwarmActions } from "./actions.ts";
import type { Picker } from "./picker.ts";
import {
  OUTSTANDING_AHEAD_MS,
  OUTSTANDING_GROWTH_MAX,
  REFILL_BELOW,
  SUGGESTIONS_EXPECTED_MS,
  type SwarmOptions,
  UNIT_BYTES,
} from "./policy.ts";
import type { PieceProgress } from "./progress.ts";
import type { Session } from "./session.ts";

/** Room for a request, and for the state messages that must not wait behind requests. */
const REQUEST_ROOM_BYTES = REQUEST_FRAME_BYTES + 64;
/** A piece nobody goes on with gives its memory back after this long, when others wait for memory. */
const ORPHAN_KEPT_MS = 2_000;
/** A source that turned a request down is left alone this long. */
const REJECTED_REST_MS = 1_000;

/** A packed block that was received, and under which key its sender is banned. */
export interface PackedBlock {
  readonly piece: number;
  readonly begin: number;
  readonly length: number;
  readonly banKey: string;
}

/** What the swarm does for its download. */
export interface DownloadHost {
  readonly nowMs: number;
  readonly sessions: readonly Session[];
  /** A source that stalled inside a block it has claimed, or that is banned. */
  drop(session: Session, kind: "timeout" | "banned", text: string): void;
  ban(banKey: string, piece: number): void;
  /** It shared in a bad piece with others; or it alone brought a good one. */
  suspect(banKey: string): void;
  clear(banKey: string): void;
}

export class Download {
  /** Useful payload, and payload that was thrown away. */
  receivedBytes = 0;
  private readonly starved: Session[] = [];
  private readonly inFlightMax: number;
  /** Set while sources are being refilled because of a change: a refill does not start another round. */
  private refilling = false;

  constructor(
    private readonly options: SwarmOptions,
    private readonly picker: Picker,
    private readonly have: Bitfield,
    private readonly actions: SwarmActions,
    private readonly host: DownloadHost,
  ) {
    // Small pieces: several are needed to keep one source busy.
    this.inFlightMax =
      options.piecesInFlightMax * Math.max(1, Math.ceil(options.outstandingBytesPerSource / options.pieceBytes));
  }

  /** Nothing is fetched: we have all, or we only seed. */
  get finished(): boolean {
    return this.options.seedOnly || this.have.all;
  }

  // ---------------------------------------------------------------- what sources have

  /** What the source has became known in one message. */
  sourceHasSet(session: Session): void {
    const source = session.source;
    source.countedAsSeed = session.isSeed;
    for (let piece = 0; piece < this.options.pieceCount; piece++) {
      if (!session.remoteHave.has(piece)) continue;
      if (!source.countedAsSeed) this.picker.rarity.increment(piece);
      if (this.have.has(piece)) continue;
      source.lackedCount++;
      if (this.picker.isMissing(piece)) source.missingCount++;
    }
    this.updateInterest(session);
  }

  sourceHas(session: Session, piece: number): void {
    this.picker.rarity.increment(piece);
    if (this.have.has(piece)) return;
    session.source.lackedCount++;
    if (this.picker.isMissing(piece)) session.source.missingCount++;
    this.updateInterest(session);
    if (session.outstandingBytes === 0) this.refill(session);
  }

  /** The session is over and the kernel is done with its buffers: everything it held is given back. */
  sourceGone(session: Session): void {
    if (session.payloadLength > 0 && !session.payloadDiscard) {
      const progress = this.progressOf(session.payloadPiece);
      progress.unclaim(session.payloadBegin / UNIT_BYTES, unitsOf(session.payloadLength));
    }
    this.dropRequests(session, false);
    if (!session.source.countedAsSeed) {
      for (let piece = 0; piece < this.options.pieceCount; piece++)
        if (session.remoteHave.has(piece)) this.picker.rarity.decrement(piece);
    }
    this.forgetStarved(session);
    this.refillOthers();
  }

  // ---------------------------------------------------------------- choke, snub

  choked(session: Session): void {
    session.source.clearSuggestions();
    // With BEP 6 each request is rejected or still answered; without, the choke has dropped them all.
    if (!session.fast) this.dropRequests(session, false);
    else this.disown(session);
    this.forgetStarved(session);
    this.refillOthers();
  }

  unchoked(session: Session): void {
    session.source.restUntilMs = 0;
    if (session.source.budgetBytes === 0) session.source.budgetBytes = this.options.outstandingBytesPerSource;
    this.refill(session);
  }

  /** The remote peer turned a request down, or its answer could not be taken (`ours`). */
  rejected(session: Session, piece: number, begin: number, length: number, ours: boolean): void {
    const progress = this.progressOf(piece);
    progress.unrequested(begin / UNIT_BYTES, unitsOf(length));
    if (progress.owner === session) progress.owner = null;
    if (isUntouched(progress)) this.discard(progress);
    if (session.source.current === progress) session.source.current = null;
    // Turned down without a choke: asking again at once would go round and round.
    if (!session.peerChoking && !ours) session.source.restUntilMs = this.host.nowMs + REJECTED_REST_MS;
    this.refillOthers();
  }

  suggested(session: Session, piece: number): void {
    if (this.finished || !this.picker.isWanted(piece)) return;
    session.source.addSuggestion(piece);
    session.source.suggestedUntilMs = this.host.nowMs + SUGGESTIONS_EXPECTED_MS;
  }

  /** Rates, budgets, snubs and orphans; every tick. */
  tick(intervalMs: number): void {
    for (const session of this.host.sessions) {
      if (!session.isOpen) continue;
      this.measure(session, intervalMs);
      this.checkSnub(session);
      this.updateInterest(session);
    }
    this.dropStalledOrphans();
    this.refillOthers();
  }

  // ---------------------------------------------------------------- blocks

  /** Payload of any kind came: the source is alive, and a snub is over. */
  payloadArrived(session: Session): void {
    session.source.lastPayloadMs = this.host.nowMs;
    if (session.source.restUntilMs === Infinity) session.source.restUntilMs = 0;
  }

  /** Nobody has or is receiving the block of outstanding request i, and this session alone was asked for it. */
  mayLand(session: Session, i: number): boolean {
    const ring = session.outstanding;
    const progress = this.picker.progress(ring.piece(i));
    return progress?.isAskedOnce(ring.begin(i) / UNIT_BYTES, unitsOf(ring.length(i))) ?? false;
  }

  blockArriving(session: Session, piece: number, begin: number, length: number): boolean {
    const progress = this.progressOf(piece);
    const unit = begin / UNIT_BYTES;
    const units = unitsOf(length);
    const claimed = progress.claim(unit, units);
    progress.unrequested(unit, units);
    progress.lastActiveMs = this.host.nowMs;
    // The copies of this block that others were asked for in the endgame are not wanted any more.
    if (claimed) this.cancelCopies(progress, session, begin, length);
    return claimed;
  }

  blockReceived(session: Session): void {
    const progress = this.progressOf(session.payloadPiece);
    const length = session.payloadLength;
    session.downloadedBytes += length;
    this.receivedBytes += length;
    this.blockIsThere(progress, session.payloadBegin, length, session.banKey);
  }

  /** A packed block is complete: it counts for the source's rate, and stays claimed until it is inflated. */
  packedReceived(session: Session): void {
    session.downloadedBytes += session.payloadLength;
  }

  inflated(block: PackedBlock, isGood: boolean): void {
    const progress = this.progressOf(block.piece);
    if (!isGood) return progress.unclaim(block.begin / UNIT_BYTES, unitsOf(block.length));
    this.receivedBytes += block.length;
    this.blockIsThere(progress, block.begin, block.length, block.banKey);
  }

  private blockIsThere(progress: PieceProgress, begin: number, length: number, banKey: string): void {
    progress.received(begin / UNIT_BYTES, unitsOf(length), banKey);
    progress.lastActiveMs = this.host.nowMs;
    if (!progress.complete) return;
    if (progress.owner !== null && progress.owner.source.current === progress) progress.owner.source.current = null;
    progress.owner = null;
    this.picker.becameWhole(progress);
  }

  // ---------------------------------------------------------------- verdicts

  /** The piece is proven. `have` is set by the swarm before. */
  verified(piece: number): void {
    const progress = this.progressOf(piece);
    if (progress.contributors.length === 1) this.host.clear(progress.contributors[0]);
    this.picker.verified(progress);
    for (const session of this.host.sessions) {
      if (!session.remoteHave.has(piece)) continue;
      session.source.lackedCount--;
    }
  }

  /** The hash was wrong. One contributor: it is to blame. Several: the next attempt has a single one. */
  failed(piece: number): void {
    const progress = this.progressOf(piece);
    assert(progress.complete, "only a whole piece is hashed");
    const contributors = progress.contributors.slice();
    this.actions.report({ kind: "piece-failed", piece: pieceIndex(piece), sources: contributors.length });
    if (contributors.length > 1) this.picker.markSuspect(piece);
    this.discard(progress);
    if (contributors.length === 1) this.host.ban(contributors[0], piece);
    else for (const banKey of contributors) this.host.suspect(banKey);
    this.refillOthers();
  }

  // ---------------------------------------------------------------- requests

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
      return;
    }
  }

  /** Asks a source for as much as it may have outstanding. */
  refill(session: Session): void {
    const source = session.source;
    if (!this.mayRequest(session) || session.outstandingBytes > source.budgetBytes * REFILL_BELOW) return;
    while (session.outstanding.count < session.requestsMax && !session.outstanding.full) {
      if (session.outstandingBytes > 0 && session.outstandingBytes + this.blockBytes(session) > source.budgetBytes)
        return;
      if (session.room < REQUEST_ROOM_BYTES) {
        source.waitsForRoom = true;
        return;
      }
      if (!this.requestNext(session)) return;
    }
  }

  /** Sources that could do more do so: pieces became free, or fewer are in flight. */
  refillOthers(): void {
    if (this.refilling || this.finished) return;
    this.refilling = true;
    for (const session of this.host.sessions)
      if (session.outstandingBytes < session.source.budgetBytes) this.refill(session);
    this.refilling = false;
  }

  private mayRequest(session: Session): boolean {
    const source = session.source;
    return (
      session.isOpen &&
      !session.peerChoking &&
      source.lackedCount > 0 &&
      this.host.nowMs >= source.restUntilMs &&
      !this.finished
    );
  }

  private requestNext(session: Session): boolean {
    const source = session.source;
    const current = usable(source.current, session);
    source.current = current;
    if (current !== null && this.requestMissing(session, current)) return true;
    if (current === null && !source.starved && this.picker.inFlight.length < this.inFlightMax) {
      const piece = this.takeSuggestion(session);
      if (piece >= 0) return this.followSuggestion(session, piece);
    }
    // A seeder that hands out pieces nobody has is asked for no others: its line is the bottleneck of the start.
    const isHandedOut = this.host.nowMs < source.suggestedUntilMs && this.host.sessions.length > 1;
    if (current === null && !source.starved && isHandedOut) return false;
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
    if (source.missingCount > 0 && this.picker.inFlight.length < this.inFlightMax) {
      const piece = this.picker.pickNew(session);
      if (piece >= 0) return this.beginPiece(session, piece);
    }
    if (source.suspected) return false;
    const shared = this.picker.findShared(session);
    if (shared !== null) {
      source.current = shared;
      return this.requestMissing(session, shared);
    }
    return this.picker.missingCount === 0 && this.requestCopy(session);
  }

  /** A piece the remote seeder suggested and that is still missing, or -1. */
  private takeSuggestion(session: Session): number {
    for (;;) {
      const piece = session.source.takeSuggestion();
      if (piece < 0 || (this.picker.isWanted(piece) && session.remoteHave.has(piece))) return piece;
    }
  }

  private followSuggestion(session: Session, piece: number): boolean {
    const isBegun = this.beginPiece(session, piece);
    if (!isBegun && this.picker.isMissing(piece)) session.source.putBackSuggestion(piece);
    return isBegun;
  }

  private beginPiece(session: Session, piece: number): boolean {
    const units = Math.min(this.blockUnits(session), Math.ceil(this.picker.pieceLength(piece) / UNIT_BYTES));
    const bytes = Math.min(units * UNIT_BYTES, this.picker.pieceLength(piece));
    if (!this.actions.reserve(pieceIndex(piece), 0, bytes)) return this.starve(session);
    const progress = this.picker.begin(this.host.nowMs, piece, session.source.suspected);
    for (const other of this.host.sessions) if (other.remoteHave.has(piece)) other.source.missingCount--;
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

  private requestCopy(session: Session): boolean {
    const progress = this.picker.findEndgame(session, this.blockUnits(session));
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

  private forgetStarved(session: Session): void {
    if (!session.source.starved) return;
    session.source.starved = false;
    this.starved.splice(this.starved.indexOf(session), 1);
  }

  /** Units per request: at least four requests fill the budget, so that the source never waits for the next. */
  private blockUnits(session: Session): number {
    const bytes = Math.min(session.blockBytes, this.options.blockBytesMax, this.options.slabBytes);
    let units = Math.max(1, Math.floor(bytes / UNIT_BYTES));
    while (units > 1 && units * UNIT_BYTES * 4 > session.source.budgetBytes) units >>= 1;
    return units;
  }

  private blockBytes(session: Session): number {
    return this.blockUnits(session) * UNIT_BYTES;
  }

  // ---------------------------------------------------------------- taking back

  /** Takes back all requests of a session. With `tell` they are cancelled, else the remote peer knows. */
  private dropRequests(session: Session, tell: boolean): void {
    const ring = session.outstanding;
    while (ring.count > 0) {
      this.progressOf(ring.piece(0)).unrequested(ring.begin(0) / UNIT_BYTES, unitsOf(ring.length(0)));
      if (tell) session.cancel(0);
      else session.forgetRequest(0);
    }
    this.disown(session);
  }

  /** Its pieces go on with whoever is free; one of which nothing came yet is as good as not begun. */
  private disown(session: Session): void {
    session.source.current = null;
    for (let i = this.picker.inFlight.length - 1; i >= 0; i--) {
      const progress = this.picker.inFlight[i];
      if (progress.owner !== session) continue;
      progress.owner = null;
      if (isUntouched(progress)) this.discard(progress);
    }
  }

  private cancelCopies(progress: PieceProgress, winner: Session, begin: number, length: number): void {
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
  private discard(progress: PieceProgress): void {
    const piece = progress.piece;
    this.picker.drop(progress);
    for (const session of this.host.sessions) {
      if (session.remoteHave.has(piece)) session.source.missingCount++;
      if (session.source.current === progress) session.source.current = null;
    }
    this.actions.discard(pieceIndex(piece));
  }

  // ---------------------------------------------------------------- housekeeping

  private measure(session: Session, intervalMs: number): void {
    const source = session.source;
    const rate = ((session.downloadedBytes - source.measuredBytes) * 1000) / intervalMs;
    source.measuredBytes = session.downloadedBytes;
    source.rateBytesPerSecond += (rate - source.rateBytesPerSecond) / 2;
    const start = this.options.outstandingBytesPerSource;
    const ahead = (source.rateBytesPerSecond * OUTSTANDING_AHEAD_MS) / 1000;
    source.budgetBytes = Math.max(start, Math.min(ahead, start * OUTSTANDING_GROWTH_MAX));
  }

  private checkSnub(session: Session): void {
    const source = session.source;
    const receiving = session.payloadLength > 0;
    if (session.outstanding.count === 0 && !receiving) return;
    if (this.host.nowMs - source.lastPayloadMs < this.options.snubTimeoutMs) return;
    if (receiving && !session.payloadDiscard) {
      // Its claim cannot be taken back while bytes may still land: the connection has to go.
      this.host.drop(session, "timeout", "stopped in the middle of a block");
      return;
    }
    source.restUntilMs = Infinity;
    this.dropRequests(session, true);
    this.forgetStarved(session);
    this.actions.report({ kind: "snubbed", address: session.address });
  }

  /** Memory of pieces that nobody goes on with must not starve others; a suspect piece starts again with another source. */
  private dropStalledOrphans(): void {
    for (let i = this.picker.inFlight.length - 1; i >= 0; i--) {
      const progress = this.picker.inFlight[i];
      if (this.starved.length === 0 && !progress.singleSource) continue;
      const idle = progress.missingCount + progress.receivedCount === progress.unitCount;
      if (idle && this.host.nowMs - progress.lastActiveMs > ORPHAN_KEPT_MS) this.discard(progress);
    }
  }

  /** Interest is told at once when it begins, and kept until nothing is lacked. */
  updateInterest(session: Session): void {
    const interested = !this.finished && session.source.lackedCount > 0;
    if (interested !== session.amInterested) session.setInterested(interested);
  }

  private progressOf(piece: number): PieceProgress {
    const progress = this.picker.progress(piece);
    assert(progress !== null, "a piece being received has progress");
    return progress;
  }
}

/** Nothing of it was received, is arriving, or is asked for. */
function isUntouched(progress: PieceProgress): boolean {
  return progress.missingCount === progress.unitCount;
}

/** The piece a source is at, while it can go on with it. */
function usable(current: PieceProgress | null, session: Session): PieceProgress | null {
  if (current === null || current.missingCount === 0) return null;
  return current.singleSource && current.owner !== session ? null : current;
}

function unitsOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / UNIT_BYTES);
}
