/**
 * Options as data: each command declares a table of them, and from the same table come parsing, the
 * environment variables, the help text and the types of the values.
 *
 * A key of the table is the option's name in camel case: `pieceSize` is `--piece-size` and
 * `DISKSWARM_PIECE_SIZE`. The command line wins over the environment, the environment over the default.
 */
import { usageError } from "../errors.ts";
import { parseDuration, parseSize } from "../units.ts";

export interface Option<T> {
  /** What stands for the value in the help text; null for a switch. */
  readonly placeholder: string | null;
  /** One letter without its dash, or null. */
  readonly short: string | null;
  /** May be given more than once; the environment variable then holds a list parted by commas or blanks. */
  readonly repeated: boolean;
  readonly help: string;
  readonly fallback: T;
  /** How the help text names the default; null where there is nothing to say. */
  readonly fallbackText: string | null;
  /** Reads one value. Returns null where the text is none; `expected` then says what would be. */
  parse(text: string): unknown;
  /** Completes "must be ...". */
  readonly expected: string;
}

// biome-ignore lint/suspicious/noExplicitAny: a table holds options of every type; OptionValues recovers them.
export type OptionTable = Readonly<Record<string, Option<any>>>;
export type OptionValues<O extends OptionTable> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never };

/** A value as written by the user, for custom options. */
interface ValueSpec<T> {
  placeholder: string;
  help: string;
  expected: string;
  parse(text: string): T | null;
  short?: string;
  fallbackText?: string;
}

/** An option with a value of any type. Without a fallback its value is null when it is not given. */
export function value<T>(spec: ValueSpec<T>): Option<T | null>;
export function value<T>(spec: ValueSpec<T>, fallback: T): Option<T>;
export function value<T>(spec: ValueSpec<T>, fallback: T | null = null): Option<T | null> {
  return {
    placeholder: spec.placeholder,
    short: spec.short ?? null,
    repeated: false,
    help: spec.help,
    fallback,
    fallbackText: spec.fallbackText ?? (fallback === null ? null : String(fallback)),
    parse: spec.parse,
    expected: spec.expected,
  };
}

/** `--name`, off unless given. */
export function flag(help: string): Option<boolean> {
  return {
    placeholder: null,
    short: null,
    repeated: false,
    help,
    fallback: false,
    fallbackText: null,
    parse: parseSwitch,
    expected: "1, 0, true, false, yes, no, on or off",
  };
}

/** Any text that is not empty. `short` is a letter such as the `o` of `-o`. */
export function text(placeholder: string, help: string, short?: string): Option<string | null> {
  return value({ placeholder, help, expected: "a text that is not empty", parse: (word) => word || null, short });
}

/** Bytes, as `64M`. */
export function size(help: string): Option<number | null>;
export function size(help: string, fallback: string): Option<number>;
export function size(help: string, fallback?: string): Option<number | null> {
  const spec = { placeholder: "SIZE", help, expected: "a size such as 64M", parse: parseSize, fallbackText: fallback };
  return value(spec, fallback === undefined ? null : parseSize(fallback));
}

/** Milliseconds, as `30s`. */
export function duration(help: string, fallback: string): Option<number> {
  const spec = { placeholder: "TIME", help, expected: "a duration such as 30s, 5m or 1h", parse: parseDuration };
  return value({ ...spec, fallbackText: fallback }, parseDuration(fallback)!);
}

/** A TCP or UDP port; 0 lets the kernel choose one. */
export function port(help: string, fallback: number): Option<number> {
  const parse = (word: string) => (/^\d{1,5}$/.test(word) && Number(word) <= 65535 ? Number(word) : null);
  return value({ placeholder: "PORT", help, expected: "a port from 0 to 65535", parse }, fallback);
}

/** One of a few words. */
export function choice<const T extends string>(words: readonly T[], help: string, fallback: T): Option<T>;
export function choice<const T extends string>(words: readonly T[], help: string): Option<T | null>;
export function choice<const T extends string>(words: readonly T[], help: string, fallback?: T): Option<T | null> {
  const parse = (word: string) => words.find((known) => known === word) ?? null;
  return value({ placeholder: words.join("|"), help, expected: `one of ${words.join(", ")}`, parse }, fallback ?? null);
}

/** An http, https or udp URL of a tracker. */
export function trackerUrl(help: string): Option<string | null> {
  return value({ placeholder: "URL", help, expected: "an http, https or udp URL", parse: parseTrackerUrl });
}

/** The same option, allowed more than once; its value is an array, empty when it is not given. */
export function repeated<T>(one: Option<T>): Option<readonly NonNullable<T>[]> {
  return { ...one, repeated: true, fallback: [], fallbackText: null };
}

function parseSwitch(word: string): boolean | null {
  if (/^(1|true|yes|on)$/i.test(word)) return true;
  if (/^(|0|false|no|off)$/i.test(word)) return false;
  return null;
}

function parseTrackerUrl(word: string): string | null {
  if (!URL.canParse(word)) return null;
  return ["http:", "https:", "udp:"].includes(new URL(word).protocol) ? word : null;
}

/** `pieceSize` to `--piece-size`. */
export function flagName(key: string): string {
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** `pieceSize` to `DISKSWARM_PIECE_SIZE`. */
export function variableName(key: string): string {
  return `DISKSWARM_${flagName(key).slice(2).replaceAll("-", "_").toUpperCase()}`;
}

export interface Resolved<O extends OptionTable> {
  readonly values: OptionValues<O>;
  /** Names that the user set, on the command line or in the environment. */
  readonly given: ReadonlySet<keyof O>;
}

/**
 * Turns what the command line said (texts by option, from `parse.ts`) and the environment into typed values.
 * Throws a usage failure that names the flag or variable, the text and what was expected.
 */
export function resolveOptions<O extends OptionTable>(
  table: O,
  typed: ReadonlyMap<string, readonly string[]>,
  environment: Readonly<Record<string, string | undefined>>,
): Resolved<O> {
  const values: Record<string, unknown> = {};
  const given = new Set<keyof O>();
  for (const [key, option] of Object.entries(table)) {
    const found = typed.has(key)
      ? { origin: flagName(key), texts: typed.get(key)! }
      : fromEnvironment(key, option, environment);
    if (found) given.add(key);
    values[key] = found ? readTexts(option, found.origin, found.texts) : option.fallback;
  }
  return { values: values as OptionValues<O>, given };
}

function fromEnvironment(
  key: string,
  option: Option<unknown>,
  environment: Readonly<Record<string, string | undefined>>,
): { origin: string; texts: readonly string[] } | null {
  const origin = variableName(key);
  const content = environment[origin];
  // An empty variable is how scripts say "not set"; only a switch reads it, as off.
  if (content === undefined || (content === "" && option.placeholder !== null)) return null;
  return { origin, texts: option.repeated ? content.split(/[\s,]+/).filter(Boolean) : [content] };
}

function readTexts(option: Option<unknown>, origin: string, texts: readonly string[]): unknown {
  const values = texts.map((text) => {
    const parsed = option.parse(text);
    if (parsed === null) throw usageError(`${origin} is "${text}" but must be ${option.expected}`);
    return parsed;
  });
  if (option.repeated) return values;
  if (values.length > 1) throw usageError(`${origin} is given ${values.length} times but takes one value`);
  return values[0];
}
