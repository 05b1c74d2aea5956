/**
 * `GET /v1/events`: what the fleet does, as server-sent events, to whoever watches. A watcher that does not read is
 * let go instead of being remembered for; it comes back by itself (EventSource does) and asks `/v1/nodes` what it missed.
 */
import { EVENT_WATCHERS_MAX, EVENTS_WAITING_MAX } from "../limits.ts";
import type { FleetEvent } from "./fleet.ts";

/** A comment this often keeps the connection from being taken for a dead one. */
const KEEP_ALIVE_MS = 5_000;

type Controller = ReadableStreamDefaultController<Uint8Array>;

export class EventStream {
  readonly #watchers = new Set<Controller>();
  readonly #encoder = new TextEncoder();
  #timer: Timer | undefined;

  /** A new watcher's response; null where there are too many. */
  open(sequence: number): Response | null {
    if (this.#watchers.size >= EVENT_WATCHERS_MAX) return null;
    let own: Controller;
    const stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          own = controller;
          this.#watchers.add(controller);
          this.#timer ??= setInterval(() => this.#write(": still here\n\n"), KEEP_ALIVE_MS);
          controller.enqueue(this.#encoder.encode(`: events after ${sequence}\n\n`));
        },
        cancel: () => this.#drop(own),
      },
      { highWaterMark: EVENTS_WAITING_MAX },
    );
    const headers = { "Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no" };
    return new Response(stream, { headers });
  }

  send(event: FleetEvent): void {
    const { sequence, timeMs, ...rest } = event;
    const data = JSON.stringify({ ...rest, time: new Date(timeMs).toISOString() });
    this.#write(`id: ${sequence}\ndata: ${data}\n\n`);
  }

  /** Ends all streams. */
  stop(): void {
    for (const watcher of this.#watchers) {
      this.#drop(watcher);
      watcher.close();
    }
  }

  #write(text: string): void {
    if (this.#watchers.size === 0) return;
    const bytes = this.#encoder.encode(text);
    for (const watcher of this.#watchers) {
      if ((watcher.desiredSize ?? 0) > 0) watcher.enqueue(bytes);
      else {
        this.#drop(watcher);
        watcher.error(new Error("the watcher does not read"));
      }
    }
  }

  #drop(watcher: Controller): void {
    this.#watchers.delete(watcher);
    if (this.#watchers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
