/**
 * Which piece a source is asked for next.
 *
 * Invariant: a piece is missing (in the rarity order), in flight (has a PieceProgress in `inFlight`), whole (all
 * units received, hash and writes under way; its PieceProgress is kept for the blame) or had (taken out, set in
 * `have`). Seeds are counted once for all pieces, so the order says what nodes lack.
 *
 * The picker knows what is possible; who gets it when is for `download.ts`.
 */
import { assert } from "../errors.ts";
import type { Bitfield } from "../wire/bitfield.ts";
import { ENDGAME_COPIES_MAX, UNIT_BYTES } from "./policy.ts";
import { PieceProgress, Unit } from "./progress.ts";
import type { Random } from "./random.ts";
import { RarityOrder } from "./rarity.ts";
import type { Session } from "./session.ts";

export interface PickerOptions {
  readonly pieceCount: number;
  readonly pieceBytes: number;
  readonly totalBytes: number;
  /** Most sessions that can count a piece. */
  readonly sessionsMax: number;
  readonly random: Random;
}

/** A range of units that may be requested. */
export interface UnitRange {
  unit: number;
  units: number;
}

export class Picker {
  /** Begun and not yet fully received. */
  readonly inFlight: PieceProgress[] = [];
  readonly rarity: RarityOrder;
  private readonly progressOf: (PieceProgress | null)[];
  private readonly spare: PieceProgress[] = [];
  /** Pieces that several sources made fail. */
  private readonly suspect = new Set<number>();
  private readonly range: UnitRange = { unit: 0, units: 0 };

  constructor(
    private readonly options: PickerOptions,
    /** What we have; owned by the swarm. */
    have: Bitfield,
  ) {
    this.rarity = new RarityOrder(options.pieceCount, options.sessionsMax, options.random);
    this.progressOf = new Array<PieceProgress | null>(options.pieceCount).fill(null);
    for (let piece = 0; piece < options.pieceCount; piece++) if (have.has(piece)) this.rarity.take(piece);
  }

  /** Pieces neither begun nor had. */
  get missingCount(): number {
    return this.rarity.remaining;
  }

  pieceLength(piece: number): number {
    return Math.min(this.options.pieceBytes, this.options.totalBytes - piece * this.options.pieceBytes);
  }

  /** Progress of a piece in flight or whole; null for others. */
  progress(piece: number): PieceProgress | null {
    return this.progressOf[piece];
  }

  isMissing(piece: number): boolean {
    return !this.rarity.isTaken(piece);
  }

  /** The rarest missing piece that a source has, or -1. */
  pickNew(source: Session): number {
    if (this.rarity.remaining === 0) return -1;
    // A source that is no seed has only pieces that are counted.
    let at = this.rarity.startOf(source.isSeed ? 0 : 1);
    for (; at < this.options.pieceCount; at++) {
      const piece = this.rarity.at(at);
      if (source.remoteHave.has(piece)) return piece;
    }
    // A source that became a seed by HAVE messages is counted; one that lost nothing is always found above.
    return -1;
  }

  /** Begins a missing piece. */
  begin(nowMs: number, piece: number, alone = false): PieceProgress {
    this.rarity.take(piece);
    const progress = this.spare.pop() ?? new PieceProgress(Math.ceil(this.options.pieceBytes / UNIT_BYTES));
    progress.begin(nowMs, piece, this.pieceLength(piece), alone || this.suspect.has(piece));
    this.progressOf[piece] = progress;
    this.inFlight.push(progress);
    return progress;
  }

  /** All units of a piece are received: it is no longer in flight. */
  becameWhole(progress: PieceProgress): void {
    assert(progress.complete, "a whole piece has all units");
    this.removeInFlight(progress);
  }

  /** Drops all progress of a piece, which is missing again. Nobody is receiving into it. */
  drop(progress: PieceProgress): void {
    assert(progress.claimedCount === 0, "a piece being received into is not dropped");
    if (!progress.complete) this.removeInFlight(progress);
    this.forget(progress);
    this.rarity.giveBack(progress.piece);
  }

