/**
 * stdout and stderr of this process as sinks. Writes are synchronous: a line that was reported is out
 * before the process can end, and its order against other lines holds.
 */
import { writeSync } from "node:fs";
import type { Sink } from "./output.ts";

const COLUMNS_DEFAULT = 80;
/** How long to wait before a full pipe that somebody made non-blocking is tried again. */
const PIPE_FULL_WAIT_MS = 5;

/** A sink for a descriptor of this process. */
export function descriptorSink(fd: 1 | 2): Sink {
  const stream = fd === 1 ? process.stdout : process.stderr;
  return {
    write: (text) => writeAll(fd, text),
    isTerminal: stream.isTTY === true && process.env.TERM !== "dumb",
    columns: () => stream.columns || COLUMNS_DEFAULT,
  };
}

/** False when the reader is gone (EPIPE, or EIO of a terminal that was closed). */
function writeAll(fd: number, text: string): boolean {
  let rest: Uint8Array = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE" || code === "EIO" || code === "EBADF") return false;
      if (code !== "EAGAIN" && code !== "EINTR") throw error;
      Bun.sleepSync(PIPE_FULL_WAIT_MS);
    }
  }
  return true;
}
