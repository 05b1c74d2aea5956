/**
 * Long work as its own thread sees it: `serveWork` is the whole body of a worker module. See `work.ts`.
 */
import { workerData } from "node:worker_threads";
import { Failure } from "../errors.ts";
import { nowMs } from "../kernel/clock.ts";
import type { WorkReport, WorkStart } from "./work.ts";

declare const self: Worker;

/** As often as a progress line is redrawn. */
const PROGRESS_INTERVAL_MS = 200;

/** How running work talks with whoever asked for it. */
export interface WorkControl {
  /** Asked now and then: must the work stop? */
  stopped(): boolean;
  /** May be called as often as wanted. */
  progress(bytesDone: number, bytesTotal: number): void;
  warning(code: string, message: string): void;
}

/** Thrown where `WorkControl.stopped` says so, after everything was given back. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Runs `work` on what the thread was started with and reports how it ended. */
export async function serveWork<Options, Result>(
  work: (options: Options, control: WorkControl) => Result | Promise<Result>,
): Promise<void> {
  const start = workerData as WorkStart<Options>;
  const stop = new Int32Array(start.stop);
  const report = (message: WorkReport<Result>) => self.postMessage(message);
  let nextProgressMs = 0;
  const control: WorkControl = {
    stopped: () => Atomics.load(stop, 0) !== 0,
    progress: (bytesDone, bytesTotal) => {
      const now = nowMs();
      if (now < nextProgressMs && bytesDone < bytesTotal) return;
      nextProgressMs = now + PROGRESS_INTERVAL_MS;
      report({ type: "progress", bytesDone, bytesTotal });
    },
    warning: (code, message) => report({ type: "warning", code, message }),
  };
  try {
    report({ type: "done", result: await work(start.options, control) });
  } catch (error) {
    report(reportOf(error));
  }
}

function reportOf(error: unknown): WorkReport<never> {
  if (error instanceof Interrupted) return { type: "interrupted" };
  if (error instanceof Failure)
    return { type: "failed", exitCode: error.exitCode, code: error.code, message: error.message };
  const problem = error instanceof Error ? error : new Error(String(error));
  // An error of the operating system (a folder without permission) names its call and path; it is no bug.
  const { errno, code } = problem as NodeJS.ErrnoException;
  if (typeof errno === "number")
    return { type: "failed", exitCode: 1, code: code ?? "failed", message: problem.message };
  return { type: "bug", message: problem.message, stack: problem.stack ?? problem.message };
}
