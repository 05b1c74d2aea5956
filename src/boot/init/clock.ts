/**
 * A machine whose clock battery is empty believes it is 1970 or 2000: logs and certificates make no sense then. Its
 * clock is set by the server's, which is as right as this needs.
 */
import { askTool } from "./node-tool.ts";

/** No machine runs this program before it was written. */
const EARLIEST_MS = Date.UTC(2026, 0, 1);

/** Whether that clock cannot be right. */
export function isAbsurd(nowMs: number): boolean {
  return nowMs < EARLIEST_MS;
}

/** Sets the system's clock. Returns what went wrong, or null. */
export async function setClock(ms: number): Promise<string | null> {
  const words = ["-s", `@${Math.round(ms / 1000)}`];
  return (await askTool({ program: "date", package: "busybox" }, words)).problem;
}
