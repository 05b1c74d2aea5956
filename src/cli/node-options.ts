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

export interface NodeValues {
  readonly values: DeployValues;
  readonly portWasGiven: boolean;
}

/** Reads options by name. Throws a usage failure that names the one that is unknown or wrong; `origin` says where it stands. */
export function nodeValues(options: Readonly<Record<string, string>>, origin: string): NodeValues {
  const typed = new Map<string, string[]>();
  for (const [name, text] of Object.entries({ ...NODE_DEFAULTS, ...options })) {
    if (!NODE_OPTION_NAMES.includes(name))
      throw usageError(
        `${origin} has the option ${name}, which is not known; known are ${NODE_OPTION_NAMES.join(", ")}`,
      );
    const key = name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    const { repeated } = DEPLOY_OPTIONS[key as keyof DeployValues];
    typed.set(key, repeated ? text.split(/[\s,]+/).filter(Boolean) : [text]);
  }
  try {
    const { values, given } = resolveOptions(DEPLOY_OPTIONS, typed, {});
    return { values, portWasGiven: given.has("port") };
  } catch (error) {
    if (error instanceof Failure) throw usageError(`${origin}: ${error.message}`);
    throw error;
  }
}
