/** Help texts, made from the same tables that the parser reads. */
import { COMMON_OPTIONS, type Command, EXIT_CODE_TEXTS } from "./command.ts";
import { flagName, type Option, type OptionTable, variableName } from "./options.ts";

/** `diskswarm --help`. */
export function programHelp(commands: readonly Command[]): string {
  const rows = commands.map(
    (command) => [`${command.name} ${argumentsText(command)}`.trim(), command.summary] as const,
  );
  return [
    "diskswarm images a whole room of machines at once: tracker, seeder and a peer that writes",
    "what it receives straight to the raw disk, in one executable.",
    "",
    "Usage: diskswarm <command> [options]",
    "",
    "Commands:",
    ...columns(rows),
    "",
    "Common options:",
    ...columns([
      ...optionRows(COMMON_OPTIONS),
      ["--help", "help, also of one command: diskswarm deploy --help"],
      ["--version", "version and build"],
    ]),
    "",
    "Every option is also read from the environment: --piece-size from DISKSWARM_PIECE_SIZE.",
    "Sizes take K, M and G (1024); durations s, m and h.",
    "Try it out without any disk: diskswarm demo",
  ].join("\n");
}

/** `diskswarm COMMAND --help`. */
export function commandHelp(command: Command): string {
  const lines = [
    `${command.summary.charAt(0).toUpperCase()}${command.summary.slice(1)}.`,
    "",
    `Usage: diskswarm ${command.name} ${argumentsText(command)} [options]`.replace("  ", " "),
  ];
  if (command.details) lines.push("", command.details.trim());
  if (Object.keys(command.options).length > 0) lines.push("", "Options:", ...columns(optionRows(command.options)));
  lines.push("", "Common options:", ...columns(optionRows(COMMON_OPTIONS)));
  const key = Object.keys(command.options)[0] ?? "json";
  lines.push("", `Every option is also read from the environment: ${flagName(key)} from ${variableName(key)}.`);
  lines.push("", "Exit codes:");
  lines.push(...columns(command.exitCodes.map((code) => [String(code), EXIT_CODE_TEXTS[code]] as const)));
  lines.push("", command.examples.length > 1 ? "Examples:" : "Example:");
  lines.push(...command.examples.map((example) => `  ${example}`));
  return lines.join("\n");
}

/** `<...images>`, as the parser wants it, is `<images>...` to everybody else. */
function argumentsText(command: Command): string {
  return command.arguments.replace(/<\.\.\.(\w+)>/, "<$1>...");
}

function optionRows(table: OptionTable): (readonly [string, string])[] {
  return Object.entries(table).map(([key, option]) => [optionSyntax(key, option), optionText(option)] as const);
}

function optionSyntax(key: string, option: Option<unknown>): string {
  const names = option.short ? `-${option.short}, ${flagName(key)}` : flagName(key);
  return option.placeholder === null ? names : `${names} ${option.placeholder}`;
}

function optionText(option: Option<unknown>): string {
  const notes = [];
  if (option.repeated) notes.push("may be repeated");
  if (option.fallbackText !== null) notes.push(`default: ${option.fallbackText}`);
  return notes.length > 0 ? `${option.help} (${notes.join("; ")})` : option.help;
}

const LEFT_COLUMN_MAX = 28;
const HELP_WIDTH = 100;

/** Two columns; a left part that is too long gets a line of its own, the right one is wrapped. */
function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.min(LEFT_COLUMN_MAX, Math.max(0, ...rows.map(([left]) => left.length)));
  const indent = " ".repeat(width + 4);
  return rows.flatMap(([left, right]) => {
    const [first = "", ...rest] = wrap(right, HELP_WIDTH - indent.length);
    const head = left.length > width ? [`  ${left}`, indent + first] : [`  ${left.padEnd(width)}  ${first}`];
    return [...head, ...rest.map((line) => indent + line)];
  });
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  return [...lines, line];
}
