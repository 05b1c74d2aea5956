/**
 * How a peer divides its memory: slabs, requests and reads ahead for a given `--memory`.
 */
import { type SwarmTuning, TUNING_DEFAULT, UPLOAD_SLOTS_SEEDER } from "../swarm/policy.ts";
import { BLOCK_BYTES, POOL_BYTES_MIN } from "../limits.ts";
import { KiB, MiB } from "../units.ts";

export interface MemoryPlan {
  readonly slabBytes: number;
  readonly slabCount: number;
  /** Slabs that receiving may hold; the rest is for what is served. */
  readonly intakeSlabsMax: number;
  readonly readsMax: number;
  readonly tuning: SwarmTuning;
}

/** Slabs of 1 MiB are written in one operation; a small pool has smaller ones so that many sources find room. */
export function planMemory(
  memoryBytes: number,
  pieceBytes: number,
  seedOnly: boolean,
  blockBytesMax: number,
): MemoryPlan {
  const poolBytes = Math.max(POOL_BYTES_MIN, memoryBytes);
  const wantedBytes = poolBytes >= 32 * MiB ? 1 * MiB : 256 * KiB;
  const slabBytes = Math.min(wantedBytes, slabFor(pieceBytes));
  const slabCount = Math.floor(poolBytes / slabBytes);
  const intakeSlabsMax = seedOnly ? 0 : Math.floor((slabCount * 3) / 4);
  const outstandingBytes = Math.max(BLOCK_BYTES, Math.min(TUNING_DEFAULT.outstandingBytesPerSource, poolBytes / 32));
  return {
    slabBytes,
    slabCount,
    intakeSlabsMax,
    readsMax: Math.max(2, Math.floor(slabCount / 4)),
    tuning: {
      ...TUNING_DEFAULT,
      blockBytesMax: Math.max(BLOCK_BYTES, Math.min(blockBytesMax, slabBytes)),
      outstandingBytesPerSource: outstandingBytes,
      uploadSlots: seedOnly ? UPLOAD_SLOTS_SEEDER : TUNING_DEFAULT.uploadSlots,
    },
  };
}

/** The largest useful slab for a piece size: the power of two at or above it. */
function slabFor(pieceBytes: number): number {
  let bytes = BLOCK_BYTES;
  while (bytes < pieceBytes) bytes *= 2;
  return bytes;
}
