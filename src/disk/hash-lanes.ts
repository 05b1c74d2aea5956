/**
 * The hashing of several contexts side by side in one thread: what `sha1/lanes.ts` does with machine code and
 * `library-lane.ts` with the runtime's library, which takes one context after the other.
 */

export interface HashLanes {
  /** Updates that may be at work at once. */
  readonly lanesMax: number;
  /** Updates that are at work. */
  readonly active: number;
  /** Starts a context with an empty hash. */
  begin(context: number): void;
  /** True while an update of the context is at work: nothing else may be done with the context. */
  isBusy(context: number): boolean;
  /**
   * Puts an update of a begun context to work, under a tag; `active` is below `lanesMax`. False: the bytes are so few
   * that nothing is left to do. The memory stays untouched until the update is done.
   */
  start(tag: number, context: number, offsetBytes: number, lengthBytes: number): boolean;
  /** Works until at least one update is done or, where another could be put beside them, for some ten microseconds. */
  work(done: (tag: number) => void): void;
  /** Writes the digest of the context, which is to be begun anew then, to the start of `target`. */
  digest(context: number, target: Uint8Array): void;
  free(): void;
}
