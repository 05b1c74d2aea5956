/** Virtual time: events in order of time, ties in order of scheduling. One binary heap, no allocation but the events. */

interface Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class SimClock {
  nowMs = 0;
  /** Events run so far. */
  ran = 0;
  private readonly heap: Scheduled[] = [];
  private order = 0;

  at(atMs: number, run: () => void): void {
    this.heap.push({ atMs: Math.max(atMs, this.nowMs), order: this.order++, run });
    this.up(this.heap.length - 1);
  }

  after(delayMs: number, run: () => void): void {
    this.at(this.nowMs + delayMs, run);
  }

  /** Runs the next event; false where there is none. */
  step(): boolean {
    const next = this.heap[0];
    if (next === undefined) return false;
    const last = this.heap.pop()!;
    if (this.heap.length > 0) {
      this.heap[0] = last;
      this.down(0);
    }
    this.nowMs = next.atMs;
    this.ran++;
    next.run();
    return true;
  }

  private before(a: number, b: number): boolean {
    const first = this.heap[a];
    const second = this.heap[b];
    return first.atMs < second.atMs || (first.atMs === second.atMs && first.order < second.order);
  }

  private up(at: number): void {
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.before(at, parent)) return;
      this.swap(at, parent);
      at = parent;
    }
  }

  private down(at: number): void {
    for (;;) {
      let least = at;
      for (let child = 2 * at + 1; child <= 2 * at + 2; child++) {
        if (child < this.heap.length && this.before(child, least)) least = child;
      }
      if (least === at) return;
      this.swap(at, least);
      at = least;
    }
  }

  private swap(a: number, b: number): void {
    const value = this.heap[a];
    this.heap[a] = this.heap[b];
    this.heap[b] = value;
  }
}
