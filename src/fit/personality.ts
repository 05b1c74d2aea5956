/**
 * Who a machine is: a table of host names by MAC address or serial number, as CSV (what a spreadsheet exports) or JSON, and
 * this machine's row in it. The table is read and the row found before anything is written to a disk.
 *
 *   mac,serial,hostname
 *   52:54:00:12:34:56,,pc01
 *   ,5CG1234XYZ,pc02
 *
 * Pure: texts in, rows out. Nothing in the table is believed.
 */
import { ExitCode, Failure } from "../errors.ts";

/** What a row gives its machine. */
export interface Personality {
  /** RFC 1123, at most 64 characters. */
  readonly hostname: string;
}

/** What a machine can be known by. */
export interface MachineIds {
  /** `525400123456`: 12 hex digits in lower case. */
  readonly macs: readonly string[];
  /** In lower case. */
  readonly serials: readonly string[];
}

interface Row {
  /** Line of the CSV or place in the JSON list, from 1, for messages. */
  readonly place: string;
  readonly macs: readonly string[];
  readonly serial: string;
  readonly hostname: string;
}

/** sethostname(2), HOST_NAME_MAX. */
const HOSTNAME_LENGTH_MAX = 64;
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;
/** What vendors leave where a serial number should be: the same in every machine. */
const NO_SERIALS =
  /^(|0+|none|n\/a|default string|unknown|not (specified|applicable|available)|to be filled by o\.?e\.?m\.?|system serial number|x+)$/;

/** Rows of a table. `origin` is for messages. Throws Failure: one line, with the row. */
export class PersonalityTable {
  private constructor(
    private readonly origin: string,
    private readonly rows: readonly Row[],
  ) {}

