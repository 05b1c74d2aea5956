/**
 * Virtual time: events in order of time, ties in order of scheduling.
 *
 * Time goes in ticks of 1/1024 ms, so that a wheel of lists serves as the queue: scheduling and running an event
 * cost the same whatever their number, and a fleet of ten thousand has hundreds of millions. What lies further
 * ahead than the wheel waits in a heap. Events are kept in parallel arrays and reused: nothing is allocated for one.
 * An event is never early: its time is rounded up to a tick.
 */
import { assert } from "../../src/errors.ts";

/** What an event is for: called with the code that it was scheduled with. */
export interface Timed {
  fire(code: number): void;
}

/** A power of two, so that times are exact numbers of ticks. */
export const TICKS_PER_MS = 1024;
/** Half a second ahead: the swarm's ticks of 250 ms stay out of the heap. */
const WHEEL_TICKS = 1 << 19;
const WHEEL_MASK = WHEEL_TICKS - 1;
/** The heap is looked through each time the wheel turned by a part of itself. */
const HEAP_EVERY_TICKS = WHEEL_TICKS >> 3;

interface Far {
  readonly tick: number;
  readonly order: number;
  readonly target: Timed | (() => void);
  readonly code: number;
}

export class SimClock {
  nowMs = 0;
  /** Events run so far. */
  ran = 0;
  private nowTick = 0;
  /** First and last event of each tick of the wheel, or -1; a bit per tick that has one. */
  private readonly first = new Int32Array(WHEEL_TICKS).fill(-1);
  private readonly last = new Int32Array(WHEEL_TICKS);
  private readonly used = new Int32Array(WHEEL_TICKS >> 5);
  /** Events by index: the next of the same tick (or of the free ones), whom to call, and with what. */
  private next = new Int32Array(1024);
  private codes = new Int32Array(1024);
  private readonly targets: (Timed | (() => void) | null)[] = [];
  private free = -1;
  private inWheel = 0;
  private readonly heap: Far[] = [];
  private heapDueTick = 0;
  private order = 0;

  /** Calls `target.fire(code)` at a time; one that is over means now, after everything scheduled for now. */
  schedule(atMs: number, target: Timed | (() => void), code: number): void {
    const tick = Math.max(this.nowTick, Math.ceil(atMs * TICKS_PER_MS));
    if (tick - this.nowTick < WHEEL_TICKS) this.put(tick, target, code);
    else this.pushHeap({ tick, order: this.order++, target, code });
  }

  at(atMs: number, run: () => void): void {
    this.schedule(atMs, run, 0);
  }

  after(delayMs: number, run: () => void): void {
    this.schedule(this.nowMs + delayMs, run, 0);
  }

  /** Runs the next event; false where there is none. */
  step(): boolean {
    let event = this.first[this.nowTick & WHEEL_MASK];
    if (event < 0) {
      if (!this.advance()) return false;
      event = this.first[this.nowTick & WHEEL_MASK];
    }
    const at = this.nowTick & WHEEL_MASK;
    const following = this.next[event];
    this.first[at] = following;
    if (following < 0) this.used[at >> 5] &= ~(1 << (at & 31));
    const target = this.targets[event]!;
    const code = this.codes[event];
    this.targets[event] = null;
    this.next[event] = this.free;
    this.free = event;
    this.inWheel--;
    this.ran++;
    if (typeof target === "function") target();
    else target.fire(code);
    return true;
  }

  /** Goes to the next tick that has an event. */
  private advance(): boolean {
    for (;;) {
      if (this.heap.length > 0 && (this.inWheel === 0 || this.nowTick >= this.heapDueTick)) this.takeFromHeap();
      if (this.inWheel === 0) {
        if (this.heap.length === 0) return false;
        this.nowTick = this.heap[0].tick;
        continue;
      }
      // Far events enter before the wheel has turned to where they belong.
      const limit = this.heap.length > 0 ? this.heapDueTick : Infinity;
      const tick = this.nextUsed(limit);
      this.nowTick = tick;
      if (tick >= limit) continue;
      this.nowMs = tick / TICKS_PER_MS;
      return true;
    }
  }

  /** The first tick from now on that has an event, or `limit` where none is before it. */
  private nextUsed(limit: number): number {
    let tick = this.nowTick;
    let bits = this.used[(tick & WHEEL_MASK) >> 5] & (-1 << (tick & 31));
    while (bits === 0) {
      tick += 32 - (tick & 31);
      if (tick >= limit) return limit;
      bits = this.used[(tick & WHEEL_MASK) >> 5];
    }
    return Math.min(limit, tick - (tick & 31) + (31 - Math.clz32(bits & -bits)));
  }

  private put(tick: number, target: Timed | (() => void), code: number): void {
    const event = this.free >= 0 ? this.free : this.newEvent();
    this.free = this.next[event];
    this.next[event] = -1;
    this.targets[event] = target;
    this.codes[event] = code;
    const at = tick & WHEEL_MASK;
    if (this.first[at] < 0) {
      this.first[at] = event;
      this.used[at >> 5] |= 1 << (at & 31);
    } else this.next[this.last[at]] = event;
    this.last[at] = event;
    this.inWheel++;
  }

  private newEvent(): number {
    const event = this.targets.push(null) - 1;
    if (event === this.next.length) {
      this.next = grown(this.next);
      this.codes = grown(this.codes);
    }
    this.next[event] = -1;
    return event;
  }

  private takeFromHeap(): void {
    while (this.heap.length > 0 && this.heap[0].tick - this.nowTick < WHEEL_TICKS) {
      const far = this.popHeap();
      assert(far.tick >= this.nowTick, "an event is not forgotten");
      this.put(far.tick, far.target, far.code);
    }
    this.heapDueTick = this.nowTick + HEAP_EVERY_TICKS;
  }

  private pushHeap(far: Far): void {
    const heap = this.heap;
    let at = heap.push(far) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(far, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = far;
  }

  private popHeap(): Far {
    const heap = this.heap;
    const top = heap[0];
    const moved = heap.pop()!;
    if (heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], moved)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = moved;
    return top;
  }
}

function isBefore(a: Far, b: Far): boolean {
  return a.tick < b.tick || (a.tick === b.tick && a.order < b.order);
}

function grown(values: Int32Array): Int32Array<ArrayBuffer> {
  const bigger = new Int32Array(values.length * 2);
  bigger.set(values);
  return bigger;
}
