/** A seeded generator (mulberry32), so that a failing test can be run again from the seed it printed. */
export interface SeededRandom {
  uint32(): number;
  /** 0 to limit - 1. */
  below(limit: number): number;
}

export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const uint32 = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  return { uint32, below: (limit) => Math.floor((uint32() / 2 ** 32) * limit) };
}
