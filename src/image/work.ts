/**
 * Long work (a capture, a verification) in a thread of its own, as the thread that asks for it sees it: it
 * is started, tells how far it is, and can be stopped. `work-thread.ts` is the other side.
 *
 * The work is a synchronous loop over a reactor; only here is it a promise.
 */
import { type ExitCode, ExitCode as Code, Failure } from "../errors.ts";
import { startWorker, type WorkerName } from "../kernel/threads.ts";

/** How the work is watched. */
export interface WorkHooks {
  progress(bytesDone: number, bytesTotal: number): void;
  warning(code: string, message: string): void;
}

/** What the thread says. */
export type WorkReport<Result> =
  | { readonly type: "progress"; readonly bytesDone: number; readonly bytesTotal: number }
  | { readonly type: "warning"; readonly code: string; readonly message: string }
  | { readonly type: "done"; readonly result: Result }
  | { readonly type: "interrupted" }
  | { readonly type: "failed"; readonly exitCode: ExitCode; readonly code: string; readonly message: string }
  | { readonly type: "bug"; readonly message: string; readonly stack: string };

/** `workerData` of the thread. */
export interface WorkStart<Options> {
  readonly options: Options;
  /** One word: not 0 asks the work to stop. */
  readonly stop: SharedArrayBuffer;
}

/**
 * Runs the work of that worker to its end. Resolves with its result, or null when `signal` stopped it and it
 * has cleaned up; rejects with the Failure that ended it.
 */
export function runWork<Options, Result>(
  name: WorkerName,
  options: Options,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<Result | null> {
  const stop = new SharedArrayBuffer(4);
  const requestStop = () => void Atomics.store(new Int32Array(stop), 0, 1);
  if (signal.aborted) requestStop();
  signal.addEventListener("abort", requestStop);
  const start: WorkStart<Options> = { options, stop };
  const worker = startWorker(name, start);
  const ended = new Promise<Result | null>((resolve, reject) => {
    worker.onmessage = (event: MessageEvent<WorkReport<Result>>) => {
      const report = event.data;
      if (report.type === "progress") hooks.progress(report.bytesDone, report.bytesTotal);
      else if (report.type === "warning") hooks.warning(report.code, report.message);
      else if (report.type === "done") resolve(report.result);
      else if (report.type === "interrupted") resolve(null);
      else if (report.type === "failed") reject(new Failure(report.exitCode, report.code, report.message));
      else reject(bugOf(report.message, report.stack));
    };
    worker.onerror = (event: ErrorEvent) =>
      reject(new Failure(Code.failed, "internal", `the ${name} thread failed: ${event.message}`));
  });
  return ended.finally(() => {
    signal.removeEventListener("abort", requestStop);
    worker.terminate();
  });
}

/** The error as it was in the thread, whose stack is what a bug report needs. */
function bugOf(message: string, stack: string): Error {
  const error = new Error(message);
  error.stack = stack;
  return error;
}
