/**
 * What a process cost: its CPU seconds from the kernel's account at its end (wait4), and the most memory it
 * had resident (VmHWM). wait4's own maximum is of no use for the latter: it includes what the starter had.
 */
import { GiB, MiB } from "../../../src/units.ts";
import type { Child } from "../../harness/process.ts";
import { median } from "./report.ts";

export interface Usage {
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
}

/** Of a process that was started with `watchMemory` and has ended. */
export function usageOf(child: Child): Usage {
  return { cpuSeconds: child.cpuSeconds, peakRssBytes: child.peakRssBytes };
}

/** Of several processes that do one thing together. */
export function usageOfAll(children: readonly Child[]): Usage {
  const usages = children.map(usageOf);
  return {
    cpuSeconds: usages.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
    peakRssBytes: usages.reduce((sum, { peakRssBytes }) => sum + peakRssBytes, 0),
  };
}

export interface UsageFigures {
  readonly cpuSecondsPerGiB: number;
  readonly peakRssBytes: number;
}

/** The median of the CPU time and the most memory of several rounds that moved `bytes` each; null without any. */
export function usageFigures(usages: readonly (Usage | null)[], bytes: number): UsageFigures | null {
  const known = usages.filter((one) => one !== null);
  if (known.length === 0) return null;
  return {
    cpuSecondsPerGiB: median(known.map(({ cpuSeconds }) => cpuSeconds)) / (bytes / GiB),
    peakRssBytes: Math.max(...known.map(({ peakRssBytes }) => peakRssBytes)),
  };
}

/** Heads of the two columns that `usageCells` fills. */
export function usageHead(what: string): [string, string] {
  return [`${what} CPU s/GiB`, "RSS MiB"];
}

export function usageCells(figures: UsageFigures | null): [string, string] {
  if (!figures) return ["", ""];
  return [figures.cpuSecondsPerGiB.toFixed(2), (figures.peakRssBytes / MiB).toFixed(0)];
}
