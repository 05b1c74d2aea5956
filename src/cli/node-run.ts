/**
 * A node's work, from the kernel's command line to the disk that is proven and what follows: find the server, ask it
 * what to do, choose the disk, deploy, and go on as told.
 *
 * A machine that stops has nobody beside it. So what trying again can mend is tried again for ever (no server, no
 * plan, nobody to fetch from), with longer and longer pauses; what it cannot mend (no disk fits, a wrong key, a disk
 * that fails) stays on the consoles and at the server until the plan or the disks change. Nothing follows a
 * deployment that is not proven.
 */
import { endMachine, type PowerAction, runShell } from "../boot/init/after.ts";
import { askServer, findPlan, NoPlan } from "../boot/init/ask-plan.ts";
import { checkBoot } from "../boot/init/boot-check.ts";
import { isAbsurd, setClock } from "../boot/init/clock.ts";
import type { AfterAction, ParsedCommandLine } from "../boot/init/command-line.ts";
import type { ImageFit } from "../boot/init/choose-target.ts";
import { consolePaths } from "../boot/init/consoles.ts";
import { type Disk, readDisks } from "../boot/init/disks.ts";
import { disksKey, type FoundTarget, findTarget, TargetRefusal } from "../boot/init/find-target.ts";
import { loadKernel, startKernel } from "../boot/init/kexec.ts";
import type { Machine } from "../boot/init/machine.ts";
import { Reporter } from "../boot/init/reporter.ts";
import { isUefi } from "../boot/init/surroundings.ts";
import { parseTargetRule, type TargetRule } from "../boot/init/target-rule.ts";
import { checkFits, needsOf } from "../disk/target.ts";
import { ExitCode, Failure, usageError } from "../errors.ts";
import { canRewriteTable } from "../fit/fit.ts";
import { targetDisk, type TargetDisk } from "../fit/target-disk.ts";
import { pause } from "../pause.ts";
import { formatBytes } from "../units.ts";
import { VERSION } from "../version.ts";
import { deployInChild } from "./child-deploy.ts";
import { nodeOptionWords } from "./node-options.ts";
import { type Done, type Output, type Progress, secondsText } from "./output.ts";
import { loadTorrentArgument, type TorrentArgument } from "./torrent-argument.ts";

export interface NodeOptions {
  readonly commandLine: ParsedCommandLine;
  readonly machine: Machine;
  /** What the command's own line says is to follow; null: the kernel's, then the plan's. */
  readonly after: AfterAction | null;
  /** The machine is ours: its clock is set and it is rebooted. */
  readonly isOurs: boolean;
  readonly output: Output;
  readonly signal: AbortSignal;
  /** What becomes of the machine; tests have another. */
  readonly machineEnd?: (action: PowerAction) => Promise<never>;
  readonly times?: Partial<NodeTimes>;
}

/** What is to be done, put together from the command line and the plan. */
interface Task {
  readonly torrent: string;
  readonly target: TargetRule;
  readonly after: AfterAction;
  readonly options: Readonly<Record<string, string>>;
}

/** A target that is proven, and what is to follow. */
interface Proven {
  readonly after: AfterAction;
  readonly path: string;
}

const AUTO = parseTargetRule("auto") as TargetRule;
const AFTER_DEFAULT: AfterAction = "reboot";

/** How long a node waits, in ms. */
export interface NodeTimes {
  /** Between two tries, doubled from the first to the last: a server that restarts is found soon, one that is off is not flooded. */
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
  /** How often is looked whether what holds the node up has changed. */
  readonly pollMs: number;
  /** How often a message that stands is told again. */
  readonly repeatMs: number;
  /** A node goes on serving others no longer than this: one that hangs must not keep the whole room. */
  readonly lingerMaxMs: number;
  /** A reason must be readable before the machine goes. */
  readonly emergencyDelayMs: number;
}

const TIMES: NodeTimes = {
  retryMinMs: 2_000,
  retryMaxMs: 30_000,
  pollMs: 15_000,
  repeatMs: 60_000,
  lingerMaxMs: 600_000,
  emergencyDelayMs: 15_000,
};

/** A torrent's URL is asked for that long before the plan is asked for again. */
const TORRENT_TIMEOUT_MS = 20_000;
/** How long the last words to the server may take. */
const FLUSH_MS = 5_000;

