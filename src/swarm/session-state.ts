/** What the parts of a swarm keep about a session: as a source, as a taker of an upload slot, and as a speaker of extensions. */
import type { Given } from "./dispersal.ts";
import type { PieceProgress } from "./progress.ts";
import { SUGGESTIONS_KEPT } from "./policy.ts";

/** Kept by `download.ts` and `requests.ts`. */
export class SourceState {
  /** Pieces it has that we do not have; interest is this being above 0. */
  lackedCount = 0;
  /** Of those, the ones that are missing altogether: neither begun nor whole. */
  missingCount = 0;
  /** It was counted as a seed, not piece by piece. */
  countedAsSeed = false;
  /** It shared in a bad piece: until a piece of its own was good, it works alone, so that the blame is exact. */
  suspected = false;
  /** The piece it is asked for now. */
  current: PieceProgress | null = null;
  /** Bytes that may be outstanding. */
  budgetBytes = 0;
  /** Nothing is requested from it before this time: it turned a request down, or (Infinity) was snubbed for its silence. */
  restUntilMs = 0;
  /** Pieces that may be begun with it: counted for peers of our own kind. */
  grants = 0;
  /** It waits for memory, in the queue of the download. */
  starved = false;
  /** Its outbox had no room for a request. */
  waitsForRoom = false;
  /** When payload last came, or when requests became outstanding after none were. */
  lastPayloadMs = 0;
  /** Payload since then: less than a unit, and not the end of a block. */
  trickledBytes = 0;
  /** Bytes received when the rate was last measured. */
  measuredBytes = 0;
  rateBytesPerSecond = 0;
  /** Pieces the remote seeder suggested, oldest first. */
  private suggestions: Int32Array | null = null;
  private suggestionCount = 0;

  addSuggestion(piece: number): void {
    this.suggestions ??= new Int32Array(SUGGESTIONS_KEPT);
    if (this.suggestionCount === SUGGESTIONS_KEPT) this.takeSuggestion();
    this.suggestions[this.suggestionCount++] = piece;
  }

  /** A choke takes the suggestions back. */
  clearSuggestions(): void {
    this.suggestionCount = 0;
  }

  /** A suggestion that was taken and could not be followed for want of memory is the next again. */
  putBackSuggestion(piece: number): void {
    const kept = this.suggestions;
    if (kept === null || this.suggestionCount === SUGGESTIONS_KEPT) return;
    kept.copyWithin(1, 0, this.suggestionCount++);
    kept[0] = piece;
  }

  /** The oldest suggestion, or -1. */
  takeSuggestion(): number {
    const kept = this.suggestions;
    if (kept === null || this.suggestionCount === 0) return -1;
    const piece = kept[0];
    kept.copyWithin(0, 1, this.suggestionCount--);
    return piece;
  }
}

/** Kept by `choker.ts`, `grants.ts`, `turns.ts` and `dispersal.ts`. */
export class SlotState {
  /** It is to be told of more pieces of ours than there was room for (kept by `swarm.ts`). */
  havesWaitForRoom = false;
  /** When it got its slot, and a number that says in which order slots or grants were last given. */
  sinceMs = 0;
  lastHeld = 0;
  /** Bytes sent in this slot. */
  slotBytes = 0;
  lastUploadMs = 0;
  /** The piece last sent, to see where one ends. */
  lastPiece = -1;
  /** Bytes of payload begun and not yet sent. */
  sendingBytes = 0;
  /** Grants not used yet, the piece last begun, and what is left to send of pieces begun. */
  granted = 0;
  grantedPiece = -1;
  dueBytes = 0;
  /** Its requests are served now; the piece of its last turn; a number that says in which order blocks were begun. */
  hasTurn = false;
  turnPiece = -1;
  lastServed = 0;
  /** Pieces it does not have yet that we suggested, that it asked for, or that it was sent some of; null: none. */
  given: Map<number, Given> | null = null;
}

/** Kept by `extensions.ts` and `pex.ts`: the ids the remote peer gave (0: not offered) and what waits to be written. */
export class ExtensionState {
  handshakeSent = false;
  metadataId = 0;
  pexId = 0;
  listenPort = 0;
  client = "";
  /** Metadata pieces asked for and not yet written. */
  readonly metadataWanted: number[] = [];
  /** Key of the address under which others can dial it; null: nobody was told. */
  dialKey: string | null = null;
  /** Addresses told to it, by key; null: none yet. */
  pexTold: Set<string> | null = null;
  pexNextMs = 0;
  /** When its last peer exchange came. */
  pexReceivedMs = -Infinity;
}
