/**
 * Which disk of a machine is meant: `/dev/sda`, `serial=S3Z8NB0K`, `model=Samsung SSD 8*,size>=200G`, `auto`.
 *
 * Terms are parted by commas and all of them must hold. `auto` says what to do where several disks do: take the
 * smallest. Without it a rule that several disks meet is ambiguous. Pure.
 */
import { formatBytes, parseSize } from "../../units.ts";

export interface TargetRule {
  /** As it was written. */
  readonly text: string;
  /** Path of a disk or partition. */
  readonly path: string | null;
  readonly serial: string | null;
  /** Without its `0x`, `naa.` or `eui.`, in lower case. */
  readonly wwn: string | null;
  /** May hold `*` and `?`. */
  readonly model: string | null;
  readonly sizeMinBytes: number;
  readonly sizeMaxBytes: number;
  /** Of several, the smallest. */
  readonly auto: boolean;
}

const TERMS = "a path such as /dev/sda, serial=, wwn=, model=, size>=, size<= or auto";
/** No rule for a person to read is longer, and a glob of this length costs nothing. */
const RULE_LENGTH_MAX = 300;

/** Reads a rule, or returns a line that says what is wrong with it. */
export function parseTargetRule(text: string): TargetRule | string {
  if (text.length > RULE_LENGTH_MAX) return `a target rule has at most ${RULE_LENGTH_MAX} characters`;
  const rule = {
    text,
    path: null as string | null,
    serial: null as string | null,
    wwn: null as string | null,
    model: null as string | null,
    sizeMinBytes: 0,
    sizeMaxBytes: Number.POSITIVE_INFINITY,
    auto: false,
  };
  for (const part of text.split(",")) {
    const problem = readTerm(part.trim(), rule);
    if (problem !== null) return problem;
  }
  return rule;
}

type Draft = { -readonly [Key in keyof TargetRule]: TargetRule[Key] };

/** Puts one term into the rule. Returns what is wrong with it, or null. */
function readTerm(term: string, rule: Draft): string | null {
  if (term === "auto") {
    rule.auto = true;
    return null;
  }
  if (term.startsWith("/")) return setOnce(rule, "path", term);
  const match = /^(serial|wwn|model|size)(=|>=|<=)(.*)$/s.exec(term);
  if (match === null) return `"${term}" is no target rule; it must be ${TERMS}`;
  const [, key, operator, value] = match as unknown as [string, "serial" | "wwn" | "model" | "size", string, string];
  if (key === "size") return setSize(rule, operator, value);
  if (operator !== "=") return `"${term}" is no target rule: ${key} takes = and not ${operator}`;
  if (value.trim() === "") return `${key}= needs a value`;
  return setOnce(rule, key, key === "wwn" ? plainWwn(value) : plainText(value));
}

function setOnce(rule: Draft, key: "path" | "serial" | "wwn" | "model", value: string): string | null {
  if (rule[key] !== null) return `a target rule takes one ${key}, not ${rule[key]} and ${value}`;
  rule[key] = value;
  return null;
}

function setSize(rule: Draft, operator: string, value: string): string | null {
  const bytes = parseSize(value);
  if (bytes === null || operator === "=") return `"size${operator}${value}" must be a bound such as size>=100G`;
  if (operator === ">=") rule.sizeMinBytes = Math.max(rule.sizeMinBytes, bytes);
  else rule.sizeMaxBytes = Math.min(rule.sizeMaxBytes, bytes);
  const { sizeMinBytes, sizeMaxBytes } = rule;
  if (sizeMinBytes <= sizeMaxBytes) return null;
  return `no disk is at least ${formatBytes(sizeMinBytes)} and at most ${formatBytes(sizeMaxBytes)} large`;
}

/** What a disk and a rule say of one name, made comparable: firmware pads with blanks. */
export function plainText(text: string): string {
  return text.trim().replaceAll(/\s+/g, " ");
}

/** `naa.5000c500a1b2c3d4`, `0x5000c500a1b2c3d4` and `eui.0025385b71b0c3d4` without their prefix. */
export function plainWwn(text: string): string {
  return plainText(text)
    .toLowerCase()
    .replace(/^(naa\.|eui\.|0x|wwn-0x)/, "");
}

/** Whether a model is what the pattern means: `*` any characters, `?` one; upper and lower case are the same. */
export function matchesPattern(pattern: string, text: string): boolean {
  const wanted = pattern.toLowerCase();
  const found = text.toLowerCase();
  // The usual walk with one step back to the last star: time is bounded by the product of the lengths.
  let p = 0;
  let star = -1;
  let starText = 0;
  for (let t = 0; t < found.length; ) {
    if (p < wanted.length && wanted[p] === "*") {
      star = p++;
      starText = t;
    } else if (p < wanted.length && (wanted[p] === "?" || wanted[p] === found[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++starText;
    } else return false;
  }
  while (wanted[p] === "*") p++;
  return p === wanted.length;
}