export class NodeRun {
  private readonly reporter: Reporter;
  /** Origin of the server that gave the plan, and the plan as it was. */
  private server: string | null;
  private planText: string | null = null;
  private readonly times: NodeTimes;
  private told = { message: "", timeMs: 0 };

  constructor(private readonly options: NodeOptions) {
    const { machine, signal, output, commandLine } = options;
    this.reporter = new Reporter(machine.id, signal, (line) => output.log("debug", line));
    this.times = { ...TIMES, ...options.times };
    const { server, torrent } = commandLine.settings;
    this.server = server ?? (torrent !== null && /^https?:/i.test(torrent) ? new URL(torrent).origin : null);
  }

  /** Ends with exit code 0 where the machine is not ours to end, and never where it is and all went well. */
  async run(): Promise<ExitCode> {
    this.begin();
    const proven = await this.untilProven();
    return proven === null ? ExitCode.interrupted : this.finish(proven);
  }

  /** Tries until it is done. Null: interrupted. */
  private async untilProven(): Promise<Proven | null> {
    const { signal, isOurs } = this.options;
    const { retryMinMs, retryMaxMs } = this.times;
    for (let retryMs = retryMinMs; ; retryMs = Math.min(2 * retryMs, retryMaxMs)) {
      try {
        return await this.attempt();
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        if (signal.aborted) return null;
        const mayHelp = error.exitCode === ExitCode.nothingToFetch;
        if (!mayHelp && !isOurs) throw error;
        this.tellFailure(error);
        if (mayHelp) await pause(retryMs, signal);
        else {
          await this.hold(error);
          retryMs = retryMinMs;
        }
        if (signal.aborted) return null;
      }
    }
  }

  private begin(): void {
    const { machine, output } = this.options;
    const { id, serial, product, address } = machine;
    const who = [product, serial === null ? null : `serial ${serial}`, id, address].filter((part) => part !== null);
    output.start(`diskswarm ${VERSION} on ${who.join(", ")}`, { command: "init", ...machine });
    this.reporter.tell({
      phase: "booted",
      version: VERSION,
      ...(serial === null ? {} : { serial }),
      ...(product === null ? {} : { product }),
      ...(address === null ? {} : { address }),
    });
    this.reporter.server = this.server;
  }

  /** One try. Null where it was interrupted before the proof. */
  private async attempt(): Promise<Proven | null> {
    const { output, signal } = this.options;
    const task = await this.plan();
    const words = nodeOptionWords(task.options, "the plan or the kernel command line");
    const torrent = await loadTorrentArgument(task.torrent, { timeoutMs: TORRENT_TIMEOUT_MS, signal, output });
    const image = imageName(torrent);
    this.reporter.tell({ phase: "plan", image, message: `target ${task.target.text}` });
    const { path, disk } = await this.target(task, torrent);
    const lingering = new AbortController();
    let lingerTimer: Timer | undefined;
    output.line(`deploying ${image} to ${path}`);
    const isDone = await deployInChild({
      torrent: torrent.file?.bytes ?? task.torrent,
      target: path,
      options: words,
      output,
      signal: AbortSignal.any([signal, lingering.signal]),
      onProgress: (progress) => this.tellProgress(progress),
      onProven: (done) => {
        // How long is somebody's word; until the swarm is done is not.
        const { linger = "swarm" } = task.options;
        if (linger === "swarm") lingerTimer = setTimeout(() => lingering.abort(), this.times.lingerMaxMs);
        this.tellProven(done, image, describe({ path, disk }));
      },
    }).finally(() => clearTimeout(lingerTimer));
    return isDone ? { after: task.after, path } : null;
  }

  /** What to do: the command line's own words before the plan's, the plan's before what goes without saying. */
  private async plan(): Promise<Task> {
    const { commandLine, machine, after, signal } = this.options;
    const { settings, problems } = commandLine;
    if (problems.length > 0) throw usageError(problems.join("; "));
    const keyOption: Record<string, string> = settings.key === null ? {} : { key: settings.key };
    if (settings.torrent !== null)
      return {
        torrent: settings.torrent,
        target: settings.target ?? AUTO,
        after: after ?? settings.after ?? AFTER_DEFAULT,
        options: { ...settings.options, ...keyOption },
      };
    const found = await findPlan(settings.server, machine, signal);
    this.server = found.server;
    this.planText = found.text;
    this.reporter.server = found.server;
    await this.correctClock(found.dateMs);
    const { plan } = found;
    this.options.output.line(`${found.server} has a plan: ${plan.torrent}`);
    return {
      torrent: plan.torrent,
      target: settings.target ?? plan.target ?? AUTO,
      after: after ?? settings.after ?? plan.after ?? AFTER_DEFAULT,
      options: { ...plan.options, ...settings.options, ...keyOption },
    };
  }

