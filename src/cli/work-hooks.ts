/** Work that goes on in a thread of its own (capture, verify) shown as progress and warnings. */
import type { WorkHooks } from "../image/work.ts";
import type { Output } from "./output.ts";
import { RateMeter } from "./rate.ts";

/** `phase` names what the bytes are counted of. */
export function workHooks(output: Output, phase: string): WorkHooks {
  const meter = new RateMeter();
  return {
    warning: (code, message) => output.warning(code, message),
    progress: (bytesDone, bytesTotal) => {
      meter.add(bytesDone, performance.now());
      const etaSeconds = meter.etaSeconds(bytesTotal - bytesDone);
      output.progress({ bytesDone, bytesTotal, rateBytesPerSecond: meter.bytesPerSecond, etaSeconds, peers: 0, phase });
    },
  };
}
