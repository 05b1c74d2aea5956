/**
 * All consoles of the kernel at once: whoever stands before the machine looks at its screen, whoever sits elsewhere at
 * the serial line, and /dev/console is only the last that was named.
 *
 * A serial line whose other end holds the flow must not hold the deployment: consoles are opened without blocking, and
 * text that one does not take is lost there.
 */
import { closeSync, constants, openSync, readFileSync, writeSync } from "node:fs";

const WRITE_TRIES_MAX = 20;
const WRITE_WAIT_MS = 5;

/** Device paths of the consoles that the kernel prints to (`tty0 ttyS0`). */
export function consolePaths(sys = "/sys"): string[] {
  try {
    const names = readFileSync(`${sys}/class/tty/console/active`, "latin1").trim().split(/\s+/);
    return names.filter((name) => /^[\w-]+$/.test(name)).map((name) => `/dev/${name}`);
  } catch {
    // Without sysfs, or in a container: there is standard output.
    return [];
  }
}

export class Consoles {
  readonly #fds: number[] = [];
  /** Named on the command line, but not there: the kernel prints to them in its own way, if at all. */
  readonly missing: string[] = [];

  constructor(paths: readonly string[]) {
    for (const path of paths) {
      try {
        this.#fds.push(openSync(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK));
      } catch {
        this.missing.push(path);
      }
    }
  }

  get count(): number {
    return this.#fds.length;
  }

  write(text: string): void {
    const bytes = Buffer.from(text);
    for (const fd of this.#fds) writeAll(fd, bytes);
  }

  close(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let rest = bytes;
  for (let tries = 0; rest.length > 0 && tries < WRITE_TRIES_MAX; ) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      // A console that is gone or broken is no reason to end; its text is lost.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
      tries++;
      Bun.sleepSync(WRITE_WAIT_MS);
    }
  }
}
