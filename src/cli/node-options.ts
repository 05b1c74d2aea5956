/**
 * What a node's deployment can be told by the kernel command line and by a plan: the options of `deploy`, by their
 * names and read by the same table, so that each of them is there without being written down again.
 */
import { Failure, usageError } from "../errors.ts";
import { DEPLOY_OPTIONS, type DeployValues } from "./deploy.ts";
import { flagName, resolveOptions } from "./options.ts";

/** What makes no sense on a node: its target is a disk, and found by a rule. */
const NOT_FOR_NODES: readonly string[] = ["force"];

/** Names such as `block-size`. */
export const NODE_OPTION_NAMES: readonly string[] = Object.keys(DEPLOY_OPTIONS)
  .filter((key) => !NOT_FOR_NODES.includes(key))
  .map((key) => flagName(key).slice(2));

/** A node serves the others until they are done; what it waits for is bounded by whoever runs it. */
const NODE_DEFAULTS: Readonly<Record<string, string>> = { linger: "swarm" };

/**
 * Options by name as words of a command line. Throws a usage failure that names the one that is unknown or wrong;
 * `origin` says where it stands.
 */
export function nodeOptionWords(options: Readonly<Record<string, string>>, origin: string): string[] {
  const typed = new Map<string, string[]>();
  const words: string[] = [];
  for (const [name, text] of Object.entries({ ...NODE_DEFAULTS, ...options })) {
    if (!NODE_OPTION_NAMES.includes(name))
      throw usageError(
        `${origin} has the option ${name}, which is not known; known are ${NODE_OPTION_NAMES.join(", ")}`,
      );
    const key = name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const { repeated, placeholder, parse } = DEPLOY_OPTIONS[key as keyof DeployValues];
    const texts = repeated ? text.split(/[\s,]+/).filter(Boolean) : [text];
    typed.set(key, texts);
    if (placeholder !== null) words.push(...texts.map((one) => `--${name}=${one}`));
    else if (parse(text) === true) words.push(`--${name}`);
  }
  try {
    resolveOptions(DEPLOY_OPTIONS, typed, {});
  } catch (error) {
    if (error instanceof Failure) throw usageError(`${origin}: ${error.message}`);
    throw error;
  }
  return words;
}
