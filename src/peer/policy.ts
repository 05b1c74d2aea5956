/**
 * How a peer divides its memory: slabs, requests and reads ahead for a given `--memory`.
 */
import { SLICE_BYTES_MAX } from "../swarm/line.ts";
import { type SwarmTuning, TUNING_DEFAULT, UPLOAD_SLOTS_SEEDER } from "../swarm/policy.ts";
import { BLOCK_BYTES, POOL_BYTES_MIN } from "../limits.ts";
import { KiB, MiB } from "../units.ts";

export interface MemoryPlan {
  readonly slabBytes: number;
  readonly slabCount: number;
  /** For packed blocks, behind the slabs; 0: nothing is packed, and none is taken. */
  readonly packedBytes: number;
  /** Slabs that receiving may hold; the rest is for what is served. */
  readonly intakeSlabsMax: number;
  readonly readsMax: number;
  /** More resident pages of the program than this are given back; null: never. */
  readonly programBytesMax: number | null;
  readonly tuning: SwarmTuning;
}

/**
 * What of the pool is for packed blocks, and how much at most: what a line of a gigabit brings in a seventh of a second,
 * one of 100 Mbit/s in more than a second. What is not found there is packed again, which costs a few milliseconds.
 */
const PACKED_SHARE = 1 / 4;
const PACKED_BYTES_MAX = 16 * MiB;
/** Of `--memory`, what the buffers of connections take (two outboxes and a control buffer each); slabs have the rest. */
const CONNECTIONS_BYTES = 3 * MiB;
/** What a small pool leaves for the runtime's heap, so that a node of `--memory 32M` stays below 96 MB; smaller ones have no slab to spare. */
const RUNTIME_BYTES = 10 * MiB;
const RUNTIME_POOL_BYTES_MIN = 32 * MiB;
/** A pool up to this size is one of a machine with little memory. */
const POOL_BYTES_SMALL = 64 * MiB;
/** What a busy node touches of its program; giving back more often than is needed only costs faults. */
const PROGRAM_BYTES_MAX = 12 * MiB;
/** The compilers of JavaScriptCore bring 10 MB back in one go, so one looks often; a look takes some 30 microseconds. */
export const PROGRAM_LOOK_MS = 20;

/** Slabs of 1 MiB are written in one operation; a small pool has smaller ones so that many sources find room. */
export function planMemory(
  memoryBytes: number,
  pieceBytes: number,
  seedOnly: boolean,
  blockBytesMax: number,
  packs: boolean,
): MemoryPlan {
  const poolBytes = Math.max(POOL_BYTES_MIN, memoryBytes);
  const wantedBytes = poolBytes >= 32 * MiB ? 1 * MiB : 256 * KiB;
  const slabBytes = Math.min(wantedBytes, slabFor(pieceBytes));
  const packedBytes = packs
    ? Math.floor(Math.min(poolBytes * PACKED_SHARE, PACKED_BYTES_MAX) / slabBytes) * slabBytes
    : 0;
  const isSmall = poolBytes <= POOL_BYTES_SMALL;
  const runtimeBytes = isSmall && poolBytes >= RUNTIME_POOL_BYTES_MIN ? RUNTIME_BYTES : 0;
  const slabCount = Math.floor((poolBytes - CONNECTIONS_BYTES - runtimeBytes - packedBytes) / slabBytes);
  const intakeSlabsMax = seedOnly ? 0 : Math.floor((slabCount * 3) / 4);
  const outstandingBytes = Math.max(BLOCK_BYTES, Math.min(TUNING_DEFAULT.outstandingBytesPerSource, poolBytes / 32));
  return {
    slabBytes,
    slabCount,
    packedBytes,
    intakeSlabsMax,
    readsMax: Math.max(2, Math.floor(slabCount / 4)),
    programBytesMax: isSmall ? PROGRAM_BYTES_MAX : null,
    tuning: {
      ...TUNING_DEFAULT,
      packedBlocks: packs,
      blockBytesMax: Math.max(BLOCK_BYTES, Math.min(blockBytesMax, slabBytes)),
      outstandingBytesPerSource: outstandingBytes,
      // Of many short sends the runtime's heap becomes 10 to 25 MB larger (decision 0026): a small machine has long ones.
      sliceBytesMin: isSmall ? SLICE_BYTES_MAX : TUNING_DEFAULT.sliceBytesMin,
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
