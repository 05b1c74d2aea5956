/** Runs commands inside of the test, with sinks that keep what was written. */
import type { Command } from "../../src/cli/command.ts";
import type { Sink } from "../../src/cli/output.ts";
import { runProgram } from "../../src/cli/run.ts";

export class TextSink implements Sink {
  text = "";
  isClosed = false;
  constructor(
    readonly isTerminal = false,
    private readonly width = 80,
  ) {}
  write(text: string): boolean {
    if (!this.isClosed) this.text += text;
    return !this.isClosed;
  }
  columns(): number {
    return this.width;
  }
}

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export async function runWith(
  commands: readonly Command[],
  words: readonly string[],
  environment: Record<string, string> = {},
): Promise<Ran> {
  const stdout = new TextSink();
  const stderr = new TextSink();
  const exit = (code: number): never => {
    throw new Error(`the process would have ended with ${code}`);
  };
  const code = await runProgram(commands, { words, environment, stdout, stderr, exit });
  return { code, out: stdout.text, err: stderr.text };
}
