/**
 * `--new-uuids`: other identifiers for the disk and its partitions, so that a clone and its source can be in one
 * machine. Those of filesystems stay: fstab, crypttab and boot loaders name them.
 */
import { readTable, type TargetDisk } from "./target-disk.ts";
import { change, fitFailure, SFDISK } from "./tools.ts";

export interface NewIds {
  readonly label: string;
  readonly from: string;
  readonly to: string;
}

/** Throws Failure. */
export async function newIds(disk: TargetDisk): Promise<NewIds> {
  const table = await readTable(disk);
  if (table === null)
    throw fitFailure("new-uuids", `${disk.path} has no partition table, and so no identifiers that could be new`);
  const id = table.label === "gpt" ? crypto.randomUUID().toUpperCase() : newSignature(table.id);
  const set = (what: string[], value: string) =>
    change(SFDISK, ["--quiet", "--no-reread", "--no-tell-kernel", what[0], disk.path, ...what.slice(1), value]);
  await set(["--disk-id"], id);
  if (table.label === "gpt")
    for (const { number } of table.partitions)
      await set(["--part-uuid", String(number)], crypto.randomUUID().toUpperCase());
  const now = await readTable(disk);
  if (
    now?.id.toUpperCase() !== id.toUpperCase() ||
    now.partitions.some(({ uuid }, i) => isKept(uuid, table.partitions[i].uuid))
  )
    throw fitFailure("new-uuids", `sfdisk did not change all identifiers of ${disk.path}; look with sfdisk --dump`);
  return { label: table.label, from: table.id, to: id };
}

function isKept(now: string, before: string): boolean {
  return before !== "" && now === before;
}

/** 32 bits that are neither 0 nor what was there. */
function newSignature(old: string): string {
  for (;;) {
    const [bits] = crypto.getRandomValues(new Uint32Array(1));
    const text = `0x${bits.toString(16).padStart(8, "0")}`;
    if (bits !== 0 && text !== old.toLowerCase()) return text;
  }
}
