/**
 * Does the jobs of a ring: in a hash worker, or in the thread of the owner where there is none.
 *
 * Updates of several contexts are at work side by side, in lanes. A free lane takes the oldest update whose context is in no
 * other one, so that updates of a context stay in order and the oldest job of all always goes on; what is queued behind it is
 * taken for company and never waited for. Digests and packed blocks are done when the search comes upon them. Jobs that are
 * done before an older one wait for it in their slots, since the ring completes them in order.
 */
import type { EventFd } from "../kernel/eventfd.ts";
import type { Address } from "../kernel/reactor.ts";
import type { HashLanes } from "./hash-lanes.ts";
import { type HashRing, JobKind, RING_SLOTS, slotOf } from "./hash-ring.ts";
import type { HashAlgorithm } from "./hasher.ts";
import { LibraryLane } from "./library-lane.ts";
import { MemoryRegion } from "./memory-region.ts";
import { openSha1Lanes } from "./sha1/open.ts";
import { Zstd } from "./zstd.ts";

export interface HashJobsOptions {
  /** The memory that jobs name by offsets. */
  readonly address: Address;
  readonly lengthBytes: number;
  readonly contextsMax: number;
  readonly algorithm: HashAlgorithm;
  /** False: by the runtime's library, one context at a time, also where the processor could do better. */
  readonly sideBySide: boolean;
}

/** Jobs that a search for company looks at: the blocks of 16 KiB of four pieces of 1 MiB. */
const LOOK_AHEAD = 256;

const enum State {
  waiting,
  working,
  done,
}

export class HashJobs {
  readonly #lanes: HashLanes;
  readonly #region: MemoryRegion;
  readonly #zstd = new Zstd();
  /** By slot. */
  readonly #state = new Uint8Array(RING_SLOTS);
  /** The oldest job that is not done. */
  #oldest = 0;

  constructor(
    readonly ring: HashRing,
    { address, lengthBytes, contextsMax, algorithm, sideBySide }: HashJobsOptions,
  ) {
    this.#region = new MemoryRegion(address, lengthBytes);
    const lanes = sideBySide && algorithm === "sha1" ? openSha1Lanes(address, contextsMax) : null;
    this.#lanes = lanes ?? new LibraryLane(algorithm, this.#region);
  }

  /** The cursor of the oldest job that is not done: that of submission where all are. */
  get cursor(): number {
    return this.#oldest;
  }

  /** Works for a while and completes what is done; rings `wake` where the owner sleeps. False: no job is left. */
  work(wake: EventFd): boolean {
    this.#fillLanes();
    if (this.#lanes.active > 0) this.#lanes.work(this.#done);
    this.#complete(wake);
    return this.ring.queued(this.#oldest) > 0;
  }

  free(): void {
    this.#lanes.free();
  }

  readonly #done = (cursor: number): void => {
    this.#state[slotOf(cursor)] = State.done;
  };

  #fillLanes(): void {
    const lanes = this.#lanes;
    const looks = Math.min(this.ring.queued(this.#oldest), LOOK_AHEAD);
    for (let look = 0; look < looks && lanes.active < lanes.lanesMax; look++) {
      const cursor = (this.#oldest + look) | 0;
      const slot = slotOf(cursor);
      if (this.#state[slot] === State.waiting) this.#state[slot] = this.#begin(cursor);
    }
  }

  #begin(cursor: number): State {
    const { ring } = this;
    const kind = ring.kind(cursor);
    if (kind >= JobKind.pack) {
      this.#pack(cursor, kind);
      return State.done;
    }
    const lanes = this.#lanes;
    const context = ring.context(cursor);
    // An older job of it: the search found no lane for that one, or it is in one.
    if (lanes.isBusy(context)) return State.waiting;
    if (ring.begins(cursor)) lanes.begin(context);
    if (kind === JobKind.finish) {
      lanes.digest(context, ring.digest(cursor));
      return State.done;
    }
    const isWorking = lanes.start(cursor, context, ring.offsetBytes(cursor), ring.lengthBytes(cursor));
    return isWorking ? State.working : State.done;
  }

  #pack(cursor: number, kind: JobKind): void {
    const { ring } = this;
    const source = this.#region.view(ring.offsetBytes(cursor), ring.lengthBytes(cursor));
    const target = this.#region.view(ring.targetBytes(cursor), ring.roomBytes(cursor));
    const isPack = kind === JobKind.pack;
    ring.setResult(cursor, isPack ? this.#zstd.pack(source, target) : Number(this.#zstd.unpack(source, target)));
  }

  /** Moves the ring's cursor over what is done. */
  #complete(wake: EventFd): void {
    const before = this.#oldest;
    while (this.#state[slotOf(this.#oldest)] === State.done) {
      this.#state[slotOf(this.#oldest)] = State.waiting;
      this.#oldest = (this.#oldest + 1) | 0;
    }
    if (this.#oldest !== before && this.ring.complete(this.#oldest)) wake.signal();
  }
}
