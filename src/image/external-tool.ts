/**
 * Other people's programs that know filesystems and partition tables (partclone, sfdisk, blkid, losetup): run
 * to their end, their words kept, a missing one told with the Debian package that has it.
 *
 * What a program writes goes to files without a name (unlinked as soon as they are open), not through pipes:
 * a used map can be larger than memory should hold, Bun now and then misses the end of a pipe, and a process
 * that is killed leaves nothing behind. They run beside the event loop, so a signal is answered meanwhile.
 */
import { closeSync, openSync, readSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, Failure } from "../errors.ts";
import { KiB, MiB } from "../units.ts";
import { Interrupted } from "./work-thread.ts";

export interface Tool {
  readonly program: string;
  /** The Debian package that has it; other distributions' names are alike. */
  readonly package: string;
  /** No capture of such a source does without it. */
  readonly isNeeded?: boolean;
}

export interface ToolRun {
  /** 128 and more: a signal ended it. */
  readonly exitCode: number;
  readonly stderr: string;
}

export interface ToolText extends ToolRun {
  readonly stdout: string;
}

/** What tools that answer in a few lines may write: 256 partitions as JSON are 80 KiB. */
const TEXT_BYTES_MAX = 1 * MiB;
const CHUNK_BYTES = 256 * KiB;
/** Signals are delivered at once; this is for a busy machine. */
const SIGNALS_MS = 50;

let scratchFiles = 0;

/** A temporary file without a name. Whoever makes it closes it. */
export class ScratchFile {
  readonly fd: number;

  constructor() {
    const path = join(tmpdir(), `.diskswarm-${process.pid}-${scratchFiles++}.tmp`);
    this.fd = openSync(path, "wx+", 0o600);
    unlinkSync(path);
  }

  /** Hands what was written to `visit`, in order; the bytes are valid during the call. */
  read(visit: (bytes: Uint8Array) => void): void {
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (let position = 0; ; ) {
      const length = readSync(this.fd, chunk, 0, chunk.length, position);
      if (length === 0) return;
      visit(chunk.subarray(0, length));
      position += length;
    }
  }

  /** The first `TEXT_BYTES_MAX` bytes. */
  text(): string {
    const bytes = new Uint8Array(TEXT_BYTES_MAX);
    const length = readSync(this.fd, bytes, 0, bytes.length, 0);
    return new TextDecoder().decode(bytes.subarray(0, length));
  }

  close(): void {
    closeSync(this.fd);
  }
}

/**
 * Runs a tool to its end with its standard output in `output`. Throws Failure (exit 1) where it is not
 * installed, and Interrupted when `signal` aborts, after the tool was ended. Without a signal it is not to be
 * ended half-way: it gets a session of its own, which the terminal's Ctrl-C does not reach.
 */
export async function runTool(
  tool: Tool,
  args: readonly string[],
  output: ScratchFile,
  signal: AbortSignal | null,
  input = "",
): Promise<ToolRun> {
  const path = Bun.which(tool.program);
  if (path === null) throw missingTool(tool);
  const errors = new ScratchFile();
  try {
    // Their messages are looked at and shown: in English whatever the user's language is.
    const env = { ...process.env, LC_ALL: "C", LANGUAGE: "" };
    const child = Bun.spawn([path, ...args], {
      stdio: [input === "" ? "ignore" : Buffer.from(input), output.fd, errors.fd],
      env,
      detached: signal === null,
    });
    const end = () => child.kill();
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
    await child.exited;
    signal?.removeEventListener("abort", end);
    if (child.signalCode !== null) await heardOfSignals();
    if (signal?.aborted) throw new Interrupted("stopped");
    return { exitCode: child.exitCode ?? 128, stderr: errors.text() };
  } finally {
    errors.close();
  }
}

/**
 * Ctrl-C at a terminal goes to the tools as well: they may be seen to have failed of it before this process has heard of
 * it. A session of their own spares them, and costs several times the time on a busy machine: the kernel
 * schedules by session (autogroups), which programs joined by pipes suffer from.
 */
export async function heardOfSignals(): Promise<void> {
  await Bun.sleep(SIGNALS_MS);
}

/** The same for a tool that answers in a few lines. */
export async function runToolForText(
  tool: Tool,
  args: readonly string[],
  signal: AbortSignal | null,
  input = "",
): Promise<ToolText> {
  const output = new ScratchFile();
  try {
    const run = await runTool(tool, args, output, signal, input);
    return { ...run, stdout: output.text() };
  } finally {
    output.close();
  }
}

export function missingTool(tool: Tool): Failure {
  return failureOf(tool, "tool-missing", `${tool.program} is not installed: install the package ${tool.package}`);
}

/** Failure where the tool does not know an option that it was given; nothing where it ended for another reason. */
export function throwIfTooOld(tool: Tool, run: ToolRun): void {
  if (!/unrecognized option|invalid option|unknown option/i.test(run.stderr)) return;
  const what = `this ${tool.program} does not know an option that is needed`;
  throw failureOf(tool, "tool-too-old", `${what}: install a newer package ${tool.package}`);
}

function failureOf(tool: Tool, code: string, problem: string): Failure {
  return tool.isNeeded ? new Failure(ExitCode.failed, code, problem) : toolFailure(code, problem);
}

/** A tool is missing or failed. What a capture can always do is to look at no partition and no filesystem. */
export class ToolFailure extends Failure {
  constructor(
    code: string,
    /** Without that advice, for whoever captures nothing. */
    readonly problem: string,
  ) {
    super(ExitCode.failed, code, `${problem}, or capture every byte that is not zero with --extents data`);
  }
}

export function toolFailure(code: string, problem: string): Failure {
  return new ToolFailure(code, problem);
}

/**
 * Why a tool failed: its last line, or the lines from partclone's last error on (`ntfsclone-ng.c: ...`), which may
 * be several; or how it ended. One line, without its progress display.
 */
export function reasonOf(run: ToolRun): string {
  const lines = run.stderr
    .split(/[\r\n]+/)
    .map((line) => line.replace(/[\x00-\x1f\x7f]/g, " ").trim())
    .filter(
      (line) =>
        line !== "" && !/^partclone fail|^total time|^elapsed|^current block|^try '|^dmesg\(1\) may/i.test(line),
    );
  if (lines.length === 0) return `it ended with ${run.exitCode} and without a word`;
  const error = lines.findLastIndex((line) => SOURCE_FILE.test(line));
  const reason = error < 0 ? lines.at(-1)! : lines.slice(error).join(" ").replace(SOURCE_FILE, "");
  return reason.slice(0, REASON_LENGTH_MAX);
}

/** How partclone's errors begin. */
const SOURCE_FILE = /^[\w-]+\.c: /;
const REASON_LENGTH_MAX = 200;
