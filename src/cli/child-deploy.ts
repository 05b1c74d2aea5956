/**
 * A node's deployment, in a process of its own: whatever becomes of it, the kernel takes back its memory, its sockets
 * and its hold on the disk, so that it can be tried again for as long as the machine is on. It is the command `deploy` as a
 * script would run it; waiting beside it costs the node 7 MB.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, Failure } from "../errors.ts";
import { ChildProgram, type ProgramEvent } from "./child-program.ts";
import type { Done, Output, Progress, Serving } from "./output.ts";

export interface ChildDeployment {
  /** Raw bytes of the torrent file, or a magnet link. */
  readonly torrent: Uint8Array | string;
  readonly target: string;
  /** Options of `deploy` as words of a command line. */
  readonly options: readonly string[];
  readonly output: Output;
  /** Before the proof it interrupts; after it, it ends the lingering. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: Progress) => void;
  /** The moment of proof, before lingering. */
  readonly onProven: (done: Done) => void;
}

/** What was told of a failure besides its exit code. */
interface Problem {
  readonly code: string;
  readonly message: string;
}

/** Deploys. True: proven, and everything that follows in the deployment is done; false: interrupted. Throws its Failure. */
export async function deployInChild(deployment: ChildDeployment): Promise<boolean> {
  const { torrent, target, options, output, signal } = deployment;
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-init-"));
  try {
    const path = join(folder, "image.torrent");
    if (typeof torrent !== "string") writeFileSync(path, torrent);
    const words = ["deploy", typeof torrent === "string" ? torrent : path, target, ...options];
    let problem: Problem | null = null;
    const child = new ChildProgram(
      words,
      (event) => {
        if (event.event === "error") problem = { code: String(event.code), message: String(event.message) };
        else hear(event, deployment);
      },
      { isApart: true, showsErrors: output.settings.logLevel === "debug" },
    );
    const stop = () => child.interrupt();
    // Where this process ends at once (a second Ctrl-C) nobody is left to hear of the disk that it writes.
    const end = () => child.kill();
    process.on("exit", end);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    const exitCode = await child.exited;
    signal.removeEventListener("abort", stop);
    process.off("exit", end);
    return ended(exitCode, problem);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function ended(exitCode: number, problem: Problem | null): boolean {
  if (exitCode === ExitCode.done) return true;
  if (exitCode === ExitCode.interrupted) return false;
  if (problem !== null) throw new Failure(exitCode as ExitCode, problem.code, problem.message);
  // It did not come to say why: the kernel's killer of processes is the usual reason.
  const why = `the deployment was ended from outside (exit status ${exitCode})`;
  throw new Failure(ExitCode.nothingToFetch, "deployment-died", `${why}: is there memory enough? It is tried again`);
}

/** Tells what it tells, through the node's own output. */
function hear(
  { event, time: _time, ...fields }: ProgramEvent,
  { target, output, onProgress, onProven }: ChildDeployment,
) {
  const told: unknown = fields;
  switch (event) {
    case "start":
      return;
    case "progress":
      if (fields.phase === "serve") return output.serving(told as Serving);
      onProgress(told as Progress);
      return output.progress(told as Progress);
    case "warning":
      return output.warning(String(fields.code), String(fields.message));
    case "done":
      output.done(told as Done, target);
      return onProven(told as Done);
    default:
      output.event(event, fields);
      return output.line(
        `${event}: ${Object.entries(fields)
          .map(([key, value]) => `${key} ${value}`)
          .join(", ")}`,
      );
  }
}
