/**
 * What a command is: a name, its arguments and options as data, and a function that does the work and
 * returns the exit code. A command throws a `Failure` for whatever the user can act on, stops cleanly when
 * `signal` aborts, and never ends the process itself.
 */
import { ExitCode } from "../errors.ts";
import { choice, flag, type OptionTable, type OptionValues } from "./options.ts";
import { LOG_LEVELS, type Output } from "./output.ts";

export interface Context<O extends OptionTable> {
  /** As typed, in order; a variadic argument gives the rest. Their number was checked. */
  readonly arguments: readonly string[];
  readonly options: OptionValues<O>;
  /** Options that the user set himself, on the command line or in the environment. */
  readonly given: ReadonlySet<keyof O>;
  readonly output: Output;
  /** Aborted by the first SIGINT, SIGTERM or SIGHUP: stop cleanly and return `ExitCode.interrupted`. */
  readonly signal: AbortSignal;
}

// biome-ignore lint/suspicious/noExplicitAny: the registry holds commands of every option table.
export interface Command<O extends OptionTable = any> {
  readonly name: string;
  /** `<torrent> <target>`: required in <>, optional in [], the rest as `<...sources>`. */
  readonly arguments: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Further lines of the command's own help. */
  readonly details?: string;
  readonly options: O;
  /** Complete command lines. */
  readonly examples: readonly string[];
  /** Those that this command can end with. */
  readonly exitCodes: readonly ExitCode[];
  run(context: Context<O>): Promise<ExitCode>;
}

/** Gives `run` the types of its own options. */
export function defineCommand<const O extends OptionTable>(command: Command<O>): Command<O> {
  return command;
}

/** Options that every command has. */
export const COMMON_OPTIONS = {
  json: flag("one event per line on stdout, nothing else there"),
  quiet: flag("no progress and no results as text; warnings and errors only"),
  logLevel: choice(LOG_LEVELS, "how much is told on stderr", "info"),
} satisfies OptionTable;

export const EXIT_CODE_TEXTS: Record<ExitCode, string> = {
  [ExitCode.done]: "done and proven",
  [ExitCode.failed]: "failed",
  [ExitCode.usage]: "wrong usage",
  [ExitCode.integrity]: "integrity: a hash or a signature did not match",
  [ExitCode.refused]: "the target was refused before the first write",
  [ExitCode.nothingToFetch]: "nothing to fetch from: no peer, tracker or URL within the time-out",
  [ExitCode.interrupted]: "interrupted",
};
