/**
 * The words after a benchmark's name, read with the program's own option tables (`src/cli/options.ts`), so
 * that sizes, durations and help look the same everywhere.
 */
import { ExitCode, Failure, usageError } from "../../../src/errors.ts";
import {
  choice,
  flag,
  flagName,
  type OptionTable,
  type OptionValues,
  resolveOptions,
  value,
} from "../../../src/cli/options.ts";

/** Options that every benchmark has. */
const COMMON = {
  rounds: count("how often each contestant takes its turn; medians are shown", 3),
  json: flag("the figures of every round as one JSON value on standard output instead of a table"),
} satisfies OptionTable;

export interface Benchmark<O extends OptionTable> {
  readonly name: string;
  /** What it measures, in a few lines. */
  readonly summary: string;
  readonly options: O;
}

export type Settings<O extends OptionTable> = OptionValues<O & typeof COMMON>;

/** The settings of a run. Ends the process after `--help`; throws a usage failure for words that mean nothing. */
export function readSettings<const O extends OptionTable>(
  benchmark: Benchmark<O>,
  words: readonly string[],
): Settings<O> {
  const table = { ...benchmark.options, ...COMMON };
  if (words.includes("--help")) {
    console.log(help(benchmark.name, benchmark.summary, table));
    process.exit(0);
  }
  const typed = new Map<string, string[]>();
  const keys = new Map(Object.keys(table).map((key) => [flagName(key), key]));
  for (let i = 0; i < words.length; i++) {
    const [word, attached] = splitAtEquals(words[i]!);
    const key = keys.get(word);
    if (key === undefined) throw usageError(`unknown option ${word} of bench ${benchmark.name} (--help lists them)`);
    const isSwitch = (table as OptionTable)[key]!.placeholder === null;
    const content = isSwitch ? (attached ?? "1") : (attached ?? words[++i]);
    if (content === undefined) throw usageError(`${word} needs a value`);
    typed.set(key, [...(typed.get(key) ?? []), content]);
  }
  return resolveOptions(table, typed, {}).values as Settings<O>;
}

function splitAtEquals(word: string): [string, string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function help(name: string, summary: string, table: OptionTable): string {
  const rows = Object.entries(table).map(([key, option]) => {
    const syntax = option.placeholder === null ? flagName(key) : `${flagName(key)} ${option.placeholder}`;
    const fallback = option.fallbackText === null ? "" : ` (default: ${option.fallbackText})`;
    return [syntax, option.help + fallback] as const;
  });
  const width = Math.max(...rows.map(([syntax]) => syntax.length));
  const lines = rows.map(([syntax, text]) => `  ${syntax.padEnd(width)}  ${text}`);
  return [`npm run bench -- ${name} [options]`, "", summary, "", ...lines].join("\n");
}

/** A whole number of at least one. */
export function count(help: string, fallback: number) {
  const parse = (word: string) => (/^[1-9]\d*$/.test(word) ? Number(word) : null);
  return value({ placeholder: "NUMBER", help, expected: "a whole number above 0", parse }, fallback);
}

/** Several whole numbers, as `1,2,4`. */
export function counts(help: string, fallback: readonly number[]) {
  const parse = (word: string) => (/^[1-9]\d*(,[1-9]\d*)*$/.test(word) ? word.split(",").map(Number) : null);
  const spec = { placeholder: "N,...", help, expected: "whole numbers such as 1,2,4", parse };
  return value({ ...spec, fallbackText: fallback.join(",") }, fallback);
}

/** Some of the known names, as `ours,aria2`; all of `fallback` unless given. */
export function names<const T extends string>(known: readonly T[], help: string, fallback: readonly T[] = known) {
  const parse = (word: string) => {
    const found = word.split(",").map((one) => known.find((name) => name === one));
    return found.every((one) => one !== undefined) ? (found as readonly T[]) : null;
  };
  const spec = { placeholder: "NAME,...", help, expected: `some of ${known.join(",")}`, parse };
  return value({ ...spec, fallbackText: fallback.join(",") }, fallback);
}

/** A part of the whole, as `1%` or `0.01`; 0 to 1. */
export function share(help: string, fallback: number) {
  const parse = (word: string) => {
    const match = /^(\d+(?:\.\d+)?)(%?)$/.exec(word);
    const found = match ? Number(match[1]) / (match[2] === "%" ? 100 : 1) : Number.NaN;
    return found >= 0 && found <= 1 ? found : null;
  };
  const spec = { placeholder: "SHARE", help, expected: "a share such as 1% or 0.01", parse };
  return value({ ...spec, fallbackText: `${fallback * 100}%` }, fallback);
}

export { choice, flag };

/** What a benchmark needs of the machine and does not find. */
export function cannotMeasure(why: string): Failure {
  return new Failure(ExitCode.failed, "bench", why);
}
