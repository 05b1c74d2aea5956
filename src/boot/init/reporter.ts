/**
 * Tells the server how this node is doing. A help, never a condition: what cannot be told is dropped, and nothing
 * waits for it but the last words before the machine goes away.
 *
 * One request is in flight at most. Progress is told as often as the server asks for, and only the newest; what
 * ends or changes something is kept until it was taken, or was tried a few times.
 */
import { pause } from "../../pause.ts";
import { VERSION } from "../../version.ts";
import { formatNodeReport, type NodeReport } from "./node-report.ts";

const TIMEOUT_MS = 5_000;
const TRIES_MAX = 5;
const RETRY_MS = 2_000;
/** Reports that wait: a node has about ten things to say. */
const WAITING_MAX = 16;
const INTERVAL_DEFAULT_S = 5;

export class Reporter {
  #server: string | null = null;
  #waiting: NodeReport[] = [];
  #progressMs = Number.NEGATIVE_INFINITY;
  #intervalMs = INTERVAL_DEFAULT_S * 1000;
  #sending: Promise<void> | null = null;

  constructor(
    private readonly id: string,
    private readonly signal: AbortSignal,
    /** What a server cannot be told is for who debugs. */
    private readonly debug: (line: string) => void,
  ) {}

  /** Origin of the server; what was said before is sent to it now. */
  set server(origin: string | null) {
    this.#server = origin;
    this.#start();
  }

  tell(report: NodeReport): void {
    if (report.phase === "progress") {
      const nowMs = performance.now();
      if (nowMs - this.#progressMs < this.#intervalMs) return;
      this.#progressMs = nowMs;
      this.#waiting = this.#waiting.filter(({ phase }) => phase !== "progress");
    }
    this.#waiting.push(report);
    if (this.#waiting.length > WAITING_MAX) this.#waiting.shift();
    this.#start();
  }

  /** Waits until all was told, at most that long. */
  async flush(timeoutMs: number): Promise<void> {
    this.#start();
    if (this.#sending !== null) await Promise.race([this.#sending, pause(timeoutMs, this.signal)]);
  }

  #start(): void {
    if (this.#sending !== null || this.#server === null || this.#waiting.length === 0) return;
    this.#sending = this.#sendAll().finally(() => {
      this.#sending = null;
    });
  }

  async #sendAll(): Promise<void> {
    for (let tries = 1; this.#waiting.length > 0 && !this.signal.aborted; ) {
      const report = this.#waiting[0]!;
      const problem = await this.#send(report);
      if (problem === null || tries >= TRIES_MAX || report.phase === "progress") {
        this.#waiting = this.#waiting.filter((one) => one !== report);
        tries = 1;
      } else {
        tries++;
        await pause(RETRY_MS, this.signal);
      }
      if (problem !== null) this.debug(`cannot report "${report.phase}" to ${this.#server}: ${problem}`);
    }
  }

  /** Sends one report. Returns what went wrong, or null. */
  async #send(report: NodeReport): Promise<string | null> {
    try {
      const response = await fetch(`${this.#server}/v1/nodes/${encodeURIComponent(this.id)}/events`, {
        method: "POST",
        headers: { "User-Agent": `diskswarm/${VERSION}`, "Content-Type": "application/json" },
        body: formatNodeReport(report),
        signal: AbortSignal.timeout(TIMEOUT_MS),
        redirect: "error",
      });
      const text = (await response.text()).slice(0, 1000);
      if (!response.ok) return `the server answered ${response.status}`;
      const seconds = Number(/"nextSeconds":\s*(\d{1,4})\b/.exec(text)?.[1] ?? INTERVAL_DEFAULT_S);
      this.#intervalMs = Math.max(1, seconds) * 1000;
      return null;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }
}
