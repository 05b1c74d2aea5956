/**
 * stdout and stderr of this process as sinks. Writes are synchronous: a line that was reported is out
 * before the process can end, and its order against other lines holds. Whether a descriptor is a terminal is asked
 * of the kernel: to ask `process.stdout` takes 14 ms at each start, for streams that nobody uses.
 */
import { writeSync } from "node:fs";
import { TIOCGWINSZ } from "../kernel/abi.ts";
import { ioctlGet } from "../kernel/libc.ts";
import type { Sink } from "./output.ts";

const COLUMNS_DEFAULT = 80;
/** How long to wait before a full pipe that somebody made non-blocking is tried again. */
const PIPE_FULL_WAIT_MS = 5;

/** A sink for a descriptor of this process. */
export function descriptorSink(fd: 1 | 2): Sink {
  return {
    write: (text) => writeAll(fd, text),
    isTerminal: windowSize(fd) >= 0 && process.env.TERM !== "dumb",
    columns: () => columnsOf(windowSize(fd)) || COLUMNS_DEFAULT,
  };
}

/** Rows in the lower and columns in the upper 16 bits; negative where the descriptor is no terminal. */
function windowSize(fd: number): number {
  return ioctlGet(fd, TIOCGWINSZ, 32);
}

/** 0 where it is no terminal, or one that does not know its size, such as a serial line. */
function columnsOf(size: number): number {
  return size < 0 ? 0 : Math.floor(size / 2 ** 16);
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
