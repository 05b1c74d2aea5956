/**
 * Getting pieces: what sources have and do, what arrives, and who is to blame. Who is asked for what is for
 * `requests.ts`.
 *
 * Invariant: the block that a session is receiving is claimed in the progress of its piece, unless it is to be
 * discarded.
 */
import { assert } from "../errors.ts";
import type { Bitfield } from "../wire/bitfield.ts";
import { pieceIndex } from "../units.ts";
import type { SwarmActions } from "./actions.ts";
import type { Line } from "./line.ts";
import type { Picker } from "./picker.ts";
import { OUTSTANDING_AHEAD_MS, OUTSTANDING_GROWTH_MAX, SNUBS_BORNE, type SwarmOptions, UNIT_BYTES } from "./policy.ts";
import type { PieceProgress } from "./progress.ts";
import { isUntouched, Requests, unitsOf } from "./requests.ts";
import type { Session } from "./session.ts";

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
  /** Our line, inwards. */
  readonly receiving: Line;
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
  readonly requests: Requests;

  constructor(
    private readonly options: SwarmOptions,
    private readonly picker: Picker,
    private readonly have: Bitfield,
    private readonly actions: SwarmActions,
    private readonly host: DownloadHost,
  ) {
    this.requests = new Requests(options, picker, actions, host, () => this.finished);
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
    this.requests.updateInterest(session);
  }

  sourceHas(session: Session, piece: number): void {
    this.picker.rarity.increment(piece);
    if (this.have.has(piece)) return;
    session.source.lackedCount++;
    if (this.picker.isMissing(piece)) session.source.missingCount++;
    this.requests.updateInterest(session);
    if (session.outstandingBytes === 0) this.requests.refill(session);
  }

  /** The session is over and the kernel is done with its buffers: everything it held is given back. */
  sourceGone(session: Session): void {
    if (session.payloadLength > 0 && !session.payloadDiscard) {
      const progress = this.requests.progressOf(session.payloadPiece);
      progress.unclaim(session.payloadBegin / UNIT_BYTES, unitsOf(session.payloadLength));
    }
    this.requests.dropRequests(session, false);
    if (!session.source.countedAsSeed) {
      for (let piece = 0; piece < this.options.pieceCount; piece++)
        if (session.remoteHave.has(piece)) this.picker.rarity.decrement(piece);
    }
    this.requests.forgetStarved(session);
    this.requests.refillOthers();
  }

  // ---------------------------------------------------------------- choke, snub

  choked(session: Session): void {
    session.source.clearSuggestions();
    // With BEP 6 each request is rejected or still answered; without, the choke has dropped them all.
    if (!session.fast) this.requests.dropRequests(session, false);
    else this.requests.disown(session);
    this.requests.forgetStarved(session);
    this.requests.refillOthers();
  }

  unchoked(session: Session): void {
    session.source.restUntilMs = 0;
    if (session.source.budgetBytes === 0) session.source.budgetBytes = this.options.outstandingBytesPerSource;
    if (session.isOurs) this.requests.granted(session);
    this.requests.refill(session);
    this.requests.updateInterest(session);
  }

  /** The remote peer turned a request down, or its answer could not be taken (`ours`). */
  rejected(session: Session, piece: number, begin: number, length: number, ours: boolean): void {
    const progress = this.requests.progressOf(piece);
    progress.unrequested(begin / UNIT_BYTES, unitsOf(length));
    if (progress.owner === session) progress.owner = null;
    if (isUntouched(progress)) this.requests.discard(progress);
    if (session.source.current === progress) session.source.current = null;
    // Turned down without a choke: asking again at once would go round and round.
    if (!session.peerChoking && !ours) session.source.restUntilMs = this.host.nowMs + REJECTED_REST_MS;
    this.requests.refillOthers();
  }

  suggested(session: Session, piece: number): void {
    if (this.finished || !this.picker.isMissing(piece)) return;
    session.source.addSuggestion(piece);
  }

  /** Rates, budgets, snubs and orphans; every tick. */
  tick(intervalMs: number): void {
    for (const session of this.host.sessions) {
      if (!session.isOpen) continue;
      this.measure(session, intervalMs);
      this.checkSnub(session);
      this.requests.updateInterest(session);
    }
    this.dropStalledOrphans();
    this.requests.refillOthers();
  }

  // ---------------------------------------------------------------- blocks

  /**
   * Payload of any kind came. A whole unit of it, or the end of a block, shows that the source is alive, and a snub
   * is over; with a byte now and then it would hold its claim for hours.
   */
  payloadArrived(session: Session, lengthBytes: number): void {
    const source = session.source;
    source.trickledBytes += lengthBytes;
    const isEnd = session.payloadReceived + lengthBytes >= session.payloadLength;
    if (source.trickledBytes < UNIT_BYTES && !isEnd) return;
    source.trickledBytes = 0;
    source.lastPayloadMs = this.host.nowMs;
    if (source.restUntilMs === Infinity) source.restUntilMs = 0;
  }

  /** Nobody has or is receiving the block of outstanding request i, and this session alone was asked for it. */
  mayLand(session: Session, i: number): boolean {
    const ring = session.outstanding;
    const progress = this.picker.progress(ring.piece(i));
    return progress?.isAskedOnce(ring.begin(i) / UNIT_BYTES, unitsOf(ring.length(i))) ?? false;
  }

  blockArriving(session: Session, piece: number, begin: number, length: number): boolean {
    const progress = this.requests.progressOf(piece);
    const unit = begin / UNIT_BYTES;
    const units = unitsOf(length);
    const claimed = progress.claim(unit, units);
    progress.unrequested(unit, units);
    progress.lastActiveMs = this.host.nowMs;
    // The copies of this block that others were asked for in the endgame are not wanted any more.
    if (claimed) this.requests.cancelCopies(progress, session, begin, length);
    return claimed;
  }

  blockReceived(session: Session): void {
    const progress = this.requests.progressOf(session.payloadPiece);
    const length = session.payloadLength;
    session.downloadedBytes += length;
    this.requests.blockCame(length, false);
    this.receivedBytes += length;
    this.blockIsThere(progress, session.payloadBegin, length, session.banKey);
  }

  /** A packed block is complete: it counts for the source's rate, and stays claimed until it is inflated. */
  packedReceived(session: Session): void {
    session.downloadedBytes += session.payloadLength;
    this.requests.blockCame(session.payloadLength, true);
  }

  inflated(block: PackedBlock, isGood: boolean): void {
    const progress = this.requests.progressOf(block.piece);
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
    this.requests.pieceWhole(progress);
  }

  // ---------------------------------------------------------------- verdicts

  /** The piece is proven. `have` is set by the swarm before. */
  verified(piece: number): void {
    const progress = this.requests.progressOf(piece);
    if (progress.contributors.length === 1) this.host.clear(progress.contributors[0]);
    this.picker.verified(progress);
    for (const session of this.host.sessions) {
      if (!session.remoteHave.has(piece)) continue;
      session.source.lackedCount--;
    }
  }

  /** The hash was wrong. One contributor: it is to blame. Several: the next attempt has a single one. */
  failed(piece: number): void {
    const progress = this.requests.progressOf(piece);
    assert(progress.complete, "only a whole piece is hashed");
    const contributors = progress.contributors.slice();
    this.actions.report({ kind: "piece-failed", piece: pieceIndex(piece), sources: contributors.length });
    if (contributors.length > 1) this.picker.markSuspect(piece);
    this.requests.discard(progress);
    if (contributors.length === 1) this.host.ban(contributors[0], piece);
    else for (const banKey of contributors) this.host.suspect(banKey);
    this.requests.refillOthers();
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
    if (
      source.restUntilMs === Infinity &&
      this.host.nowMs - source.lastPayloadMs >= SNUBS_BORNE * this.options.snubTimeoutMs
    )
      return this.host.drop(session, "timeout", "answers no requests");
    if (session.outstanding.count === 0 && !receiving) return;
    const silentMs = this.host.nowMs - source.lastPayloadMs;
    const claims = receiving && !session.payloadDiscard;
    if (silentMs < (claims ? this.requests.claimTimeoutMs : this.options.snubTimeoutMs)) return;
    if (claims) {
      // Its claim cannot be taken back while bytes may still land: the connection has to go.
      this.host.drop(session, "timeout", "stopped in the middle of a block");
      return;
    }
    source.restUntilMs = Infinity;
    this.requests.dropRequests(session, true);
    this.requests.forgetStarved(session);
    this.actions.report({ kind: "snubbed", address: session.address });
  }

  /** Memory of pieces that nobody goes on with must not starve others; a suspect piece starts again with another source. */
  private dropStalledOrphans(): void {
    for (let i = this.picker.inFlight.length - 1; i >= 0; i--) {
      const progress = this.picker.inFlight[i];
      if (!this.requests.starving && !progress.singleSource) continue;
      const idle = progress.missingCount + progress.receivedCount === progress.unitCount;
      if (idle && this.host.nowMs - progress.lastActiveMs > ORPHAN_KEPT_MS) this.requests.discard(progress);
    }
  }
}
