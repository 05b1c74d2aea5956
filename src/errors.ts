/**
 * The three kinds of failure (a broken invariant, a remote peer's fault, a fault of ours that ends the
 * work) and the exit codes that the command line promises.
 *
 * An invariant is asserted with `assert` and ends the process. A remote peer's fault is a `PeerFault`:
 * that peer is dropped with the reason, the work goes on. Everything a user can act on is a `Failure`
 * with an exit code; its message is the one line that is printed.
 */

export const ExitCode = {
  /** Done and proven. */
  done: 0,
  failed: 1,
  usage: 2,
  /** A hash or a signature did not match. */
  integrity: 3,
  /** The target was refused before the first write. */
  refused: 4,
  /** No peer, tracker or URL to fetch from within the time-out. */
  nothingToFetch: 5,
  interrupted: 130,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** A failure that ends the command. `message` is one line: what, which device or peer, which offset, what to do. */
export class Failure extends Error {
  override readonly name: string = "Failure";
  constructor(
    readonly exitCode: ExitCode,
    /** Short stable word for `--json`, for example `target-mounted`. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A system call on a disk or file failed, or came back short. Ends the deployment. */
export class DiskFault extends Failure {
  override readonly name = "DiskFault";
  constructor(
    readonly device: string,
    readonly operation: string,
    readonly offsetBytes: number,
    /** Positive errno, or 0 for a transfer that ended early without one. */
    readonly errno: number,
    detail: string,
  ) {
    super(ExitCode.failed, "disk-fault", `${operation} ${device} at byte ${offsetBytes}: ${detail}`);
  }
}

/** A remote peer broke the protocol: the peer is dropped, the swarm goes on. */
export class PeerFault extends Error {
  override readonly name = "PeerFault";
}

export function usageError(message: string): Failure {
  return new Failure(ExitCode.usage, "usage", message);
}

export function refusedTarget(code: string, message: string): Failure {
  return new Failure(ExitCode.refused, code, message);
}

/** A broken invariant: a bug of ours. Never caught to go on. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/**
 * `assert` for a number: the message is made only when it does not hold. Checks of every operation would otherwise
 * leave a string behind each, and garbage by the megabyte.
 */
export function assertRange(holds: boolean, what: string, value: number): void {
  if (!holds) throw new AssertionError(`${what} out of range: ${value}`);
}
