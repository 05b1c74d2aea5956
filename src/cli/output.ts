/**
 * Everything a command tells: events, the progress line, results and the log. Three readers are served:
 * a program (`--json`: events on stdout, nothing else), a person at a terminal (a line that is redrawn),
 * and a log or serial console (a line every few seconds). Warnings and errors go to stderr as lines.
 */
import { formatBytes, formatDuration, formatRate } from "../units.ts";

export const LOG_LEVELS = ["error", "warning", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly rateBytesPerSecond: number;
  /** Null as long as nothing is known. */
  readonly etaSeconds: number | null;
  readonly peers: number;
  /** What the bytes are counted of, such as `check` or `fetch`; a change is shown at once. */
  readonly phase?: string;
  /** Payload as it crossed the wire so far: less than what it is of where blocks came compressed. */
  readonly bytesReceived?: number;
}

export interface Done {
  readonly bytesTotal: number;
  readonly bytesFetched: number;
  /** What that was on the wire: less where blocks came compressed. */
  readonly bytesReceived: number;
  readonly bytesReused: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** The device's cache was flushed without an error. */
  readonly flushed: boolean;
  /** All of it was read again and hashed after the flush. */
  readonly verified: boolean;
  /** Who sent how much of what was fetched. */
  readonly sources?: readonly { readonly peer: string; readonly bytes: number }[];
}

/** What a complete peer does for others. */
export interface Serving {
  readonly bytesTotal: number;
  readonly bytesUploaded: number;
  /** What that was on the wire. */
  readonly bytesSent: number;
  /** Sent. */
  readonly rateBytesPerSecond: number;
  readonly peers: number;
}

/** Where the lines end up; tests give their own. */
export interface Sink {
  /** Writes all of it. False: nobody reads any more, further text is dropped. */
  write(text: string): boolean;
  readonly isTerminal: boolean;
  /** Width of the terminal in characters, asked anew for each line since it changes. */
  columns(): number;
}

export interface OutputSettings {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly logLevel: LogLevel;
  readonly color: boolean;
}

/** A redrawn line is worth 5 per second, a line in a log one in 5 seconds. */
const REDRAW_INTERVAL_MS = 200;
const LOG_LINE_INTERVAL_MS = 5000;
const JSON_PROGRESS_INTERVAL_MS = 500;

export class Output {
  private closed = false;
  /** Lines of the redrawn status; the cursor stands in the last one. */
  private linesDrawn = 0;
  private nextProgressMs = 0;
  private allIsShown = false;
  private phaseShown: string | undefined;
  private servingShown = "0 0";

  constructor(
    private readonly stdout: Sink,
    private readonly stderr: Sink,
    readonly settings: OutputSettings,
    private readonly now: () => number = Date.now,
  ) {}

  /** One JSON event; nothing in text mode. `fields` may hold anything that JSON can. */
  event(event: string, fields: Readonly<Record<string, unknown>> = {}): void {
    if (!this.settings.json) return;
    this.writeOut(`${JSON.stringify({ event, time: new Date(this.now()).toISOString(), ...fields })}\n`);
  }

  /** A line of results for people, on stdout; nothing with `--json` or `--quiet`. */
  line(text: string): void {
    if (this.settings.json || this.settings.quiet) return;
    this.eraseLine();
    this.writeOut(`${text}\n`);
  }

  /** The work begins: an event, or a line. */
  start(text: string, fields: Readonly<Record<string, unknown>>): void {
    this.event("start", fields);
    this.line(text);
  }

  /** May be called as often as wanted; each kind of reader gets as many as it can use. */
  progress(progress: Progress): void {
    if (this.settings.quiet) return;
    const now = this.now();
    const all = progress.bytesDone >= progress.bytesTotal;
    const isNew = progress.phase !== this.phaseShown || (all && !this.allIsShown);
    if (now < this.nextProgressMs && !isNew) return;
    this.allIsShown = all;
    this.phaseShown = progress.phase;
    this.nextProgressMs = now + this.progressIntervalMs();
    if (this.settings.json) this.event("progress", { ...progress });
    else this.status(progressText(progress));
  }

  /** What a seed does; a progress event with `bytesUploaded`. A log gets a line only when something changed. */
  serving(serving: Serving): void {
    if (this.settings.quiet) return;
    const now = this.now();
    if (now < this.nextProgressMs) return;
    const { bytesTotal, bytesUploaded, bytesSent, rateBytesPerSecond, peers } = serving;
    const state = `${bytesUploaded} ${peers}`;
    if (state === this.servingShown && !this.stdout.isTerminal && !this.settings.json) return;
    this.servingShown = state;
    this.nextProgressMs = now + this.progressIntervalMs();
    const progress = {
      bytesDone: bytesTotal,
      bytesTotal,
      rateBytesPerSecond,
      etaSeconds: null,
      peers,
      phase: "serve",
      bytesUploaded,
      bytesSent,
    };
    if (this.settings.json) this.event("progress", progress);
    else
      this.status(
        `serving  ${formatBytes(bytesUploaded)} sent  ${formatRate(rateBytesPerSecond)}  ${peersText(peers)}`,
      );
  }

