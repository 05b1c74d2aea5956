/**
 * What a user names as a source, made readable as a raw disk: a disk or raw file is one already, a virtual disk is shown
 * as one, every other image is unpacked into the file of `--save`. Capture and seeders read what comes out of this.
 */
import { existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, Failure } from "../../errors.ts";
import type { WorkHooks } from "../work.ts";
import { formatOf, type SourceFormat } from "./format.ts";
import { RawTarget } from "./raw-target.ts";
import { partsOf } from "./split-files.ts";
import { type KnownMaps, unpack } from "./unpack.ts";
import { convertDisk, inspectVirtualDisk, openDiskView, type VirtualDisk } from "./virtual-disk.ts";

/** Where a source that is read as a raw disk came from; plain data, handed to the thread of the capture. */
export interface Origin {
  /** As the user named it, absolute. */
  readonly path: string;
  /** What it is, in words: `a qcow2 image`. */
  readonly format: string;
  /** What is read is the file of `--save`, complete but for its name. */
  readonly isSaveWritten: boolean;
  /** The files that what is read is a view of; none where it is a file of its own. */
  readonly madeOf: readonly string[];
}

export interface PreparedSource {
  /** What is read. */
  readonly path: string;
  /** null: the source itself. */
  readonly origin: Origin | null;
  /** The images' own maps; null where its filesystems have to be asked. */
  readonly maps: KnownMaps | null;
  /** A disk in a file, whose filesystems are asked like those of a disk. */
  readonly isVirtualDisk: boolean;
  /** Ends views, removes what was not given its name. Nobody may be reading it. */
  close(): Promise<void>;
}

const NO_THROW = { throwIfNoEntry: false } as const;

export interface SeedSource extends Pick<PreparedSource, "path" | "close"> {
  /** The files that it is a view of. */
  readonly madeOf: readonly string[];
}

export interface SourceRequest {
  readonly sourcePath: string;
  readonly savePath: string | null;
  /** "raw": the file itself is what nodes get, whatever it is an image of. */
  readonly format: "auto" | "raw";
}

/** Throws Failure (exit 1), Interrupted. */
export async function prepareSource(
  request: SourceRequest,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<PreparedSource> {
  const format: SourceFormat = request.format === "raw" ? { kind: "raw" } : wholeFormat(request.sourcePath);
  if (format.kind === "raw") return asItIs(request.sourcePath);
  const path = realpathSync(request.sourcePath);
  if (format.kind === "unsupported") {
    const advice = "restore it to a disk, or capture its own bytes with --format raw";
    throw failure("image-type", `${path} is ${format.what}, which cannot be opened: ${advice}`);
  }
  if (format.kind === "torrent-info")
    throw failure(
      "image-type",
      `${path} is a torrent.info of partclone: name the disk that it was made of as well, ${path}=DISK`,
    );
  if (format.kind === "virtual-disk") {
    const disk = await inspectVirtualDisk(path, format.driver, signal);
    refuseOverwriting(request.savePath, disk.layers);
    return prepareVirtualDisk(disk, request.savePath, hooks, signal);
  }
  if (request.savePath === null)
    throw failure(
      "needs-save",
      `${path} has to be unpacked to be served: capture it with --save FILE, the raw file to keep`,
    );
  const isFolder = format.kind === "clonezilla";
  refuseOverwriting(request.savePath, isFolder ? readdirSync(path).map((name) => join(path, name)) : partsOf(path));
  return prepareUnpacked(path, format, request.savePath, hooks, signal);
}

/** The format of what lies there, which may be the first of many files. Throws Failure for another one of them. */
function wholeFormat(path: string): SourceFormat {
  const format = formatOf(path);
  // Numbers at the end tell of old copies as well, letters of `split` alone.
  const isPart = format.kind === "raw" && /\.[a-z]{2,4}$/.test(path) && statSync(path, NO_THROW)?.isFile();
  return isPart && partsOf(path).length > 1 ? { kind: "split" } : format;
}

/** The same for a seeder, which keeps nothing: a virtual disk is shown, anything else is read as it is. */
export async function openSeedSource(sourcePath: string, signal: AbortSignal): Promise<SeedSource> {
  const format = formatOf(sourcePath);
  if (format.kind !== "virtual-disk") return { ...asItIs(sourcePath), madeOf: [] };
  const disk = await inspectVirtualDisk(realpathSync(sourcePath), format.driver, signal);
  const view = await openDiskView(disk, signal);
  if (typeof view !== "string") return { ...view, madeOf: disk.layers };
  throw failure("no-view", `${cannotShow(disk, view)}: capture it with --save FILE, and seed that`);
}

function asItIs(path: string): PreparedSource {
  return { path, origin: null, maps: null, isVirtualDisk: false, close: () => Promise.resolve() };
}

async function prepareVirtualDisk(
  disk: VirtualDisk,
  savePath: string | null,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<PreparedSource> {
  const format = `a ${disk.driver} image`;
  const view = await openDiskView(disk, signal);
  if (typeof view !== "string") {
    const origin = { path: disk.path, format, isSaveWritten: false, madeOf: disk.layers };
    return { ...view, origin, maps: null, isVirtualDisk: true };
  }
  if (savePath === null)
    throw failure("no-view", `${cannotShow(disk, view)}: capture it with --save FILE, into which it is converted`);
  hooks.warning("no-view", `${cannotShow(disk, view)}; it is converted into ${savePath} first`);
  const target = new RawTarget(savePath, disk.path);
  try {
    await target.watched(0, hooks, () => convertDisk(disk, target.path, signal));
    return {
      ...saved(target, { path: disk.path, format, isSaveWritten: true, madeOf: [] }, null),
      isVirtualDisk: true,
    };
  } catch (error) {
    target.close();
    throw error;
  }
}

async function prepareUnpacked(
  path: string,
  format: SourceFormat,
  savePath: string,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<PreparedSource> {
  const target = new RawTarget(savePath, path);
  try {
    const { what, maps } = await unpack(path, format, target, hooks, signal);
    return saved(target, { path, format: what, isSaveWritten: true, madeOf: [] }, maps);
  } catch (error) {
    target.close();
    throw error;
  }
}

function saved(target: RawTarget, origin: Origin, maps: KnownMaps | null): PreparedSource {
  const close = () => {
    for (const map of maps?.values() ?? []) map.close();
    target.close();
    return Promise.resolve();
  };
  return { path: target.path, origin, maps, isVirtualDisk: false, close };
}

/** The copy takes its name at the end, and with it the place of what is there. */
function refuseOverwriting(savePath: string | null, sources: readonly string[]): void {
  if (savePath === null || !existsSync(savePath)) return;
  const path = realpathSync(savePath);
  if (sources.some((source) => existsSync(source) && realpathSync(source) === path))
    throw failure("save", `cannot save to ${path}: the source itself consists of it`);
}

function cannotShow(disk: VirtualDisk, reason: string): string {
  return `${disk.path} cannot be shown as a disk here (${reason})`;
}

function failure(code: string, message: string): Failure {
  return new Failure(ExitCode.failed, code, message);
}
