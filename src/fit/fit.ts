/**
 * What is done to a disk after its image is proven and flushed, in one order: its table is made right for this disk,
 * identifiers are changed, the last partition grows, the installed system gets its own name, and the kernel looks
 * at the table again. Last of all in a deployment, since other nodes are served the image's bytes before.
 *
 * What the user asked for and cannot be done is a failure (exit 1), which says that the image is there; what was
 * ours to offer (moving the backup GPT) is a warning. A step that fails does not keep the others from their work,
 * unless they would stand on it.
 */
import { ExitCode, Failure, usageError } from "../errors.ts";
import { ToolFailure } from "../image/external-tool.ts";
import { DiskLayout } from "../torrent/disk-layout.ts";
import { rangesEndBytes } from "../torrent/extents.ts";
import type { Metainfo } from "../torrent/types.ts";
import { formatBytes } from "../units.ts";
import { moveBackupGpt } from "./backup-gpt.ts";
import { grow } from "./grow.ts";
import { needGrowingTools } from "./grow-filesystem.ts";
import { newIds } from "./new-ids.ts";
import { PERSONALIZE_TOOLS, personalize } from "./personalize.ts";
import type { Personality } from "./personality.ts";
import { rewriteGpt } from "./rewrite-gpt.ts";
import { foreignGptSectors, rereadPartitions, type TargetDisk, targetDisk } from "./target-disk.ts";
import { BLKID, fitFailure, LOSETUP, needTools, SFDISK } from "./tools.ts";

/** What the user asked for. */
export interface FitOptions {
  readonly convertSectors: boolean;
  readonly grow: boolean;
  readonly newUuids: boolean;
  /** Who this machine is; null: the image is left as it is. */
  readonly personality: Personality | null;
}

export interface FitHooks {
  warning(code: string, message: string): void;
  /** Something was done: for programs and for people. */
  done(event: string, fields: Readonly<Record<string, unknown>>, text: string): void;
  debug(message: string): void;
}

/** Is there what a smaller disk's GPT is rewritten with? */
export function canRewriteTable(): boolean {
  return Bun.which(SFDISK.program) !== null;
}

/**
 * Looks before anything is written whether what was asked for can be done: throws Failure (exit 1) where a tool is
 * missing, and usage (exit 2) where the target is an ordinary file. Of an image that is not known yet (a
 * magnet's) the filesystem's tool is looked for when it is needed.
 */
export function checkFit(options: FitOptions, isFile: boolean, metainfo: Metainfo | null): void {
  const asked = askedFor(options);
  if (asked.length === 0) return;
  if (isFile) throw usageError(`${asked[0]} needs a disk or partition as target, not a file`);
  if (options.convertSectors || options.newUuids) needTools([SFDISK], asked.join(", "));
  if (options.grow) needTools([SFDISK, BLKID, LOSETUP], "--grow");
  if (options.personality !== null) needTools(PERSONALIZE_TOOLS, "--personalize");
  if (options.grow && metainfo !== null) needGrowingTools(lastFilesystem(metainfo));
}

function askedFor({ convertSectors, grow, newUuids, personality }: FitOptions): string[] {
  const asked: [boolean, string][] = [
    [convertSectors, "--convert-sectors"],
    [grow, "--grow"],
    [newUuids, "--new-uuids"],
    [personality !== null, "--personalize"],
  ];
  return asked.filter(([isAsked]) => isAsked).map(([, name]) => name);
}

function lastFilesystem(metainfo: Metainfo): string {
  const types = metainfo.image?.filesystems ?? [];
  const partitions = DiskLayout.of(metainfo)?.table.partitions;
  if (partitions === undefined) return types[0] ?? "";
  const last = partitions.reduce((a, b) => (!b.isExtended && b.startBytes > a.startBytes ? b : a));
  return types[partitions.indexOf(last)] ?? "";
}

/** Does all of it. Throws Failure (exit 1) where something was not done. */
export async function fitTarget(path: string, metainfo: Metainfo, options: FitOptions, hooks: FitHooks): Promise<void> {
  const disk = targetDisk(path);
  if (disk.kind === "file") return;
  await new Fitting(disk, metainfo, options, hooks).run();
}

class Fitting {
  private readonly failures: Failure[] = [];

  constructor(
    private readonly disk: TargetDisk,
    private readonly metainfo: Metainfo,
    private readonly options: FitOptions,
    private readonly hooks: FitHooks,
  ) {}

  async run(): Promise<void> {
    const { options } = this;
    const isTableRight = await this.step("the partition table was not made right for it", () => this.fitTable());
    if (isTableRight) {
      if (options.newUuids) await this.step("its identifiers are the image's", () => this.changeIds());
      if (options.grow) await this.step("it was not grown", () => this.growLast());
    }
    const kept = await rereadPartitions(this.disk);
    if (kept !== null)
      this.hooks.debug(`the kernel did not read the partition table of ${this.disk.path} again: ${kept}`);
    if (isTableRight && options.personality !== null)
      await this.step("it was not personalized", () => this.giveName(options.personality!));
    this.throwFailures();
  }

