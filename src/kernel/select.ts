/** Chooses the reactor's back end: what `--io auto|uring|epoll` means. */
import { ExitCode, Failure } from "../errors.ts";
import { openEpoll } from "./epoll.ts";
import type { SelectedReactor } from "./reactor.ts";
import { openUring } from "./uring.ts";
import { RingUnavailable } from "./uring-ring.ts";

export type IoChoice = "auto" | "uring" | "epoll";

/**
 * Opens a reactor for the calling thread. `queueDepth` is how many operations are submitted at once; more may
 * be in flight. With `auto`, epoll is taken where io_uring is not to be had and `fallbackReason` says why;
 * `uring` then is a Failure with that reason. Tests pass another `tryUring`.
 */
export function openReactor(io: IoChoice, queueDepth: number, tryUring: typeof openUring = openUring): SelectedReactor {
  if (io === "epoll") return openEpoll();
  try {
    return tryUring(queueDepth);
  } catch (error) {
    if (!(error instanceof RingUnavailable)) throw error;
    if (io === "auto") return openEpoll(error.message);
    throw new Failure(ExitCode.failed, "io-uring", `--io uring: ${error.message}; use --io auto or --io epoll`);
  }
}
