/**
 * Which of the disks that are there a rule means. Pure: disks and a rule in, the one disk or the reasons out.
 *
 * - A disk fits when the image does (its size, its sectors), it is not read-only and nobody uses it. A rule that names no disk (by path, serial, WWN or model) never takes one that is
 *   removable or hangs on USB.
 * - Where one disk meets the rule and fits, it is the one.
 * - A disk that is smaller than the image's (its last partition ends before) is taken only where there is no other:
 *   the smallest disk of a machine may be one for a cache.
 * - Where several do, the rule is ambiguous and nothing is chosen; with `auto` it is the smallest, unless the next one
 *   is less than 5 % larger: disks sold as the same size differ by that much, and none is "the smaller one" then.
 */
import { formatBytes } from "../../units.ts";
import type { Disk } from "./disks.ts";
import { matchesPattern, type TargetRule } from "./target-rule.ts";

/** How an image fits disks. */
export interface ImageFit {
  /** Size of the disk that it was taken of, in bytes; 0 where that is not known. */
  readonly diskBytes: number;
  /** Why it does not fit that disk; null where it does, though the disk may be smaller than the image's. */
  whyNot(disk: Disk): string | null;
}

export type Choice =
  | { readonly type: "chosen"; readonly disk: Disk }
  /** `reasons` has a line for each disk, in the order of the disks. */
  | { readonly type: "none" | "ambiguous"; readonly reasons: readonly string[] };

/** Sizes closer than this are the same size: 480 GB is 480,103,981,056 bytes here and 480,113,590,272 there. */
const SAME_SIZE_RATIO = 1.05;

/** Chooses among the disks of a machine. */
export function chooseTarget(rule: TargetRule, disks: readonly Disk[], fit: ImageFit): Choice {
  const reasons = disks.map((disk) => whyNot(rule, disk, fit));
  const fitting = disks.filter((_, index) => reasons[index] === null).sort((a, b) => a.sizeBytes - b.sizeBytes);
  const roomy = fitting.filter((disk) => disk.sizeBytes >= fit.diskBytes);
  const [first, second] = roomy.length > 0 ? roomy : fitting;
  if (first === undefined) return { type: "none", reasons: reasons.map((reason) => reason!) };
  if (second === undefined) return { type: "chosen", disk: first };
  const comparesSizes = rule.auto && roomy.length > 0;
  const isSmallest = second.sizeBytes >= first.sizeBytes * SAME_SIZE_RATIO;
  if (comparesSizes && isSmallest) return { type: "chosen", disk: first };
  const alike = comparesSizes ? roomy.filter((disk) => disk.sizeBytes < first.sizeBytes * SAME_SIZE_RATIO) : fitting;
  const texts = disks.map((disk, index) => {
    if (reasons[index] !== null) return reasons[index]!;
    return alike.includes(disk) ? "fits, and so does another" : "fits, but is not the smallest";
  });
  return { type: "ambiguous", reasons: texts };
}

/** Whether the rule names its disk: then what appears later cannot change what it means. */
export function isExact(rule: TargetRule): boolean {
  return rule.path !== null || rule.serial !== null || rule.wwn !== null;
}

/** Why the disk is not the one; null where it is. What the rule says comes first. */
function whyNot(rule: TargetRule, disk: Disk, fit: ImageFit): string | null {
  const { path, sizeBytes } = disk;
  if (rule.path !== null && rule.path !== path) return `it is not ${rule.path}`;
  if (rule.serial !== null && rule.serial.toLowerCase() !== disk.serial.toLowerCase())
    return disk.serial === "" ? "it tells no serial" : `its serial is not ${rule.serial}`;
  if (rule.wwn !== null && rule.wwn !== disk.wwn) return disk.wwn === "" ? "it has no WWN" : `its WWN is ${disk.wwn}`;
  if (rule.model !== null && !matchesPattern(rule.model, disk.model)) return `its model is not ${rule.model}`;
  if (sizeBytes === 0) return "there is no medium in it";
  if (sizeBytes < rule.sizeMinBytes) return `it is smaller than ${formatBytes(rule.sizeMinBytes)}`;
  if (sizeBytes > rule.sizeMaxBytes) return `it is larger than ${formatBytes(rule.sizeMaxBytes)}`;
  if (disk.removable && !isExact(rule) && rule.model === null) return "it is removable or on USB: name it to use it";
  if (disk.readOnly) return "it is read-only";
  if (disk.use !== null) return disk.use;
  return fit.whyNot(disk);
}

/** The disks that are there, as a table with what is said of each. */
export function diskTable(disks: readonly Disk[], remarks: readonly string[]): string[] {
  if (disks.length === 0) return ["there is no disk at all: is its driver in the initramfs, and its controller on?"];
  const rows = disks.map((disk, index) => [
    disk.path,
    formatBytes(disk.sizeBytes),
    disk.model || "-",
    disk.serial || "-",
    remarks[index] ?? "",
  ]);
  const all = [["disk", "size", "model", "serial", ""], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all.map((row) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column]!)))
      .join("  ")
      .trimEnd(),
  );
}