  /** Lines about the state of things: redrawn in place on a terminal, ordinary lines elsewhere. The caller sees to the rate. */
  status(...lines: readonly string[]): void {
    if (this.settings.json || this.settings.quiet) return;
    if (!this.stdout.isTerminal) {
      this.writeOut(`${lines.join("\n")}\n`);
      return;
    }
    // The last column stays free: a terminal that wraps there would not go back to the start of the line.
    const width = Math.max(1, this.stdout.columns() - 1);
    const drawn = lines.map((line) => `${line.slice(0, width)}\x1b[K`).join("\n");
    this.writeOut(`\r${this.cursorUp()}${drawn}`);
    this.linesDrawn = lines.length;
  }

  /** How often a status is worth telling, in ms: depends on who reads. */
  get statusIntervalMs(): number {
    return this.progressIntervalMs();
  }

  /** Something is wrong but the work goes on. `code` is a short stable word. */
  warning(code: string, message: string): void {
    this.event("warning", { code, message });
    this.log("warning", message);
  }

  /** Why the command ends: always one line on stderr, and an event. */
  error(code: string, message: string): void {
    this.event("error", { code, message });
    this.log("error", message);
  }

  done(done: Done, what: string): void {
    this.event("done", { ...done });
    const rate = done.seconds > 0 ? `, ${formatRate(done.bytesFetched / done.seconds)}` : "";
    const reused = done.bytesReused > 0 ? `, ${formatBytes(done.bytesReused)} were there already` : "";
    const proof = done.verified ? "flushed and verified" : "flushed";
    this.line(
      `${what}: done and ${proof}, ${formatBytes(done.bytesFetched)} fetched in ` +
        `${secondsText(done.seconds)}${rate}${reused}, peak memory ${formatBytes(done.peakRssBytes)}`,
    );
  }

  /** A line on stderr if the level asks for it. */
  log(level: LogLevel, message: string): void {
    const limit = this.settings.quiet && this.settings.logLevel === "info" ? "warning" : this.settings.logLevel;
    if (LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(limit)) return;
    if (this.settings.json && level === "warning") return;
    this.eraseLine();
    this.stderr.write(`${this.prefix(level)}${message.replaceAll("\n", " ")}\n`);
  }

  /** A text of several lines for a bug report, on stderr. */
  trace(text: string): void {
    this.eraseLine();
    this.stderr.write(`${text}\n`);
  }

  /** Ends a redrawn line so that the shell's prompt starts on its own. */
  close(): void {
    if (this.linesDrawn > 0) this.writeOut("\n");
    this.linesDrawn = 0;
  }

  private progressIntervalMs(): number {
    if (this.settings.json) return JSON_PROGRESS_INTERVAL_MS;
    return this.stdout.isTerminal ? REDRAW_INTERVAL_MS : LOG_LINE_INTERVAL_MS;
  }

  private prefix(level: LogLevel): string {
    const word = level === "error" ? "diskswarm: " : level === "warning" ? "diskswarm: warning: " : "";
    if (!word || !this.settings.color || !this.stderr.isTerminal) return word;
    return `\x1b[${level === "error" ? 31 : 33}m${word}\x1b[0m`;
  }

  private eraseLine(): void {
    if (this.linesDrawn > 0) this.writeOut(`\r${this.cursorUp()}\x1b[${this.linesDrawn > 1 ? "J" : "K"}`);
    this.linesDrawn = 0;
  }

  private cursorUp(): string {
    return this.linesDrawn > 1 ? `\x1b[${this.linesDrawn - 1}A` : "";
  }

  /** A reader that went away (`| head`) does not end a deployment: what is left is not written. */
  private writeOut(text: string): void {
    if (!this.closed) this.closed = !this.stdout.write(text);
  }
}

/** `42.0%  5.2 GiB of 12.4 GiB  112.3 MiB/s  ETA 1:02  12 peers` */
export function progressText(progress: Progress): string {
  if (progress.phase === "metadata") return `asking the swarm what the image is  ${peersText(progress.peers)}`;
  // Rounded down: 100.0% is for all of it.
  const share = progress.bytesTotal > 0 ? Math.floor((progress.bytesDone / progress.bytesTotal) * 1000) / 10 : 100;
  const eta = progress.etaSeconds === null ? "-:--" : formatDuration(progress.etaSeconds * 1000);
  const phase = progress.phase === undefined || progress.phase === "fetch" ? "" : `${progress.phase} `;
  return [
    `${phase}${share.toFixed(1).padStart(5)}%`,
    `${formatBytes(progress.bytesDone)} of ${formatBytes(progress.bytesTotal)}`,
    formatRate(progress.rateBytesPerSecond),
    `ETA ${eta}`,
    peersText(progress.peers),
  ].join("  ");
}

/** `1.6 s`, or `2:05` from a minute on: a small image takes seconds, of which tenths matter. */
export function secondsText(seconds: number): string {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : formatDuration(seconds * 1000);
}

function peersText(peers: number): string {
  return `${peers} ${peers === 1 ? "peer" : "peers"}`;
}
