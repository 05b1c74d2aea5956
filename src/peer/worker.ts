/**
 * The reactor thread's entry: runs one peer from its options to its end, and says how it ended.
 * A Failure becomes the event that the command line prints; a broken invariant ends the program.
 */
import { workerData } from "node:worker_threads";
import { AssertionError, ExitCode, Failure } from "../errors.ts";
import { Reporter } from "./reporter.ts";
import { runPeer } from "./run.ts";
import type { WorkerData, WorkerReport } from "./worker-messages.ts";

declare const self: { postMessage(report: WorkerReport): void };

try {
  const interrupted = runPeer(workerData as WorkerData, new Reporter((report) => self.postMessage(report)));
  self.postMessage({ type: "ended", interrupted });
} catch (error) {
  self.postMessage(failureOf(error));
}

function failureOf(error: unknown): WorkerReport {
  if (error instanceof Failure) {
    return { type: "failed", exitCode: error.exitCode, code: error.code, message: error.message };
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const kind = error instanceof AssertionError ? "a broken invariant" : "an unexpected error";
  return {
    type: "failed",
    exitCode: ExitCode.failed,
    code: "internal",
    message: `${kind} in the data plane, please report it: ${text}`,
  };
}
