/**
 * argv to a command, its arguments and the texts of its options. cac does the splitting; what it gets
 * wrong for us is put right here: it turns words that look like numbers into numbers (`007` to 7), lets
 * `--flag=` swallow the next word, and reports unknown options in camel case.
 */
import { type CAC, cac } from "cac";
import { usageError } from "../errors.ts";
import { COMMON_OPTIONS, type Command } from "./command.ts";
import { flagName, type OptionTable } from "./options.ts";

export type Invocation =
  | { readonly kind: "version" }
  | { readonly kind: "help"; readonly command: Command | null }
  | {
      readonly kind: "run";
      readonly command: Command;
      readonly arguments: readonly string[];
      /** Texts by option key, the common options included. */
      readonly typed: ReadonlyMap<string, readonly string[]>;
    };

/** Reads the words after the program's name. Throws a usage failure. */
export function parseCommandLine(words: readonly string[], commands: readonly Command[]): Invocation {
  const parser = buildParser(commands);
  const { args, options } = parser.parse(["", "", ...words.map(guardWord)], { run: false });
  const command = commands.find((one) => one.name === parser.matchedCommandName) ?? null;
  if (options.version === true && !command) return { kind: "version" };
  if (options.help === true) return { kind: "help", command };
  if (!command) {
    if (args.length > 0) throw usageError(`unknown command ${unguard(args[0])} (diskswarm --help lists them)`);
    const stray = Object.keys(options).find((key) => key !== "--");
    if (stray) throw usageError(`${flagName(stray)} needs a command before it means anything (see diskswarm --help)`);
    throw usageError("a command is missing (diskswarm --help lists them)");
  }
  try {
    const all = [...args, ...(options["--"] as string[])].map(unguard);
    checkArguments(all, parser.matchedCommand!.args, command);
    return { kind: "run", command, arguments: all, typed: readTyped(options, command) };
  } catch (error) {
    if (error instanceof Error) error.message += ` (see diskswarm ${command.name} --help)`;
    throw error;
  }
}

function buildParser(commands: readonly Command[]): CAC {
  const parser = cac("diskswarm");
  parser.option("-h, --help", "").option("-v, --version", "");
  declare(parser, COMMON_OPTIONS);
  for (const command of commands)
    declare(parser.command(`${command.name} ${command.arguments}`.trim()), command.options);
  return parser;
}

function declare(target: { option(rawName: string, description: string): unknown }, table: OptionTable): void {
  for (const [key, option] of Object.entries(table)) {
    const names = option.short ? `-${option.short}, ${flagName(key)}` : flagName(key);
    target.option(option.placeholder === null ? names : `${names} <value>`, option.help);
  }
}

/** A control character that nobody types, put before words that cac would turn into numbers. */
const GUARD = "\u0001";

function guardWord(word: string): string {
  const equals = word.startsWith("--") ? word.indexOf("=") : -1;
  if (equals < 0) return looksNumeric(word) ? GUARD + word : word;
  const content = word.slice(equals + 1);
  return looksNumeric(content) ? `${word.slice(0, equals + 1)}${GUARD}${content}` : word;
}

/** The very test that cac's parser makes; the empty text is 0 to it. */
function looksNumeric(word: string): boolean {
  return !word.startsWith("-") && Number.isFinite(Number(word));
}

function unguard(word: unknown): string {
  const text = String(word);
  return text.startsWith(GUARD) ? text.slice(GUARD.length) : text;
}

function checkArguments(
  words: string[],
  declared: { required: boolean; value: string; variadic: boolean }[],
  command: Command,
) {
  const missing = declared.find((argument, index) => argument.required && words.length <= index);
  if (missing) throw usageError(`${command.name} needs <${missing.value}>`);
  if (!declared.some((argument) => argument.variadic) && words.length > declared.length)
    throw usageError(`${command.name} does not know what to do with "${words[declared.length]}"`);
  const empty = words.indexOf("");
  if (empty >= 0) throw usageError(`argument ${empty + 1} of ${command.name} is empty`);
}

function readTyped(options: Record<string, unknown>, command: Command): Map<string, string[]> {
  const typed = new Map<string, string[]>();
  const table: OptionTable = { ...COMMON_OPTIONS, ...command.options };
  for (const [key, found] of Object.entries(options)) {
    if (key === "--") continue;
    const option = Object.hasOwn(table, key) ? table[key] : undefined;
    if (!option) {
      // cac lists a short name beside the long one that it belongs to.
      if (Object.values(table).some((one) => one.short === key)) continue;
      throw usageError(`unknown option ${key.length === 1 ? `-${key}` : flagName(key)} of ${command.name}`);
    }
    const texts = (Array.isArray(found) ? found : [found]).map((one) => readOne(key, option.placeholder !== null, one));
    typed.set(key, texts);
  }
  return typed;
}

function readOne(key: string, takesValue: boolean, found: unknown): string {
  if (takesValue && typeof found === "boolean") throw usageError(`${flagName(key)} needs a value`);
  return unguard(found);
}
