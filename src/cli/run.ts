/**
 * One run of the program: words in, exit code out. It turns every way in which a command can fail into
 * its line on stderr, its event and its exit code.
 */
import { ExitCode, Failure } from "../errors.ts";
import { BUILD, VERSION } from "../version.ts";
import { COMMON_OPTIONS, type Command } from "./command.ts";
import { commandHelp, programHelp } from "./help.ts";
import { type OptionTable, resolveOptions } from "./options.ts";
import { type LogLevel, Output, type Sink } from "./output.ts";
import { type Invocation, parseCommandLine } from "./parse.ts";
import { watchSignals } from "./signals.ts";

/** What the program has of the world around it. */
export interface Surroundings {
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** Ends the process at once; for the second signal and for bugs outside of any promise. */
  exit(code: ExitCode): never;
}

type Run = Extract<Invocation, { kind: "run" }>;

/** Runs the command that the words name. Never throws. */
export async function runProgram(commands: readonly Command[], around: Surroundings): Promise<ExitCode> {
  let invocation: Invocation;
  try {
    invocation = parseCommandLine(around.words, commands);
  } catch (error) {
    return report(plainOutput(around), error);
  }
  if (invocation.kind === "version") {
    around.stdout.write(`diskswarm ${VERSION} (${BUILD}, ${process.platform}-${process.arch}, Bun ${Bun.version})\n`);
    return ExitCode.done;
  }
  if (invocation.kind === "help") {
    around.stdout.write(`${invocation.command ? commandHelp(invocation.command) : programHelp(commands)}\n`);
    return ExitCode.done;
  }
  return runCommand(invocation, around);
}

async function runCommand({ command, typed, arguments: words }: Run, around: Surroundings): Promise<ExitCode> {
  let output = plainOutput(around);
  try {
    output = makeOutput(around, resolveOptions(COMMON_OPTIONS, typed, around.environment).values);
    const { values, given } = resolveOptions(command.options as OptionTable, typed, around.environment);
    return await runWatched(output, around, (signal) =>
      command.run({ arguments: words, options: values, given, output, signal }),
    );
  } catch (error) {
    return report(output, error);
  }
}

/** Runs the work with signals and stray errors looked after. */
async function runWatched(output: Output, around: Surroundings, work: (signal: AbortSignal) => Promise<ExitCode>) {
  const signals = watchSignals(output, () => around.exit(ExitCode.interrupted));
  // An error outside of the command's own promise is a bug: nothing is known about the state, so the process ends.
  const endOnBug = (error: unknown) => around.exit(report(output, error));
  process.on("uncaughtException", endOnBug);
  process.on("unhandledRejection", endOnBug);
  try {
    return await work(signals.stopped);
  } finally {
    signals.end();
    process.off("uncaughtException", endOnBug);
    process.off("unhandledRejection", endOnBug);
    output.close();
  }
}

/** Tells why the command ended and returns the code to end with. */
function report(output: Output, error: unknown): ExitCode {
  if (error instanceof Failure) {
    output.error(error.code, error.message);
    return error.exitCode;
  }
  const problem = error instanceof Error ? error : new Error(String(error));
  // An error of the operating system names its call and path; anything else is a bug and its stack is wanted.
  if (typeof (problem as NodeJS.ErrnoException).errno === "number") {
    output.error((problem as NodeJS.ErrnoException).code ?? "failed", problem.message);
    return ExitCode.failed;
  }
  output.event("error", { code: "bug", message: problem.message });
  output.trace(problem.stack ?? problem.message);
  return ExitCode.failed;
}

function makeOutput(around: Surroundings, common: { json: boolean; quiet: boolean; logLevel: LogLevel }): Output {
  return new Output(around.stdout, around.stderr, { ...common, color: !around.environment.NO_COLOR });
}

/** For failures before the options are known: a script that asked for events gets its event even so. */
function plainOutput(around: Surroundings): Output {
  const json = around.words.includes("--json") || /^(1|true|yes|on)$/i.test(around.environment.DISKSWARM_JSON ?? "");
  return makeOutput(around, { json, quiet: false, logLevel: "info" });
}
