/**
 * SIGINT, SIGTERM and SIGHUP: the first asks the command to stop cleanly, the second ends the process at
 * once. What is on the disk is right in both cases; a clean stop also tells trackers and peers.
 */
import type { Output } from "./output.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Returns the signal that commands watch. `endNow` is called at the second request and does not return. */
export function stopOnSignals(output: Output, endNow: () => never): AbortSignal {
  const controller = new AbortController();
  for (const name of SIGNALS) {
    process.on(name, () => {
      if (controller.signal.aborted) endNow();
      output.log("info", `${name}: stopping; once more ends at once`);
      controller.abort();
    });
  }
  return controller.signal;
}
