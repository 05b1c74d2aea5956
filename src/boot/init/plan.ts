/**
 * The plan: what a server says a node shall do (`GET /v1/plan`, docs/PROTOCOL.md). Read strictly: a key that is not
 * known, a value of another type or a length out of bounds refuses the plan, because what was not understood might
 * have been what kept a disk from being overwritten. Pure.
 */
import { PLAN_BYTES_MAX } from "../../limits.ts";
import { AFTER_ACTIONS, type AfterAction } from "./command-line.ts";
import { parseTargetRule, type TargetRule } from "./target-rule.ts";

export interface Plan {
  /** http(s) URL or magnet link. */
  readonly torrent: string;
  /** Null: the server leaves it to the node. */
  readonly target: TargetRule | null;
  readonly after: AfterAction | null;
  /** Options of the deployment by name, such as `memory` to `32M`. */
  readonly options: Readonly<Record<string, string>>;
}

/** As it goes over the wire. */
export interface PlanMessage {
  readonly version: 1;
  readonly torrent: string;
  readonly target?: string;
  readonly after?: AfterAction;
  readonly options?: Readonly<Record<string, string>>;
}

const KEYS = ["version", "torrent", "target", "after", "options"];
const OPTIONS_MAX = 64;
const OPTION_LENGTH_MAX = 1000;
const URL_LENGTH_MAX = 8192;

/** Reads a plan. Returns a line that says what is wrong where it is none. */
export function parsePlan(bytes: Uint8Array): Plan | string {
  if (bytes.length > PLAN_BYTES_MAX) return `it has ${bytes.length} bytes, and ${PLAN_BYTES_MAX} are the most`;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return "it is not JSON";
  }
  if (!isObject(value)) return "it is no JSON object";
  const unknown = Object.keys(value).find((key) => !KEYS.includes(key));
  if (value.version !== 1)
    return `its version is ${shown(value.version)} and 1 is known: run the same diskswarm on server and nodes`;
  if (unknown !== undefined) return `it has the key ${shown(unknown)}, which is not known`;
  const { torrent } = value;
  if (typeof torrent !== "string" || torrent.length > URL_LENGTH_MAX || !/^(https?:\/\/|magnet:\?)/i.test(torrent))
    return `its torrent is ${shown(torrent)}, which is no http(s) URL or magnet link`;
  const target = readTarget(value.target);
  if (typeof target === "string") return target;
  const after = value.after === undefined ? null : AFTER_ACTIONS.find((action) => action === value.after);
  if (after === undefined) return `its after is ${shown(value.after)}, which is none of ${AFTER_ACTIONS.join(", ")}`;
  const options = readOptions(value.options);
  if (typeof options === "string") return options;
  return { torrent, target, after, options };
}

function readTarget(value: unknown): TargetRule | null | string {
  if (value === undefined) return null;
  if (typeof value !== "string") return `its target is ${shown(value)}, which is no text`;
  const rule = parseTargetRule(value);
  return typeof rule === "string" ? `its target: ${rule}` : rule;
}

function readOptions(value: unknown): Readonly<Record<string, string>> | string {
  if (value === undefined) return {};
  if (!isObject(value)) return "its options are no JSON object";
  const entries = Object.entries(value);
  if (entries.length > OPTIONS_MAX) return `it has more than ${OPTIONS_MAX} options`;
  const wrong = entries.find(([name, text]) => !/^[a-z][a-z-]{0,40}$/.test(name) || !isText(text));
  if (wrong !== undefined) return `its option ${shown(wrong[0])} is ${shown(wrong[1])}, which is no name and text`;
  return Object.fromEntries(entries as [string, string][]);
}

function isText(value: unknown): boolean {
  return typeof value === "string" && value.length <= OPTION_LENGTH_MAX && !/[\x00-\x1f\x7f]/.test(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value for a line of text: JSON escapes what a console must not see. */
function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "missing";
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