  private async target({ target: rule, options }: Task, torrent: TorrentArgument): Promise<FoundTarget> {
    const { output, signal } = this.options;
    const fit = imageFit(torrent, "convert-sectors" in options);
    const found = await findTarget({ rule, fit, signal, tell: (line) => output.line(line) });
    const what = describe(found);
    output.event("target", { path: found.path, rule: rule.text, ...(found.disk ?? {}) });
    output.line(`the target is ${what}`);
    this.reporter.tell({ phase: "target", target: what });
    return found;
  }

  private async correctClock(dateMs: number | null): Promise<void> {
    const { output, isOurs } = this.options;
    if (dateMs === null || !isOurs || !isAbsurd(Date.now()) || isAbsurd(dateMs)) return;
    const problem = await setClock(dateMs);
    if (problem === null) output.line(`the clock was wrong and is now that of the server: ${new Date().toISOString()}`);
    else output.warning("clock", `the clock is wrong and could not be set: ${problem}`);
  }

  private tellProgress({ phase, bytesDone, bytesTotal, peers, rateBytesPerSecond }: Progress): void {
    const rate = Math.round(rateBytesPerSecond);
    this.reporter.tell({ phase: "progress", message: phase, bytesDone, bytesTotal, peers, rateBytesPerSecond: rate });
  }

  private tellProven({ bytesTotal, seconds }: Done, image: string, target: string): void {
    const message = `proven and flushed after ${secondsText(seconds)}`;
    this.reporter.tell({ phase: "done", image, target, message, bytesDone: bytesTotal, bytesTotal });
  }

  /** What stands on the consoles is told again now and then, not with every try. */
  private tellFailure(error: Failure): void {
    const nowMs = performance.now();
    const isNew = error.message !== this.told.message;
    if (!isNew && nowMs - this.told.timeMs < this.times.repeatMs) return;
    this.told = { message: error.message, timeMs: nowMs };
    this.options.output.error(error.code, error.message);
    if (error instanceof TargetRefusal) this.options.output.trace(error.table.join("\n"));
    // Without a server there is nobody to tell; with one that has no plan yet the node is waiting, not broken.
    if (error instanceof NoPlan || !isNew) return;
    // Who reads it at the server sees no table.
    const disks = error instanceof TargetRefusal ? `: ${error.disks}` : "";
    this.reporter.tell({ phase: "failed", code: error.code, message: `${error.message}${disks}` });
  }

  /** Stays with a failure until something changes: the plan, the disks, or whoever uses the shell. */
  private async hold(error: Failure): Promise<void> {
    const { commandLine, output, signal } = this.options;
    const { shell, emergency } = commandLine.settings;
    if (shell) {
      await this.shell("a shell follows because of rd.shell; leave it (exit) to try again");
      return;
    }
    if (emergency !== null) {
      output.line(`${emergency} follows in ${this.times.emergencyDelayMs / 1000} s because of rd.emergency`);
      await pause(this.times.emergencyDelayMs, signal);
      if (!signal.aborted) await this.end(emergency);
    }
    const disks = disksKey(readDisks());
    output.line("this machine waits until the plan or its disks change; switch it off, or add rd.shell for a shell");
    for (;;) {
      await pause(this.times.pollMs, signal);
      if (signal.aborted) return;
      if (disksKey(readDisks()) !== disks) return output.line("the disks have changed: trying again");
      if (await this.planHasChanged()) return output.line("the plan has changed: trying again");
      this.tellFailure(error);
    }
  }

  private async planHasChanged(): Promise<boolean> {
    const { machine, signal, output, commandLine } = this.options;
    if (this.server === null || commandLine.settings.torrent !== null || commandLine.problems.length > 0) return false;
    try {
      return (await askServer(this.server, machine, signal)).text !== this.planText;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      output.log("debug", error.message);
      return false;
    }
  }

