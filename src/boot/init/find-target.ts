/**
 * Waits for the disk that a rule means: drivers find disks one after the other, some of them many seconds after they
 * were loaded. A rule that names its disk is met as soon as that is there. One that compares (`auto`, sizes, models)
 * is answered only when no disk has come or gone for a while: the smallest so far need not be the smallest.
 */
import { realpathSync } from "node:fs";
import { isBlock } from "../../disk/open-disk.ts";
import { ExitCode, Failure } from "../../errors.ts";
import { stat } from "../../kernel/libc.ts";
import { pause } from "../../pause.ts";
import { type Choice, chooseTarget, diskTable, type ImageFit, isExact } from "./choose-target.ts";
import { type Disk, readDisks } from "./disks.ts";
import type { TargetRule } from "./target-rule.ts";

export interface TargetSearch {
  readonly rule: TargetRule;
  readonly fit: ImageFit;
  readonly signal: AbortSignal;
  /** Something to tell while it waits. */
  readonly tell: (line: string) => void;
  /** How long a disk that is not there is waited for. */
  readonly limitMs?: number;
  /** How long nothing may have changed before disks are compared. */
  readonly settleMs?: number;
  readonly read?: () => Disk[];
}

export interface FoundTarget {
  readonly path: string;
  /** Null for a partition, and whatever else is no disk of its own. */
  readonly disk: Disk | null;
}

/** Why no disk was taken, with all disks and what is the matter with each. */
export class TargetRefusal extends Failure {
  override readonly name = "TargetRefusal";
  constructor(
    code: "target-none" | "target-ambiguous",
    message: string,
    readonly table: readonly string[],
    /** The same in one line. */
    readonly disks: string,
  ) {
    super(ExitCode.refused, code, message);
  }
}

/** Drives that spin up, and RAID controllers that start, take up to this long. */
const LIMIT_MS = 30_000;
const SETTLE_MS = 10_000;
const LOOK_INTERVAL_MS = 500;

/** Finds the target. Throws TargetRefusal when the time is up, and an interrupted Failure when the signal aborts. */
export async function findTarget(search: TargetSearch): Promise<FoundTarget> {
  const { rule, fit, signal, tell, limitMs = LIMIT_MS, settleMs = SETTLE_MS, read = readDisks } = search;
  const startMs = performance.now();
  let changedMs = startMs;
  let known = "";
  for (let look = 0; ; look++) {
    const disks = read();
    const nowMs = performance.now();
    const list = disksKey(disks);
    if (list !== known && look > 0) changedMs = nowMs;
    known = list;
    const path = rule.path === null ? null : resolved(rule.path);
    if (path !== null && namesOther(rule, path, disks)) return { path, disk: null };
    const choice = chooseTarget({ ...rule, path }, disks, fit);
    const isSettled = nowMs - changedMs >= settleMs;
    if (choice.type === "chosen" && (isSettled || isExact(rule))) return { path: choice.disk.path, disk: choice.disk };
    const mayGiveUp = choice.type === "ambiguous" ? isSettled : isSettled && nowMs - startMs >= limitMs;
    if (choice.type !== "chosen" && mayGiveUp) throw refusal(rule, choice, disks);
    if (look === 0 && choice.type === "none") tell(`waiting for a disk that meets ${rule.text}`);
    await pause(LOOK_INTERVAL_MS, signal);
    if (signal.aborted) throw new Failure(ExitCode.interrupted, "interrupted", "stopped while waiting for a disk");
  }
}

/** What changes when a disk comes, goes, changes its medium or its user. */
export function disksKey(disks: readonly Disk[]): string {
  return disks.map((disk) => `${disk.path} ${disk.sizeBytes} ${disk.readOnly} ${disk.use !== null}`).join("\n");
}

/** A partition or another block device that is no disk of its own, named by its path and nothing else. */
function namesOther(rule: TargetRule, path: string, disks: readonly Disk[]): boolean {
  if (rule.text !== rule.path || disks.some((disk) => disk.path === path)) return false;
  const found = stat(path);
  return typeof found !== "number" && isBlock(found);
}

/** The device that a link such as /dev/disk/by-id/... leads to. */
function resolved(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // Not there yet: what it is called is all there is to tell.
    return path;
  }
}

function refusal(rule: TargetRule, choice: Exclude<Choice, { type: "chosen" }>, disks: readonly Disk[]): TargetRefusal {
  const table = diskTable(disks, choice.reasons);
  const line = disks.map(({ path }, index) => `${path} ${choice.reasons[index]}`).join(", ") || "there is no disk";
  const [code, why] =
    choice.type === "none"
      ? (["target-none", `no disk of this machine can be the target ${rule.text}`] as const)
      : ([
          "target-ambiguous",
          `several disks of this machine meet the target ${rule.text}, none is taken by chance`,
        ] as const);
  return new TargetRefusal(code, `${why}; choose with diskswarm.target= or serve --target`, table, line);
}