  /** False where it failed. */
  private async step(consequence: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      const failure = error instanceof Failure ? error : systemFailure(error);
      const problem = failure instanceof ToolFailure ? failure.problem : failure.message;
      this.failures.push(new Failure(failure.exitCode, failure.code, `${consequence}: ${problem}`));
      return false;
    }
  }

  private throwFailures(): void {
    const [first] = this.failures;
    if (first === undefined) return;
    const what = this.failures.map(({ message }) => message).join("; and ");
    throw new Failure(first.exitCode, first.code, `the image is on ${this.disk.path} and proven, but ${what}`);
  }

  private async fitTable(): Promise<void> {
    const { disk, metainfo, hooks } = this;
    const layout = DiskLayout.of(metainfo);
    const { image } = metainfo;
    const isConverted = layout !== null && image!.sectorBytes !== disk.sectorBytes;
    if (layout?.isGpt && (isConverted || disk.sizeBytes < image!.diskBytes)) {
      const { hadHybridMbr } = await rewriteGpt(disk, layout, image!.sectorBytes);
      if (hadHybridMbr)
        hooks.warning(
          "hybrid-mbr",
          `the MBR of ${disk.path} no longer lists partitions beside its GPT, as the image's did`,
        );
      const sectors = isConverted ? ` and sectors of ${disk.sectorBytes} bytes` : "";
      const text = `the GPT of ${disk.path} was rewritten for a disk of ${formatBytes(disk.sizeBytes)}${sectors}`;
      return hooks.done("table-rewritten", { target: disk.path, sectorBytes: disk.sectorBytes }, text);
    }
    if (layout === null) this.lookForOtherSectors();
    const outcome = await moveBackupGpt(disk.path);
    if (outcome.type === "left") hooks.warning("backup-gpt", outcome.problem);
    if (outcome.type !== "moved") return;
    const text = `${disk.path} is larger than the image's disk: its backup GPT was moved to its end`;
    hooks.done("backup-gpt", { target: disk.path, fromBytes: outcome.fromBytes }, text);
  }

  /** Of an image that does not say what partitions it has, the wrong table is found only when it is there. */
  private lookForOtherSectors(): void {
    const { disk, options, hooks } = this;
    const sectorBytes = foreignGptSectors(disk);
    if (sectorBytes === null) return;
    const what = `the GPT of ${disk.path} counts in sectors of ${sectorBytes} bytes and the disk in ${disk.sectorBytes}`;
    const problem = `${what}: nothing finds its partitions; capture the image with --extents partclone, which can be converted`;
    if (options.convertSectors) throw fitFailure("table-sectors", problem);
    hooks.warning("table-sectors", problem);
  }

  private async changeIds(): Promise<void> {
    const { disk, hooks } = this;
    const { label, from, to } = await newIds(disk);
    hooks.done("new-uuids", { target: disk.path, from, to }, `${disk.path} has new identifiers: ${from} became ${to}`);
    const who =
      label === "gpt"
        ? "PARTUUID= in boot loaders and fstab, UEFI boot entries and Windows' boot configuration"
        : "PARTUUID= in boot loaders and fstab and Windows' boot configuration";
    hooks.warning(
      "new-uuids",
      `what names the disk or its partitions by their old identifiers does not find them: ${who}`,
    );
  }

  private async growLast(): Promise<void> {
    const { disk, metainfo, hooks } = this;
    const grown = await grow(disk, metainfo.image?.diskBytes ?? rangesEndBytes(metainfo.extents));
    if (grown === null) return hooks.debug(`${disk.path} has no free space behind its last partition: nothing to grow`);
    const { number, filesystem, fromBytes, toBytes } = grown;
    const what = number === 0 ? disk.path : `partition ${number} of ${disk.path}`;
    const check = filesystem === "ntfs" ? "; Windows checks it when it starts" : "";
    const text = `${what} (${filesystem}) grew from ${formatBytes(fromBytes)} to ${formatBytes(toBytes)}${check}`;
    hooks.done("grown", { target: disk.path, partition: number, filesystem, fromBytes, toBytes }, text);
  }

  private async giveName(personality: Personality): Promise<void> {
    const { disk, hooks } = this;
    const { place, sshHostKeys } = await personalize(disk, personality, (code, message) =>
      hooks.warning(code, message),
    );
    const { hostname } = personality;
    const text = `${disk.path}: the system on ${place} is ${hostname} now`;
    hooks.done("personalized", { target: disk.path, place, hostname, sshHostKeys }, text);
  }
}

/** A call of the system that failed (a full filesystem, a disk that does not take a write) is told like a Failure. */
function systemFailure(error: unknown): Failure {
  const { syscall, code, message } = error as NodeJS.ErrnoException;
  if (syscall === undefined || code === undefined) throw error;
  return new Failure(ExitCode.failed, "fit", message);
}
