/**
 * What a node tells its server while it works (`POST /v1/nodes/<id>/events`, docs/PROTOCOL.md): made by the node, read
 * by the server. The reader keeps what it knows, cut to sizes, and drops the rest: an older server must not lose a
 * newer node's failure. Pure.
 */
import { NODE_REPORT_BYTES_MAX } from "../../limits.ts";

export const NODE_PHASES = [
  "booted",
  "plan",
  "target",
  "progress",
  "done",
  "failed",
  "rebooting",
  "poweroff",
  "kexec",
  "shell",
] as const;
export type NodePhase = (typeof NODE_PHASES)[number];

export interface NodeReport {
  readonly phase: NodePhase;
  /** Who the machine is, in words of its firmware. */
  readonly serial?: string;
  readonly product?: string;
  readonly version?: string;
  readonly address?: string;
  readonly image?: string;
  /** The disk that is written, with its model and size. */
  readonly target?: string;
  /** What happened, as a line; of `failed` the reason. */
  readonly message?: string;
  /** Short stable word of a failure. */
  readonly code?: string;
  readonly bytesDone?: number;
  readonly bytesTotal?: number;
  readonly rateBytesPerSecond?: number;
  readonly peers?: number;
}

/** By key the longest text that is kept. */
const TEXTS = {
  serial: 100,
  product: 100,
  version: 40,
  address: 60,
  image: 200,
  target: 200,
  message: 500,
  code: 40,
} as const;
const NUMBERS = ["bytesDone", "bytesTotal", "rateBytesPerSecond", "peers"] as const;

/** A node's id: its MAC address, or where it has none another short name. */
export function isNodeId(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9:._-]{0,63}$/.test(text);
}

/** Reads a report; null where it is none. */
export function parseNodeReport(bytes: Uint8Array): NodeReport | null {
  if (bytes.length > NODE_REPORT_BYTES_MAX) return null;
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  } catch {
    return null;
  }
  const phase =
    typeof value === "object" && value !== null ? NODE_PHASES.find((one) => one === value.phase) : undefined;
  if (phase === undefined) return null;
  const report: Record<string, string | number> = { phase };
  for (const [key, lengthMax] of Object.entries(TEXTS)) {
    const text = value[key];
    if (typeof text === "string" && text !== "") report[key] = cleanText(text, lengthMax);
  }
  for (const key of NUMBERS) {
    const number = value[key];
    if (typeof number === "number" && Number.isFinite(number) && number >= 0) report[key] = Math.abs(number);
  }
  return report as unknown as NodeReport;
}

/** Ready to send: texts as short as the reader keeps them, so that the whole stays below its limit. */
export function formatNodeReport(report: NodeReport): string {
  const entries = Object.entries(report).map(([key, value]) => {
    const lengthMax = TEXTS[key as keyof typeof TEXTS];
    return [key, lengthMax === undefined ? value : cleanText(String(value), lengthMax)];
  });
  return JSON.stringify(Object.fromEntries(entries));
}

/** For terminals and logs: one line without control characters. */
function cleanText(text: string, lengthMax: number): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]+/gu, " ").slice(0, lengthMax);
}
