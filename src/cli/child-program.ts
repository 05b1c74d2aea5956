/** This same program as a child process, driven as a script would drive it: `--json` events in, exit code out. */
import { fileURLToPath } from "node:url";
import type { Subprocess } from "bun";

export interface ProgramEvent {
  readonly event: string;
  readonly time: string;
  readonly [field: string]: unknown;
}

/** A child that does not stop when it is asked to is ended after this long. */
const STOP_TIMEOUT_MS = 5000;
/** What a child wrote before it ended is read in far less than this. */
const HEARING_TIMEOUT_MS = 1000;

export interface ChildProgramOptions {
  /** Signals of the terminal are not for it: whoever started it decides when it ends. */
  readonly isApart?: boolean;
  /** What it says on standard error is shown. */
  readonly showsErrors?: boolean;
}

export class ChildProgram {
  /** Its last `error` event. */
  problem: string | null = null;
  readonly exited: Promise<number>;
  private readonly child: Subprocess<"ignore", "pipe", "ignore" | "inherit">;

  /** `onEvent` hears each event in order. */
  constructor(words: readonly string[], onEvent: (event: ProgramEvent) => void, options: ChildProgramOptions = {}) {
    this.child = Bun.spawn([...programWords(), ...words, "--json"], {
      stdio: ["ignore", "pipe", options.showsErrors ? "inherit" : "ignore"],
      env: cleanEnvironment(process.env),
      detached: options.isApart ?? false,
    });
    const heard = this.hear(onEvent);
    this.exited = this.child.exited.then(async (code) => {
      // The exit counts when everything that was said before it was heard; the runtime may miss the end of a stream.
      await Promise.race([heard, Bun.sleep(HEARING_TIMEOUT_MS)]);
      return code;
    });
  }

  /** Asks it to stop, and leaves it the time that it needs. */
  interrupt(): void {
    this.child.kill("SIGTERM");
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }

  /** Asks it to stop, and makes it after a while. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await this.child.exited;
    clearTimeout(timer);
  }

  private async hear(onEvent: (event: ProgramEvent) => void): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const event = JSON.parse(line) as ProgramEvent;
        if (event.event === "error") this.problem = String(event.message);
        onEvent(event);
      }
    }
  }
}

/** The words that start this program: the executable itself, or Bun with main.ts. */
function programWords(): string[] {
  if (import.meta.url.includes("/$bunfs/")) return [process.execPath];
  return [process.execPath, fileURLToPath(new URL("../main.ts", import.meta.url))];
}

/** Without the variables that are options: what the user set for this command is not meant for its children. */
function cleanEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith("DISKSWARM_")));
}
