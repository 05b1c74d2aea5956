/**
 * What a test opens, it closes: temporary folders, processes, namespaces and loop devices are handed to a
 * scope and given back in reverse order, also when the test failed or ran out of time.
 *
 * Everything made here carries the process id of the test run, so that a run which was killed is swept by
 * the next one (`sweepStale`) and several test files may run at once.
 */
import { test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

type Cleanup = () => void | Promise<void>;

export const NAME_PREFIX = "dstest";

/** Scopes that are open: a test run that is told to end closes them first. */
const open = new Set<Scope>();

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    void Promise.allSettled([...open].map((scope) => scope.close())).then(() => process.kill(process.pid, signal));
  });
}

export class Scope {
  readonly #cleanups: Cleanup[] = [];
  readonly #describers: (() => string)[] = [];

  constructor() {
    open.add(this);
  }

  /** Runs when the scope ends; the last one registered runs first. */
  defer(cleanup: Cleanup): void {
    this.#cleanups.push(cleanup);
  }

  /** Adds text to the message of a failing test, for example the output of a process. */
  explain(describe: () => string): void {
    this.#describers.push(describe);
  }

  explanation(): string {
    return this.#describers
      .map((describe) => describe())
      .filter((text) => text !== "")
      .join("\n");
  }

  /** A new folder on the disk that holds the temporary files. */
  tempDir(): string {
    return this.#dirIn(tmpdir());
  }

  /** A new folder in memory (tmpfs), for images whose speed must not be the disk's. */
  ramDir(): string {
    return this.#dirIn(existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
  }

  #dirIn(parent: string): string {
    sweepStaleDirs(parent);
    const path = mkdtempSync(join(parent, `${NAME_PREFIX}-${process.pid}-`));
    this.defer(() => rmSync(path, { recursive: true, force: true }));
    return path;
  }

  /** Gives everything back. All cleanups run; the first error is thrown at the end. */
  async close(): Promise<void> {
    open.delete(this);
    const errors: unknown[] = [];
    for (let cleanup = this.#cleanups.pop(); cleanup; cleanup = this.#cleanups.pop()) {
      try {
        await cleanup();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}

/** Deadline of a test body unless it names its own: for tests that hang, many times what any takes on an idle machine. */
const BODY_TIMEOUT_MS = 4 * 60_000;
/** Time that giving everything back may take. */
const CLOSE_TIMEOUT_MS = 90_000;

type Body = (scope: Scope) => Promise<void>;

/** A test with a scope of its own. On failure, and after `timeoutMs`, the error carries the output of its processes. */
export function scopedTest(name: string, body: Body, timeoutMs = BODY_TIMEOUT_MS): void {
  // The runner ends processes without asking the scope: its time must never be up first.
  test(name, scoped(body, timeoutMs), timeoutMs + CLOSE_TIMEOUT_MS);
}

function scoped(body: Body, timeoutMs: number): () => Promise<void> {
  return async () => {
    const scope = new Scope();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the test did not end within ${timeoutMs} ms`)), timeoutMs);
    });
    try {
      await Promise.race([body(scope), deadline]);
    } catch (error) {
      const text = scope.explanation();
      if (error instanceof Error && text !== "") error.message += `\n${text}`;
      throw error;
    } finally {
      clearTimeout(timer);
      await scope.close();
    }
  };
}

/** The process id inside a name made by this harness, or null. */
export function ownerOf(name: string): number | null {
  const match = new RegExp(`${NAME_PREFIX}-(\\d+)-`).exec(name);
  return match ? Number(match[1]) : null;
}

/** Was `name` made by a test run that is gone? */
export function isStale(name: string): boolean {
  const owner = ownerOf(name);
  return owner !== null && !existsSync(`/proc/${owner}`);
}

const swept = new Set<string>();

function sweepStaleDirs(parent: string): void {
  if (swept.has(parent)) return;
  swept.add(parent);
  unmountStale();
  for (const name of readdirSync(parent)) {
    if (isStale(name)) rmSync(join(parent, name), { recursive: true, force: true });
  }
}

function unmountStale(): void {
  const folders = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "");
  for (const folder of folders.reverse()) {
    if (isStale(folder) && folder.startsWith(tmpdir())) Bun.spawnSync(["umount", folder]);
  }
}
