/** Fuzz targets of src/image: what other programs print about disks. */
import { deepStrictEqual, ok } from "node:assert";
import { DomainMapFault, DomainMapParser } from "../../src/image/domain-map.ts";
import { areasOf } from "../../src/image/partition-table.ts";
import { parsePartitionTable, tableProblem } from "../../src/torrent/partition-table.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows } from "./mutate.ts";

/** A map reads the same in any chunks; whatever is accepted has ascending runs within its end. */
export function fuzzDomainMap(random: SeededRandom): void {
  const blockBytes = 512 << random.below(6);
  const lengths = Array.from(
    { length: 1 + random.below(20) },
    () => (1 + random.below(1 << random.below(20))) * blockBytes,
  );
  let at = 0;
  const lines = lengths.map((length, i) => {
    const line = `0x${at.toString(16).toUpperCase().padStart(8, "0")}  0x${length.toString(16)}  ${i % 2 ? "?" : "+"}`;
    at += length;
    return line;
  });
  const valid = Buffer.from(`# map\n0x${at.toString(16)}     ?\n# pos size\n${lines.join("\n")}\n`);
  deepStrictEqual(readMap(random, valid), readMap(null, valid));
  deepStrictEqual(readMap(null, valid).length, Math.ceil(lengths.length / 2));
  const broken = mutate(random, valid);
  const runs = onlyThrows(DomainMapFault, () => readMap(random, broken));
  let end = 0;
  for (const [offset, length] of runs ?? []) {
    ok(offset >= end && length > 0 && Number.isSafeInteger(offset + length));
    end = offset + length;
  }
}

/** In random chunks, or whole without a generator. */
function readMap(random: SeededRandom | null, bytes: Uint8Array): number[][] {
  const runs: number[][] = [];
  const parser = new DomainMapParser((offset, length) => void runs.push([offset, length]));
  for (let at = 0; at < bytes.length; ) {
    const length = random === null ? bytes.length : 1 + random.below(40);
    parser.push(bytes.subarray(at, at + length));
    at += length;
  }
  parser.finish();
  return runs;
}

/** Nothing is thrown; a table without a problem cuts the disk into areas that cover it exactly. */
export function fuzzPartitionTable(random: SeededRandom): void {
  const diskBytes = 1_000_000 * 512;
  let start = 0;
  const partitions = Array.from({ length: random.below(8) }, (_, i) => {
    start += random.below(3) === 0 ? 0 : random.below(50_000);
    const size = 1 + random.below(50_000);
    const entry = { node: `/dev/sda${i + 1}`, start, size, type: random.below(8) === 0 ? "f" : "83" };
    start += size;
    return entry;
  });
  const label = random.below(2) === 0 ? "dos" : "gpt";
  const valid = Buffer.from(
    JSON.stringify({ partitiontable: { label, unit: "sectors", sectorsize: 512, partitions } }),
  );
  const text = random.below(2) === 0 ? valid : mutate(random, valid);
  const table = parsePartitionTable(Buffer.from(text).toString("utf8"), 512);
  if (typeof table === "string" || tableProblem(table, diskBytes) !== null) return;
  let end = 0;
  for (const { offsetBytes, lengthBytes } of areasOf(table, diskBytes)) {
    deepStrictEqual(offsetBytes, end);
    ok(lengthBytes > 0);
    end += lengthBytes;
  }
  deepStrictEqual(end, diskBytes);
}
