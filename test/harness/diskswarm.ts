/**
 * The program under test, driven through its command line alone: `--json` events in, exit status out.
 *
 * `DISKSWARM_BINARY` names a built executable to test; without it the source is run by this Bun.
 */
import { join } from "node:path";
import { Child, type Ended, type SpawnOptions } from "./process.ts";
import type { Machine } from "./network.ts";
import type { Scope } from "./scope.ts";
import { PYTHON } from "./tools.ts";

export const REPOSITORY = join(import.meta.dir, "..", "..");

/** The words that start the program. */
export function programArgv(): string[] {
  const binary = process.env.DISKSWARM_BINARY;
  return binary ? [binary] : [process.execPath, join(REPOSITORY, "src", "main.ts")];
}

export interface Event {
  readonly event: "start" | "progress" | "warning" | "error" | "done" | (string & {});
  readonly time: string;
  readonly [field: string]: unknown;
}

export interface DoneEvent extends Event {
  readonly bytesTotal: number;
  readonly bytesFetched: number;
  readonly bytesReused: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly flushed: boolean;
  readonly verified: boolean;
}

export interface RunOptions extends SpawnOptions {
  readonly machine?: Machine;
  /** A launcher before the program, for example the one that denies io_uring. */
  readonly launcher?: readonly string[];
}

export class Run {
  readonly child: Child;

  constructor(scope: Scope, args: readonly string[], options: RunOptions = {}) {
    const argv = [...(options.launcher ?? []), ...programArgv(), ...args, "--json"];
    const prefix = [...(options.machine?.prefix ?? []), ...(options.prefix ?? [])];
    this.child = new Child(scope, argv, { ...options, prefix });
  }

  /** The events so far. Every line of standard output must be one: anything else breaks the contract. */
  get events(): Event[] {
    return this.child.stdout.split("\n").slice(0, -1).map(parseEvent);
  }

  get ended(): Promise<Ended> {
    return this.child.ended;
  }

  /** The first event of that name for which `accept` holds, past or to come. */
  async event(name: Event["event"], accept: (event: Event) => boolean = () => true): Promise<Event> {
    const line = await this.child.waitForLine((text) => {
      if (!text.startsWith("{")) return false;
      const event = parseEvent(text);
      return event.event === name && accept(event);
    });
    return parseEvent(line);
  }

  async done(): Promise<DoneEvent> {
    return (await this.event("done")) as DoneEvent;
  }

  /** Resolves when the share of bytesTotal that is done reached `share` (0 to 1). */
  async progressed(share: number): Promise<void> {
    await this.event("progress", (event) => Number(event.bytesDone) >= share * Number(event.bytesTotal));
  }

  /** Waits for the end, and for the exit status that the contract promises. */
  async expectExit(exitCode: number): Promise<Ended> {
    const ended = await this.ended;
    if (ended.exitCode !== exitCode) {
      throw new Error(`exit status ${ended.exitCode} where ${exitCode} was expected: ${ended.stderr.trim()}`);
    }
    return ended;
  }
}

function parseEvent(line: string): Event {
  const value: unknown = JSON.parse(line);
  if (typeof value !== "object" || value === null || !("event" in value)) throw new Error(`no event: ${line}`);
  return value as Event;
}

/** Starts the program and leaves it running; the scope ends it. */
export function start(scope: Scope, args: readonly string[], options: RunOptions = {}): Run {
  return new Run(scope, args, options);
}

/** Runs the program to its end, which must be status 0. */
export async function succeed(scope: Scope, args: readonly string[], options: RunOptions = {}): Promise<Run> {
  const run = new Run(scope, args, options);
  await run.expectExit(0);
  return run;
}

/** Runs the program to its end, which must be `exitCode`; its one error line must match. */
export async function fail(
  scope: Scope,
  args: readonly string[],
  exitCode: number,
  message: RegExp,
  options: RunOptions = {},
): Promise<Ended> {
  const ended = await new Run(scope, args, options).expectExit(exitCode);
  if (!message.test(ended.stderr))
    throw new Error(`the error ${JSON.stringify(ended.stderr)} does not match ${message}`);
  return ended;
}

/** `capture` of a source into a new torrent next to it; returns the torrent's path. */
export async function capture(scope: Scope, source: string, torrent: string, ...flags: string[]): Promise<string> {
  await succeed(scope, ["capture", source, "-o", torrent, ...flags]);
  return torrent;
}

export interface Seeder {
  readonly run: Run;
  readonly host: string;
  readonly port: number;
  /** For `--peer`. */
  readonly peer: string;
}

/** `seed` on an address and port; resolves when it has looked at its source and serves. */
export async function seed(
  scope: Scope,
  torrent: string,
  source: string,
  at: { host: string; port: number },
  flags: readonly string[] = [],
  options: RunOptions = {},
): Promise<Seeder> {
  const run = start(
    scope,
    ["seed", torrent, source, "--listen", at.host, "--port", String(at.port), ...flags],
    options,
  );
  await run.event("progress", ({ phase }) => phase === "serve");
  return { run, ...at, peer: `${at.host}:${at.port}` };
}

/** A launcher that denies io_uring with the given errno to the program behind it, as container runtimes do. */
export function denyUring(errno: "EPERM" | "ENOSYS"): string[] {
  return [PYTHON, join(import.meta.dir, "deny-uring.py"), errno];
}