  /** The hash of a whole piece was right and it is written. */
  verified(progress: PieceProgress): void {
    this.suspect.delete(progress.piece);
    this.forget(progress);
  }

  /** From now on the piece is fetched from one source at a time. */
  markSuspect(piece: number): void {
    this.suspect.add(piece);
  }

  /** A piece in flight without a source that this one can go on with: the most advanced. */
  findOrphan(source: Session): PieceProgress | null {
    let best: PieceProgress | null = null;
    for (const progress of this.inFlight) {
      if (progress.owner !== null || progress.missingCount === 0 || !source.remoteHave.has(progress.piece)) continue;
      if ((progress.singleSource || source.source.suspected) && !mayContinueAlone(progress, source)) continue;
      if (best === null || progress.receivedCount > best.receivedCount) best = progress;
    }
    return best;
  }

  /** A piece of another source that this one can help with: the one with the most left to request. */
  findShared(source: Session): PieceProgress | null {
    let best: PieceProgress | null = null;
    for (const progress of this.inFlight) {
      if (progress.missingCount === 0 || progress.singleSource || !source.remoteHave.has(progress.piece)) continue;
      if (best === null || progress.missingCount > best.missingCount) best = progress;
    }
    return best;
  }

  /**
   * A piece all of whose units are requested, some not yet arriving, that this source could fetch twice: the one
   * with the most left, of those begun at `begunUntilMs` or before. The range to ask for is then in `endgameRange`.
   */
  findEndgame(source: Session, unitsMax: number, begunUntilMs: number): PieceProgress | null {
    let best: PieceProgress | null = null;
    let bestLeft = 0;
    for (const progress of this.inFlight) {
      const left = progress.unitCount - progress.receivedCount - progress.claimedCount;
      if (left <= bestLeft || progress.singleSource || progress.begunMs > begunUntilMs) continue;
      if (!source.remoteHave.has(progress.piece) || !findCopyRange(progress, source, unitsMax, this.range)) continue;
      best = progress;
      bestLeft = left;
    }
    if (best !== null) findCopyRange(best, source, unitsMax, this.range);
    return best;
  }

  get endgameRange(): UnitRange {
    return this.range;
  }

  private forget(progress: PieceProgress): void {
    this.progressOf[progress.piece] = null;
    progress.owner = null;
    this.spare.push(progress);
  }

  private removeInFlight(progress: PieceProgress): void {
    const at = this.inFlight.indexOf(progress);
    assert(at >= 0, "the piece is in flight");
    this.inFlight[at] = this.inFlight[this.inFlight.length - 1];
    this.inFlight.pop();
  }
}

/** A suspect piece has one contributor at most: nothing of another source may be in it or on its way. */
function mayContinueAlone(progress: PieceProgress, source: Session): boolean {
  if (progress.missingCount + progress.receivedCount !== progress.unitCount) return false;
  return (
    progress.contributors.length === 0 ||
    (progress.contributors.length === 1 && progress.contributors[0] === source.banKey)
  );
}

/**
 * From the tail, because the first source works from the front: the last run of units that are requested by
 * others, not yet arriving and not asked for by this source.
 */
function findCopyRange(progress: PieceProgress, source: Session, unitsMax: number, range: UnitRange): boolean {
  const copyable = (unit: number): boolean =>
    progress.states[unit] === Unit.free &&
    progress.requests[unit] > 0 &&
    progress.requests[unit] < ENDGAME_COPIES_MAX &&
    !source.outstanding.covers(progress.piece, unit * UNIT_BYTES);
  let end = progress.unitCount;
  while (end > 0 && !copyable(end - 1)) end--;
  if (end === 0) return false;
  let unit = end - 1;
  // A block never crosses a multiple of its largest size: slabs of both sides are at least that large.
  while (unit % unitsMax !== 0 && copyable(unit - 1)) unit--;
  range.unit = unit;
  range.units = end - unit;
  return true;
}
