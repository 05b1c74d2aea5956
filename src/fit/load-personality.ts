/** Finds out who this machine is: reads the table from a file or an http(s) URL, and the machine's own identifiers from sysfs. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, Failure } from "../errors.ts";
import { PERSONALITY_TABLE_BYTES_MAX } from "../limits.ts";
import { pause } from "../pause.ts";
import { formatBytes, formatDuration } from "../units.ts";
import { type MachineIds, normalMac, normalSerial, type Personality, PersonalityTable } from "./personality.ts";

/** Between two attempts at a URL. */
const RETRY_MS = 2000;
/** One attempt may take this long: the table is small. */
const ATTEMPT_MS = 15_000;

export interface LoadPersonalityOptions {
  /** How long a URL that does not answer is asked again. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** This machine's row. Throws Failure: exit 1 for what is wrong with the table, 5 where a URL cannot be fetched. */
export async function loadPersonality(table: string, options: LoadPersonalityOptions): Promise<Personality> {
  const bytes = /^https?:\/\//i.test(table) ? await fetchTable(table, options) : readTable(table);
  return PersonalityTable.parse(new TextDecoder().decode(bytes), table).find(machineIds());
}

/** What this machine can be known by. `sysfs` is another folder in tests. */
export function machineIds(sysfs = "/sys"): MachineIds {
  const nets = join(sysfs, "class/net");
  const interfaces = existsSync(nets) ? readdirSync(nets) : [];
  const macs = interfaces.map((name) => normalMac(readText(join(nets, name, "address")))).filter((mac) => mac !== null);
  const sources = [
    "class/dmi/id/product_serial",
    "class/dmi/id/board_serial",
    "firmware/devicetree/base/serial-number",
  ];
  const serials = sources.map((path) => normalSerial(readText(join(sysfs, path)))).filter((serial) => serial !== "");
  return { macs: [...new Set(macs)].sort(), serials: [...new Set(serials)] };
}

/** Not every machine has every file, and some may be read by root alone. */
function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function readTable(path: string): Uint8Array {
  const fail = (why: string) =>
    new Failure(ExitCode.failed, "personalize-table", `cannot read the table ${path}: ${why}`);
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found) throw fail("no such file");
  if (!found.isFile()) throw fail("it is not a file");
  if (found.size > PERSONALITY_TABLE_BYTES_MAX) throw fail(tooLong(found.size));
  return readFileSync(path);
}

function tooLong(bytes: number): string {
  return `${formatBytes(bytes)} are more than a table can have (${formatBytes(PERSONALITY_TABLE_BYTES_MAX)})`;
}

/** A reason that trying again may mend. */
class Unreachable extends Error {}

async function fetchTable(url: string, { timeoutMs, signal }: LoadPersonalityOptions): Promise<Uint8Array> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await fetchOnce(url, signal);
    } catch (error) {
      if (signal.aborted) throw new Failure(ExitCode.interrupted, "interrupted", `stopped while fetching ${url}`);
      if (!(error instanceof Unreachable)) throw error;
      if (performance.now() + RETRY_MS > deadlineMs)
        throw unfetchable(url, `${error.message}, for ${formatDuration(timeoutMs)} (--timeout waits longer)`);
    }
    await pause(RETRY_MS, signal);
  }
}

async function fetchOnce(url: string, signal: AbortSignal): Promise<Uint8Array> {
  try {
    const response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(ATTEMPT_MS)]) });
    const status = `the server answered ${response.status} ${response.statusText}`.trim();
    if (response.status >= 500) throw new Unreachable(status);
    if (!response.ok) throw unfetchable(url, status);
    const chunks: Uint8Array[] = [];
    let lengthBytes = 0;
    for await (const chunk of response.body ?? []) {
      lengthBytes += chunk.length;
      if (lengthBytes > PERSONALITY_TABLE_BYTES_MAX) throw unfetchable(url, tooLong(lengthBytes));
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (error) {
    if (error instanceof Failure || error instanceof Unreachable || signal.aborted) throw error;
    throw new Unreachable((error as Error).message);
  }
}

function unfetchable(url: string, why: string): Failure {
  return new Failure(ExitCode.nothingToFetch, "personalize-table", `cannot fetch the table ${url}: ${why}`);
}
