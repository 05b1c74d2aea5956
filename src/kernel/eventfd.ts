/**
 * A bell between threads: one rings, the other hears it in its reactor (`Reactor.pollIn` of `fd`).
 *
 * Made by one thread; others wrap the descriptor's number with `EventFd.of`. The maker closes it, after the
 * others are done with it.
 */
import { assert, ExitCode, Failure } from "../errors.ts";
import * as abi from "./abi.ts";
import { close, Errno, errnoText, eventfd, read, write } from "./libc.ts";
import { mapMemory } from "./memory.ts";

/** What every ring writes and where every read goes; one page for each thread, for as long as the thread lives. */
const buffer = mapMemory(16);
buffer.view.setBigUint64(0, 1n, true);

export class EventFd {
  private constructor(readonly fd: number) {}

  /** Makes a bell that is silent; non-blocking. */
  static create(): EventFd {
    const fd = eventfd(0, abi.EFD_NONBLOCK | abi.EFD_CLOEXEC);
    if (fd < 0) throw new Failure(ExitCode.failed, "eventfd", `cannot make an eventfd: ${errnoText(fd)}`);
    return new EventFd(fd);
  }

  /** Another thread's bell by its descriptor. */
  static of(fd: number): EventFd {
    return new EventFd(fd);
  }

  /** Rings: `pollIn` completes until the bell was reset. A bell that rings already stays ringing. */
  signal(): void {
    const result = write(this.fd, buffer.address, 8);
    // -EAGAIN: the counter is at its maximum, so it is readable, which is what was asked for.
    assert(result === 8 || result === -Errno.EAGAIN, `ringing an eventfd: ${errnoText(result)}`);
  }

  /** Silences the bell. Returns whether it had rung. Look for work after this call, not before. */
  reset(): boolean {
    const result = read(this.fd, buffer.address + 8, 8);
    // A bell that is silent fails with EAGAIN, and this descriptor in no other way. What errno says is not looked at: this is
    // called so often that the runtime came in between and wrote over it (ENOENT, where it looks for a /proc that is not there).
    assert(result === 8 || result < 0, `reading an eventfd: ${result}`);
    return result === 8;
  }

  close(): void {
    const result = close(this.fd);
    assert(result === 0, `closing an eventfd: ${errnoText(result)}`);
  }
}
