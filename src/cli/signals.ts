/**
 * SIGINT, SIGTERM and SIGHUP: the first asks the command to stop cleanly, the second ends the process at
 * once. What is on the disk is right in both cases; a clean stop also tells trackers and peers.
 */
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
  for (const name of SIGNALS) process.on(name, handle);
  return {
    stopped: controller.signal,
    end: () => {
      for (const name of SIGNALS) process.off(name, handle);
    },
  };
}
