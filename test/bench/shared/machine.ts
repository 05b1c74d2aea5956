/** How busy this machine's cores are, from the kernel's own account (proc_stat(5)). */
import { readFileSync } from "node:fs";

/** Ticks of all cores since the machine started. */
interface Ticks {
  readonly busy: number;
  readonly all: number;
}

function ticks(): Ticks {
  const line = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]!;
  // user nice system idle iowait irq softirq steal; guest time is part of user.
  const fields = line.trim().split(/\s+/).slice(1, 9).map(Number);
  const all = fields.reduce((sum, count) => sum + count, 0);
  return { busy: all - fields[3]! - fields[4]!, all };
}

/** Starts a measurement; the function returned ends it with the share of all cores that was busy, 0 to 1. */
export function coresBusy(): () => number {
  const begin = ticks();
  return () => {
    const end = ticks();
    return (end.busy - begin.busy) / Math.max(1, end.all - begin.all);
  };
}
