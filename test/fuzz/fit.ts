/** Fuzz targets of src/fit: tables that admins write. */
import { ok } from "node:assert";
import { Failure } from "../../src/errors.ts";
import { hostnameProblem, PersonalityTable } from "../../src/fit/personality.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows } from "./mutate.ts";

/** A table that is read finds its machines; a broken one is read or refused in one line, and gives valid names alone. */
export function fuzzPersonality(random: SeededRandom): void {
  const rows = Array.from({ length: 1 + random.below(6) }, (_, i) => ({
    mac: `02:00:00:00:0${random.below(10)}:${(16 + i).toString(16)}`,
    serial: random.below(2) === 0 ? `SN "${i}"` : "",
    hostname: `pc-${i}${random.below(2) === 0 ? ".room" : ""}`,
  }));
  const separator = [",", ";", "\t"][random.below(3)];
  const quoted = (text: string) => (random.below(2) === 0 || /"/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = [`mac${separator}hostname${separator}serial`];
  for (const { mac, serial, hostname } of rows) csv.push([mac, hostname, serial].map(quoted).join(separator));
  const text = random.below(3) === 0 ? JSON.stringify(rows) : csv.join(random.below(2) === 0 ? "\r\n" : "\n");
  const table = PersonalityTable.parse(text, "table");
  const machine = (row: (typeof rows)[number]) => ({ macs: [row.mac.replaceAll(":", "")], serials: [] });
  for (const row of rows) ok(table.find(machine(row)).hostname === row.hostname);
  const broken = new TextDecoder().decode(mutate(random, Buffer.from(text)));
  const read = onlyThrows(Failure, () => PersonalityTable.parse(broken, "table"));
  for (const row of read === null ? [] : rows) {
    const found = onlyThrows(Failure, () => read!.find(machine(row)));
    ok(found === null || hostnameProblem(found.hostname) === null);
  }
}
