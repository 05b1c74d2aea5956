/**
 * Processes of a test: started, watched line by line, and ended by process id alone.
 */
import { readFileSync } from "node:fs";
import type { Scope } from "./scope.ts";

export interface SpawnOptions {
  /** Put before the command, for example `["ip", "netns", "exec", name]`. */
  readonly prefix?: readonly string[];
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  /** Looks at the process's memory every few milliseconds, or as often as said; see `Child.peakRssBytes`. */
  readonly watchMemory?: boolean | { readonly everyMs: number };
}

export interface Ended {
  /** The exit status, or 128 + the signal's number as a shell says it. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const MEMORY_SAMPLE_MS = 10;
const OUTPUT_SHOWN_BYTES = 3000;
const TERM_GRACE_MS = 3000;

interface Waiter {
  matches(line: string): boolean;
  resolve(line: string): void;
  reject(error: Error): void;
}

/** What an ended process wrote is in the pipes already; this is far more than reading it takes, on a busy machine too. */
const OUTPUT_GRACE_MS = 5_000;

export class Child {
  readonly #process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #lines: string[] = [];
  readonly #waiters = new Set<Waiter>();
  #stdout = "";
  #stderr = "";
  #peakRssBytes = 0;
  /** Settles when the process has ended and its output was read. */
  readonly ended: Promise<Ended>;
  #end: Ended | null = null;

  constructor(
    scope: Scope,
    readonly argv: readonly string[],
    options: SpawnOptions = {},
  ) {
    this.#process = Bun.spawn([...(options.prefix ?? []), ...argv], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const { watchMemory = false } = options;
    const everyMs = typeof watchMemory === "object" ? watchMemory.everyMs : MEMORY_SAMPLE_MS;
    const sampler = watchMemory ? setInterval(() => this.#sampleMemory(), everyMs) : undefined;
    this.ended = this.#collect().finally(() => clearInterval(sampler));
    scope.defer(() => this.stop());
    scope.explain(() => this.describe());
  }

  get pid(): number {
    return this.#process.pid;
  }

  get running(): boolean {
    return this.#end === null;
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Most resident memory seen (VmHWM, which only grows), in bytes; needs `watchMemory`. */
  get peakRssBytes(): number {
    return this.#peakRssBytes;
  }

  /** User plus system time in seconds; known once the process has ended. */
  get cpuSeconds(): number {
    const usage = this.#process.resourceUsage();
    if (!usage) throw new Error(`${this.argv[0]} has not ended: its CPU time is not known`);
    return Number(usage.cpuTime.total) / 1e6;
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.running) return;
    this.#sampleMemory();
    process.kill(this.pid, signal);
  }

  /** kill -9, and waits until the process is gone. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended;
  }

  /** Asks the process to end, then makes it. */
  async stop(): Promise<void> {
    if (!this.running) return;
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), TERM_GRACE_MS);
    await this.ended;
    clearTimeout(timer);
  }

  /** The first line of either stream that matches, past or to come. Fails when the process ends without it. */
  waitForLine(pattern: RegExp | ((line: string) => boolean)): Promise<string> {
    const matches = pattern instanceof RegExp ? (line: string) => pattern.test(line) : pattern;
    const found = this.#lines.find(matches);
    if (found !== undefined) return Promise.resolve(found);
    if (!this.running) return Promise.reject(this.#missing(pattern));
    return new Promise((resolve, reject) => {
      this.#waiters.add({ matches, resolve, reject: () => reject(this.#missing(pattern)) });
    });
  }

  describe(): string {
    const state = this.#end ? `ended with ${this.#end.exitCode}` : `running as ${this.pid}`;
    const tail = (text: string) => text.slice(-OUTPUT_SHOWN_BYTES).trimEnd();
    return `--- ${this.argv.join(" ")} (${state})\n${tail(this.#stdout)}\n${tail(this.#stderr)}`.trimEnd();
  }

  #missing(pattern: unknown): Error {
    return new Error(`${this.argv[0]} ended without the awaited line ${pattern}`);
  }

  async #collect(): Promise<Ended> {
    const read = Promise.all([
      this.#read(this.#process.stdout, (text) => {
        this.#stdout += text;
      }),
      this.#read(this.#process.stderr, (text) => {
        this.#stderr += text;
      }),
    ]);
    await this.#process.exited;
    // Bun 1.4.5 now and then misses the end of one of the streams when a process ends at once.
    await Promise.race([read, Bun.sleep(OUTPUT_GRACE_MS)]);
    const { exitCode, signalCode } = this.#process;
    const code = exitCode ?? 128 + (SIGNAL_NUMBERS[signalCode ?? ""] ?? 0);
    this.#end = { exitCode: code, stdout: this.#stdout, stderr: this.#stderr };
    for (const waiter of this.#waiters) waiter.reject(new Error());
    this.#waiters.clear();
    return this.#end;
  }

  async #read(stream: ReadableStream<Uint8Array>, keep: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const bytes of stream) {
      const text = decoder.decode(bytes, { stream: true });
      keep(text);
      // Progress displays separate their lines by carriage returns.
      const lines = (rest + text).split(/[\r\n]+/);
      rest = lines.pop()!;
      for (const line of lines) this.#line(line);
    }
    if (rest !== "") this.#line(rest);
  }

  #line(line: string): void {
    this.#lines.push(line);
    for (const waiter of this.#waiters) {
      if (!waiter.matches(line)) continue;
      this.#waiters.delete(waiter);
      waiter.resolve(line);
    }
  }

  #sampleMemory(): void {
    this.#peakRssBytes = Math.max(this.#peakRssBytes, peakRssBytesOf(this.pid));
  }
}

const SIGNAL_NUMBERS: Record<string, number> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

/** VmHWM of a process in bytes (proc_pid_status(5)); 0 once it is gone. */
export function peakRssBytesOf(pid: number): number {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readOfProcess(pid, "status"));
  return match ? Number(match[1]) * 1024 : 0;
}

/** The words of a process, with NUL behind each; nothing once it is gone. */
export function commandLineOf(pid: number | string): string {
  return readOfProcess(pid, "cmdline");
}

/** A file of /proc/PID; it may end between any two looks at it. */
function readOfProcess(pid: number | string, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, "latin1");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return "";
    throw error;
  }
}

/** Runs a command to its end and returns its standard output; any other exit status than 0 is an error. */
export function run(argv: readonly string[], prefix: readonly string[] = []): string {
  const result = Bun.spawnSync([...prefix, ...argv], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  if (result.exitCode !== 0) {
    throw new Error(`${argv.join(" ")} ended with ${result.exitCode}: ${result.stderr.toString().trim()}`);
  }
  return result.stdout.toString();
}

/** Polls until `check` is true; a condition of another process has no event to wait for. */
export async function until(what: string, check: () => boolean | Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!(await check())) {
    if (Date.now() > endMs) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    await Bun.sleep(20);
  }
}