  /** The disk is proven, and nothing but this is left to do. */
  private async finish({ after, path }: Proven): Promise<ExitCode> {
    const { output, isOurs } = this.options;
    if (!isOurs) {
      output.line(`done; no ${after} follows, since this is no initramfs (--after ${after} does it all the same)`);
      return ExitCode.done;
    }
    const disk = await this.afterwards("boot", () => this.checkBoot(path));
    if (after === "kexec" && disk !== null) await this.afterwards("kexec", () => this.kexec(disk));
    if (after === "shell") await this.shell("the disk is done; leave this shell (exit) to reboot");
    return this.end(after === "poweroff" ? "poweroff" : "reboot");
  }

  /** What fails after the proof is told, and takes nothing from it. */
  private async afterwards<T>(code: string, work: () => Promise<T>): Promise<T | null> {
    try {
      return await work();
    } catch (error) {
      const isOfTheSystem = typeof (error as NodeJS.ErrnoException).errno === "number";
      if (!(error instanceof Failure) && !isOfTheSystem) throw error;
      this.warn(code, (error as Error).message);
      return null;
    }
  }

  /** Will the firmware start it? */
  private async checkBoot(path: string): Promise<TargetDisk> {
    const disk = targetDisk(path);
    const { note, problem } = await checkBoot(disk, isUefi());
    if (note !== null) this.options.output.line(note);
    if (problem !== null) this.warn("boot", problem);
    return disk;
  }

  /** Returns where it does not come to it: a reboot gets to the same system, only later. */
  private async kexec(disk: TargetDisk): Promise<void> {
    const kernel = await loadKernel(disk);
    if ("why" in kernel) return this.warn("kexec", `no kexec, but a reboot: ${kernel.why}`);
    this.options.output.line(`starting ${kernel.loaded}`);
    this.reporter.tell({ phase: "kexec", message: kernel.loaded });
    await this.reporter.flush(FLUSH_MS);
    this.warn("kexec", `no kexec, but a reboot: ${await startKernel()}`);
  }

  /** Something that the admin has to hear of although the disk is done. */
  private warn(code: string, message: string): void {
    this.options.output.warning(code, message);
    this.reporter.tell({ phase: "done", code, message });
  }

  private async end(action: PowerAction): Promise<never> {
    const { output, signal, machineEnd = endMachine } = this.options;
    output.line(`${action} follows`);
    if (action !== "halt") this.reporter.tell({ phase: action === "reboot" ? "rebooting" : action });
    await this.reporter.flush(FLUSH_MS);
    for (;;) {
      // It returns only by its failure: then somebody has to come, and the next try is for who is on the way.
      await this.afterwards("after", () => machineEnd(action));
      await pause(this.times.repeatMs, signal);
    }
  }

  private async shell(words: string): Promise<void> {
    const { output } = this.options;
    this.reporter.tell({ phase: "shell", message: words });
    output.line(words);
    const consoles = consolePaths();
    const problem = await runShell(consoles.length > 0 ? consoles : ["/dev/console"]);
    if (problem !== null) output.warning("shell", problem);
    if (problem !== null) await pause(this.times.repeatMs, this.options.signal);
  }
}

/** Whether an image fits a disk, in the words in which `deploy` would refuse it. Of a magnet link nothing is known yet. */
function imageFit({ file }: TorrentArgument, convertSectors: boolean): ImageFit {
  if (file === null) return { diskBytes: 0, whyNot: () => null };
  const needs = needsOf(file.metainfo);
  const permits = { canRewriteTable: canRewriteTable(), convertSectors };
  const whyNot = ({ path, sizeBytes, sectorBytes }: Disk) => {
    try {
      checkFits(path, sizeBytes, sectorBytes, needs, permits);
      return null;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return error.message.replace(/^target \S+ refused: /, "");
    }
  };
  return { diskBytes: needs.bytes, whyNot };
}

function imageName({ name, infoHash }: TorrentArgument): string {
  return name ?? infoHash.toHex();
}

function describe({ path, disk }: FoundTarget): string {
  if (disk === null) return path;
  const words = [disk.model, disk.serial === "" ? "" : `serial ${disk.serial}`, formatBytes(disk.sizeBytes)];
  return `${path} (${words.filter((word) => word !== "").join(", ")})`;
}
