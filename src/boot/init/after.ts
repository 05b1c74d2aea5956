/**
 * What becomes of the machine when its disk is done: reboot, power off, or a shell. `kexec.ts` has the fourth.
 *
 * Nothing here asks whether it may: `surroundings.ts` is what keeps somebody's own computer from being rebooted.
 */
import { closeSync, constants, existsSync, openSync, writeFileSync } from "node:fs";
import { ExitCode, Failure } from "../../errors.ts";
import { pause } from "../../pause.ts";
import { askTool } from "./node-tool.ts";

export type PowerAction = "reboot" | "poweroff" | "halt";

/** The letters of /proc/sysrq-trigger (Documentation/admin-guide/sysrq.rst); there is none for halt. */
const SYSRQ: Partial<Record<PowerAction, string>> = { reboot: "b", poweroff: "o" };
/** The kernel ends the machine within this, or not at all. */
const GRACE_MS = 20_000;

/**
 * Ends the machine. Everything was flushed before; file systems of the disk are not mounted. Does not return where it
 * works; throws a Failure where nothing did.
 */
export async function endMachine(action: PowerAction): Promise<never> {
  const problems: string[] = [];
  const never = new AbortController().signal;
  for (const words of [["sync"], [action, "-f"]]) {
    const { problem } = await askTool({ program: words[0]!, package: "busybox" }, words.slice(1));
    if (problem !== null) problems.push(problem);
    else if (words[0] === action) await pause(GRACE_MS, never);
  }
  const letter = SYSRQ[action];
  if (letter !== undefined && existsSync("/proc/sysrq-trigger")) {
    writeFileSync("/proc/sysrq-trigger", letter);
    await pause(GRACE_MS, never);
  }
  const why = problems.length === 0 ? "nothing happened" : problems.join("; ");
  throw new Failure(ExitCode.failed, "after", `the machine does not ${action} (${why}): switch it off and on`);
}

/** A shell that ends sooner had no console to read from: nobody leaves one as fast. */
const SHELL_START_MS = 250;

/** A shell on each of the consoles, until one of them is left. Returns what went wrong, or null. */
export async function runShell(consoles: readonly string[]): Promise<string | null> {
  const shell = ["/bin/sh", "/bin/bash"].find((path) => existsSync(path));
  if (shell === undefined) return "there is no shell in this initramfs";
  // Its own session with the console as its terminal, so that Ctrl-C ends what runs in it.
  const setsid = Bun.which("setsid");
  const command = setsid === null ? [shell, "-i"] : [setsid, "-c", shell, "-i"];
  const children = consoles.flatMap((path) => startOn(path, command));
  await pause(SHELL_START_MS, new AbortController().signal);
  const alive = children.filter((child) => child.exitCode === null && child.signalCode === null);
  if (alive.length === 0) return `no shell can be had on ${consoles.join(" or ") || "any console"}`;
  await Promise.race(alive.map((child) => child.exited));
  for (const child of children) child.kill("SIGHUP");
  return null;
}

/** None where the console is named and not there. */
function startOn(path: string, command: string[]): Bun.Subprocess[] {
  let terminal: number;
  try {
    terminal = openSync(path, constants.O_RDWR | constants.O_NOCTTY);
  } catch {
    return [];
  }
  try {
    return [Bun.spawn(command, { stdio: [terminal, terminal, terminal], env: { ...process.env, TERM: "linux" } })];
  } finally {
    closeSync(terminal);
  }
}
