/** The clock that times everything a reactor's thread does: monotonic, and of no relation to the time of day. */

/** Milliseconds with a fraction since the start of the thread; never goes back. */
export function nowMs(): number {
  return performance.now();
}
