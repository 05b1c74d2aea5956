/**
 * All consoles of the kernel at once: whoever stands before the machine looks at its screen, whoever sits elsewhere at
 * the serial line, and /dev/console is only the last that was named.
 *
 * A serial line whose other end holds the flow must not hold the deployment: consoles are opened without blocking, and
 * text that one does not take is lost there. The kernel hangs up a terminal whose session ends, as that of a shell there does:
 * what was opened before takes nothing any more, and is opened again.
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
  readonly #open: { readonly path: string; fd: number }[] = [];
  /** Named on the command line, but not there: the kernel prints to them in its own way, if at all. */
  readonly missing: string[] = [];

  constructor(paths: readonly string[]) {
    for (const path of paths) {
      const fd = openConsole(path);
      if (fd === null) this.missing.push(path);
      else this.#open.push({ path, fd });
    }
  }

  get count(): number {
    return this.#open.length;
  }

  write(text: string): void {
    const bytes = Buffer.from(text);
    for (const terminal of this.#open) {
      if (writeAll(terminal.fd, bytes)) continue;
      const fd = openConsole(terminal.path);
      // One that is gone or broken is no reason to end; its text is lost.
      if (fd === null) continue;
      closeSync(terminal.fd);
      terminal.fd = fd;
      writeAll(fd, bytes);
    }
  }

  close(): void {
    for (const { fd } of this.#open.splice(0)) closeSync(fd);
  }
}

/** Null where it is not there, or not to be opened. */
function openConsole(path: string): number | null {
  try {
    return openSync(path, constants.O_WRONLY | constants.O_NOCTTY | constants.O_NONBLOCK);
  } catch {
    return null;
  }
}

/** False where the console takes nothing at all; one that is slow loses what it does not take in time. */
function writeAll(fd: number, bytes: Uint8Array): boolean {
  let rest = bytes;
  for (let tries = 0; rest.length > 0 && tries < WRITE_TRIES_MAX; ) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return false;
      tries++;
      Bun.sleepSync(WRITE_WAIT_MS);
    }
  }
  return true;
}
