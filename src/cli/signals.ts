/**
 * SIGINT, SIGTERM and SIGHUP: the first asks the command to stop cleanly, the second ends the process at
 * once. What is on the disk is right in both cases; a clean stop also tells trackers and peers.
 */
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import type { Output } from "./output.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SignalWatch {
  /** Aborts at the first request to stop. */
  readonly stopped: AbortSignal;
  /** Gives the signals their usual meaning back. */
  end(): void;
}

/** `endNow` is called at the second request and does not return. */
export function watchSignals(output: Output, endNow: () => never): SignalWatch {
  const controller = new AbortController();
  const handle = (name: string) => {
    if (controller.signal.aborted) endNow();
    output.log("info", `${name}: stopping; once more ends at once`);
    controller.abort();
  };
  const ignored = ignoredSignals();
  // Whoever started us with nohup, or in the background of a script, wants these signals ignored.
  const watched = SIGNALS.filter((name) => (ignored & (1n << BigInt(constants.signals[name] - 1))) === 0n);
  for (const name of watched) process.on(name, handle);
  return {
    stopped: controller.signal,
    end: () => {
      for (const name of watched) process.off(name, handle);
    },
  };
}

/** SigIgn of proc(5): bit n - 1 is set where signal n is ignored. */
function ignoredSignals(): bigint {
  // As the only file of an empty root, before anybody mounted /proc, there is nobody who could want that.
  if (!existsSync("/proc/self/status")) return 0n;
  const match = /^SigIgn:\s+([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1"));
  return match ? BigInt(`0x${match[1]}`) : 0n;
}
