/**
 * One piece being received, in units of 16 KiB.
 *
 * Invariant: a unit is free, claimed (exactly one session is receiving its payload) or received; a free unit
 * counts how many sessions have requested it, and is missing while that is 0. missingCount, receivedCount and
 * firstMissing always agree with the units. Objects are reused: nothing is allocated per piece once warm.
 */
import { assert } from "../errors.ts";
import { UNIT_BYTES } from "./policy.ts";
import type { Session } from "./session.ts";

export const enum Unit {
  free = 0,
  claimed = 1,
  received = 2,
}

export class PieceProgress {
  piece = -1;
  lengthBytes = 0;
  unitCount = 0;
  readonly states: Uint8Array;
  /** Sessions that have an outstanding request for the unit. */
  readonly requests: Uint8Array;
  missingCount = 0;
  receivedCount = 0;
  claimedCount = 0;
  /** No missing unit lies before this one. */
  firstMissing = 0;
  /** The source that the rest of the piece is asked from; null: the next one that is free takes over. */
  owner: Session | null = null;
  /** Only one source may contribute: several already made it fail, and the next failure shall have one culprit. */
  singleSource = false;
  /** Ban keys of those who contributed payload, in order of their first block. */
  readonly contributors: string[] = [];
  begunMs = 0;
  /** When a unit was last requested, claimed or received. */
  lastActiveMs = 0;

  constructor(unitsMax: number) {
    this.states = new Uint8Array(unitsMax);
    this.requests = new Uint8Array(unitsMax);
  }

  begin(nowMs: number, piece: number, lengthBytes: number, singleSource: boolean): void {
    this.piece = piece;
    this.lengthBytes = lengthBytes;
    this.unitCount = Math.ceil(lengthBytes / UNIT_BYTES);
    this.states.fill(Unit.free, 0, this.unitCount);
    this.requests.fill(0, 0, this.unitCount);
    this.missingCount = this.unitCount;
    this.receivedCount = 0;
    this.claimedCount = 0;
    this.firstMissing = 0;
    this.owner = null;
    this.singleSource = singleSource;
    this.contributors.length = 0;
    this.begunMs = nowMs;
    this.lastActiveMs = nowMs;
  }

  get complete(): boolean {
    return this.receivedCount === this.unitCount;
  }

  isMissing(unit: number): boolean {
    return this.states[unit] === Unit.free && this.requests[unit] === 0;
  }

  /** The first missing unit; there is one. */
  nextMissing(): number {
    assert(this.missingCount > 0, "a missing unit exists");
    while (!this.isMissing(this.firstMissing)) this.firstMissing++;
    return this.firstMissing;
  }

  /** Units from `unit` on that are missing, at most `unitsMax`. */
  missingRun(unit: number, unitsMax: number): number {
    const end = Math.min(this.unitCount, unit + unitsMax);
    let at = unit;
    while (at < end && this.isMissing(at)) at++;
    return at - unit;
  }

  /** Bytes of `units` units from `unit` on; the last unit of the piece may be shorter. */
  bytesOf(unit: number, units: number): number {
    return Math.min(this.lengthBytes, (unit + units) * UNIT_BYTES) - unit * UNIT_BYTES;
  }

  /** All of these units are free and requested by one session. */
  isAskedOnce(unit: number, units: number): boolean {
    for (let i = unit; i < unit + units; i++) if (this.states[i] !== Unit.free || this.requests[i] !== 1) return false;
    return true;
  }

  requested(unit: number, units: number): void {
    for (let i = unit; i < unit + units; i++) {
      if (this.isMissing(i)) this.missingCount--;
      this.requests[i]++;
    }
  }

  /** A request was answered, rejected, cancelled or lost. */
  unrequested(unit: number, units: number): void {
    for (let i = unit; i < unit + units; i++) {
      assert(this.requests[i] > 0, "a request is taken back once");
      this.requests[i]--;
      this.noteMissing(i);
    }
  }

  /** Claims a block whose header arrived, where none of it is claimed or received. */
  claim(unit: number, units: number): boolean {
    for (let i = unit; i < unit + units; i++) if (this.states[i] !== Unit.free) return false;
    for (let i = unit; i < unit + units; i++) {
      if (this.requests[i] === 0) this.missingCount--;
      this.states[i] = Unit.claimed;
    }
    this.claimedCount += units;
    return true;
  }

  /** The session receiving a claimed block is gone. */
  unclaim(unit: number, units: number): void {
    for (let i = unit; i < unit + units; i++) {
      assert(this.states[i] === Unit.claimed, "only a claimed unit is given back");
      this.states[i] = Unit.free;
      this.noteMissing(i);
    }
    this.claimedCount -= units;
  }

  received(unit: number, units: number, contributor: string): void {
    for (let i = unit; i < unit + units; i++) {
      assert(this.states[i] === Unit.claimed, "only a claimed unit is received");
      this.states[i] = Unit.received;
    }
    this.claimedCount -= units;
    this.receivedCount += units;
    const known = this.contributors;
    if (known[known.length - 1] !== contributor && !known.includes(contributor)) known.push(contributor);
  }

  private noteMissing(unit: number): void {
    if (!this.isMissing(unit)) return;
    this.missingCount++;
    if (unit < this.firstMissing) this.firstMissing = unit;
  }
}