  static parse(text: string, origin: string): PersonalityTable {
    const fail = (problem: string) => new Failure(ExitCode.failed, "personalize-table", `${origin}: ${problem}`);
    const records = /^\uFEFF?\s*[[{]/.test(text) ? readJson(text, fail) : readCsv(text, fail);
    if (records.length === 0) throw fail("the table has no rows");
    const rows = records.map((record) => readRow(record, fail));
    refuseDuplicates(rows, fail);
    return new PersonalityTable(origin, rows);
  }

  /** The row of a machine. Throws Failure where there is none, or more than one. */
  find(machine: MachineIds): Personality {
    const found = this.rows.filter(
      ({ macs, serial }) => macs.some((mac) => machine.macs.includes(mac)) || machine.serials.includes(serial),
    );
    if (found.length === 1) return { hostname: found[0].hostname };
    const problem =
      found.length === 0
        ? `no row is for this machine: ${describe(machine)}`
        : `${found.map(({ place, hostname }) => `${place} (${hostname})`).join(" and ")} are both for this machine`;
    throw new Failure(
      ExitCode.failed,
      "personalize-row",
      `${this.origin}: ${problem}; nothing was written, mend the table`,
    );
  }
}

function describe({ macs, serials }: MachineIds): string {
  const known = [
    ...macs.map((mac) => `MAC ${mac.replace(/..(?!$)/g, "$&:")}`),
    ...serials.map((serial) => `serial ${serial}`),
  ];
  return known.length === 0 ? "it has neither MAC address nor serial number" : known.join(", ");
}

/** `525400123456`, or null: all the ways in which they are written. */
export function normalMac(text: string): string | null {
  const digits = text.toLowerCase().replace(/[:.\s-]/g, "");
  return /^[0-9a-f]{12}$/.test(digits) && !/^0+$/.test(digits) ? digits : null;
}

/** As tables and machines are compared; "" for what is no serial number. */
export function normalSerial(text: string): string {
  const serial = text.replace(/\0/g, "").trim().toLowerCase();
  return NO_SERIALS.test(serial) ? "" : serial;
}

/** Why a text is no host name, or null. RFC 1123, 2.1; a name that ends in digits alone reads as an address. */
export function hostnameProblem(name: string): string | null {
  if (name === "") return "has no hostname";
  const shown = JSON.stringify(name.slice(0, 100));
  if (name.length > HOSTNAME_LENGTH_MAX)
    return `has the hostname ${shown}, which is longer than ${HOSTNAME_LENGTH_MAX} characters`;
  const labels = name.split(".");
  if (!labels.every((label) => LABEL.test(label)))
    return `has the hostname ${shown}: letters, digits and hyphens inside are allowed, in labels of at most 63 (RFC 1123)`;
  return /^\d+$/.test(labels.at(-1)!) ? `has the hostname ${shown}, which reads as an address` : null;
}

type Fail = (problem: string) => Failure;

interface RawRow {
  readonly place: string;
  readonly fields: Readonly<Record<string, string>>;
}

function readRow({ place, fields }: RawRow, fail: Fail): Row {
  const { mac = "", serial = "", hostname = "" } = fields;
  const macs = mac
    .split(/[\s,;|]+/)
    .filter(Boolean)
    .map((text) => {
      const normal = normalMac(text);
      if (normal === null) throw fail(`${place} has ${JSON.stringify(text.slice(0, 40))}, which is no MAC address`);
      return normal;
    });
  const problem = hostnameProblem(hostname);
  if (problem !== null) throw fail(`${place} ${problem}`);
  const row = { place, macs, serial: normalSerial(serial), hostname };
  if (macs.length > 0 || row.serial !== "") return row;
  if (serial.trim() === "") throw fail(`${place} has neither mac nor serial`);
  throw fail(`${place} has the serial ${JSON.stringify(serial.slice(0, 40))}, which many machines have`);
}

function refuseDuplicates(rows: readonly Row[], fail: Fail): void {
  const seen = new Map<string, Row>();
  for (const row of rows) {
    const keys = [`hostname ${row.hostname.toLowerCase()}`, ...row.macs.map((mac) => `mac ${mac}`)];
    if (row.serial !== "") keys.push(`serial ${row.serial}`);
    for (const key of keys) {
      const other = seen.get(key);
      if (other !== undefined) throw fail(`${other.place} and ${row.place} have the same ${key}`);
      seen.set(key, row);
    }
  }
}

function readJson(text: string, fail: Fail): RawRow[] {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw fail(`it begins like JSON and is none (${error.message.slice(0, 100)})`);
  }
  if (!Array.isArray(json))
    throw fail('it is no list of rows such as [{"mac": "52:54:00:12:34:56", "hostname": "pc01"}]');
  return json.map((row: unknown, i) => {
    const place = `row ${i + 1}`;
    if (typeof row !== "object" || row === null || Array.isArray(row)) throw fail(`${place} is no object`);
    const fields: Record<string, string> = {};
    for (const [key, value] of Object.entries(row)) {
      if (typeof value === "string" || typeof value === "number") fields[key.toLowerCase()] = String(value).trim();
      else if (["mac", "serial", "hostname"].includes(key.toLowerCase()) && value !== null)
        throw fail(`${place} has a ${key} that is no text`);
    }
    return { place, fields };
  });
}

const SEPARATORS = [",", ";", "\t"];

function readCsv(text: string, fail: Fail): RawRow[] {
  if (text.includes("\0")) throw fail("it is neither CSV nor JSON (save it as UTF-8 text)");
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  const isRow = (line: string) => line.trim() !== "" && !line.trimStart().startsWith("#");
  const head = lines.findIndex(isRow);
  if (head < 0) throw fail("it is empty");
  const separator = SEPARATORS.find((one) => lines[head].includes(one)) ?? ",";
  const names = splitLine(lines[head], separator)?.map((name) => name.toLowerCase()) ?? [];
  if (!names.includes("hostname") || !(names.includes("mac") || names.includes("serial")))
    throw fail("its first line does not name the columns: hostname, and mac or serial or both");
  if (new Set(names).size !== names.length) throw fail("its first line names a column twice");
  const rows: RawRow[] = [];
  for (const [i, line] of lines.entries()) {
    if (i <= head || !isRow(line)) continue;
    const place = `line ${i + 1}`;
    const cells = splitLine(line, separator);
    if (cells === null) throw fail(`${place} has a quote that does not end`);
    if (cells.length > names.length)
      throw fail(`${place} has ${cells.length} columns and the first line ${names.length}`);
    // A spreadsheet leaves lines of separators behind its rows.
    if (cells.every((cell) => cell === "")) continue;
    rows.push({ place, fields: Object.fromEntries(names.map((name, column) => [name, cells[column] ?? ""])) });
  }
  return rows;
}

/** The cells of a line, quotes taken off (RFC 4180, without line breaks in cells); null where a quote does not end. */
function splitLine(line: string, separator: string): string[] | null {
  const cells: string[] = [];
  let at = 0;
  for (;;) {
    while (line[at] === " ") at++;
    let cell = "";
    if (line[at] === '"') {
      for (at++; ; at++) {
        if (at >= line.length) return null;
        if (line[at] !== '"') cell += line[at];
        else if (line[at + 1] === '"') cell += line[at++];
        else break;
      }
      at++;
    }
    const end = line.indexOf(separator, at);
    cells.push((cell + line.slice(at, end < 0 ? line.length : end)).trim());
    if (end < 0) return cells;
    at = end + 1;
  }
}
