/**
 * Other people's programs one behind the other, joined by pipes of the kernel: what an image holds streams through
 * them and never through this process. Each one's exit status and words are kept, so that a failure names the program
 * that met it and not the one that ran dry because of it.
 */
import { closeSync, constants, openSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert } from "../../errors.ts";
import { heardOfSignals, missingTool, ScratchFile, type Tool, type ToolRun } from "../external-tool.ts";
import { Interrupted } from "../work-thread.ts";

export interface Stage {
  readonly tool: Tool;
  readonly args: readonly string[];
}

export interface StageRun extends ToolRun {
  readonly tool: Tool;
  /** It wrote to a program that had what it wanted and had ended. */
  readonly isCutShort: boolean;
}

/** Descriptors of the caller: what the first program reads (null: nothing) and where the last one writes (null: nowhere). */
export interface PipelineEnds {
  readonly stdin: number | null;
  readonly stdout: number | null;
}

const MKFIFO: Tool = { program: "mkfifo", package: "coreutils", isNeeded: true };
let pipes = 0;

/**
 * Runs them all to their end. Throws Failure where one is not installed, before any was started, and Interrupted when
 * `signal` aborts, after all of them were ended.
 */
export async function runPipeline(
  stages: readonly Stage[],
  ends: PipelineEnds,
  signal: AbortSignal,
): Promise<StageRun[]> {
  const paths = stages.map(({ tool }) => pathOf(tool));
  const errors = stages.map(() => new ScratchFile());
  try {
    const children = startAll(stages, paths, errors, ends);
    const end = () => {
      for (const child of children) child.kill();
    };
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
    await Promise.all(children.map((child) => child.exited));
    signal.removeEventListener("abort", end);
    if (children.some(({ exitCode }) => exitCode !== 0)) await heardOfSignals();
    if (signal.aborted) throw new Interrupted("stopped");
    return children.map(({ exitCode, signalCode }, i) => {
      const stderr = errors[i].text();
      // Where SIGPIPE is ignored, as services have it, the program says so itself.
      const isCutShort = signalCode === "SIGPIPE" || (exitCode !== 0 && /broken pipe/i.test(stderr));
      return { tool: stages[i].tool, exitCode: exitCode ?? 128, isCutShort, stderr };
    });
  } finally {
    for (const error of errors) error.close();
  }
}

/** The first program that failed by itself, or null. One that was cut short failed only where the one behind it did not. */
export function failedStage(runs: readonly StageRun[]): StageRun | null {
  const failed = runs.filter(({ exitCode }) => exitCode !== 0);
  return failed.find(({ isCutShort }) => !isCutShort) ?? failed[0] ?? null;
}

function startAll(
  stages: readonly Stage[],
  paths: readonly string[],
  errors: readonly ScratchFile[],
  ends: PipelineEnds,
): Bun.Subprocess[] {
  const children: Bun.Subprocess[] = [];
  const env = { ...process.env, LC_ALL: "C", LANGUAGE: "" };
  let input: number | null = ends.stdin;
  try {
    for (const [i, { args }] of stages.entries()) {
      const pipe = i < stages.length - 1 ? openPipe() : null;
      const output = pipe === null ? ends.stdout : pipe.writeFd;
      children.push(
        Bun.spawn([paths[i], ...args], { stdio: [input ?? "ignore", output ?? "ignore", errors[i].fd], env }),
      );
      if (pipe !== null) closeSync(pipe.writeFd);
      if (input !== null && input !== ends.stdin) closeSync(input);
      input = pipe?.readFd ?? null;
    }
    return children;
  } catch (error) {
    for (const child of children) child.kill();
    throw error;
  }
}

/** A pipe whose ends no other program inherits: a FIFO without a name. */
function openPipe(): { readFd: number; writeFd: number } {
  const path = join(tmpdir(), `.diskswarm-${process.pid}-${pipes++}.fifo`);
  const made = Bun.spawnSync([pathOf(MKFIFO), "-m", "600", path]);
  assert(made.exitCode === 0, `mkfifo: ${made.stderr.toString().trim()}`);
  try {
    // Opened without waiting first, so that the writing end finds a reader, and again for a reader that does wait.
    const firstFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writeFd = openSync(path, constants.O_WRONLY);
    const readFd = openSync(path, constants.O_RDONLY);
    closeSync(firstFd);
    return { readFd, writeFd };
  } finally {
    unlinkSync(path);
  }
}

function pathOf(tool: Tool): string {
  const path = Bun.which(tool.program);
  if (path === null) throw missingTool(tool);
  return path;
}
