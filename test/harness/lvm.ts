/**
 * LVM on machines without device mapper, where lvcreate refuses to work: a volume group is made empty, and its
 * volumes are written into its metadata by vgcfgrestore.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Extent } from "./image.ts";
import { run } from "./process.ts";
import type { Scope } from "./scope.ts";

export const EXTENT_BYTES = 4 * 1024 * 1024;
/** Where the first extent starts in a physical volume. */
const FIRST_EXTENT_BYTES = 1024 * 1024;

export interface VolumePlan {
  readonly name: string;
  /** Runs of the volume in its own order: where they are on the disk and how long, in extents. */
  readonly runs: readonly { readonly at: number; readonly count: number }[];
}

/** Makes a physical volume and a group with these volumes on a device. */
export function makeVolumes(scope: Scope, device: string, plans: readonly VolumePlan[]): void {
  const group = `dstest${process.pid}`;
  const alone = ["--quiet", "--devices", device, "--nohints"];
  run(["pvcreate", ...alone, "--force", "--force", "--yes", device]);
  run(["vgcreate", ...alone, "--autobackup", "n", "--yes", group, device]);
  const file = join(scope.tempDir(), "group");
  run(["vgcfgbackup", ...alone, "--file", file, group]);
  const volumes = `logical_volumes {\n${plans.map(volumeText).join("\n")}\n}\n`;
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace("physical_volumes {", `${volumes}physical_volumes {`));
  run(["vgcfgrestore", ...alone, "--yes", "--file", file, group]);
}

/** Where a run of extents is in the physical volume. */
export function extentsAt(at: number, count: number): Extent {
  return { offsetBytes: FIRST_EXTENT_BYTES + at * EXTENT_BYTES, lengthBytes: count * EXTENT_BYTES };
}

function volumeText({ name, runs }: VolumePlan, index: number): string {
  const letter = "abcdefgh"[index];
  const id = [6, 4, 4, 4, 4, 4, 6].map((length) => letter.repeat(length)).join("-");
  let start = 0;
  const segments = runs.map(({ at, count }, i) => {
    const range = `start_extent = ${start}\nextent_count = ${count}`;
    start += count;
    return `segment${i + 1} {\n${range}\ntype = "striped"\nstripe_count = 1\nstripes = [ "pv0", ${at} ]\n}`;
  });
  const state = `status = ["READ", "WRITE", "VISIBLE"]\nflags = []\ncreation_time = 1\ncreation_host = "test"`;
  return `${name} {\nid = "${id}"\n${state}\nsegment_count = ${runs.length}\n${segments.join("\n")}\n}`;
}
