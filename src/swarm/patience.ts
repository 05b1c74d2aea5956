/** How long a peer is borne that costs memory or work and brings nothing; what it is asked for is in `download.ts`. */
import { FUTILE_FRAMES_PER_TICK_MAX, SEND_TIMEOUT_MS } from "./policy.ts";
import type { Session } from "./session.ts";

/** Why an open session is to be dropped now, or null. Asked once for each tick. */
export function impatienceWith(session: Session, nowMs: number): { kind: "timeout" | "fault"; text: string } | null {
  const { slot, futileFrames } = session;
  session.futileFrames = 0;
  if (futileFrames > FUTILE_FRAMES_PER_TICK_MAX)
    return { kind: "fault", text: `${futileFrames} messages without meaning at once` };
  if (slot.sendingBytes > 0 && nowMs - slot.lastUploadMs >= SEND_TIMEOUT_MS)
    return { kind: "timeout", text: "reads nothing of what it asked for" };
  return null;
}
