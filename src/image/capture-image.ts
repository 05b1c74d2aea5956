/**
 * A capture as a command asks for it: the source is made readable as a raw disk and surveyed first, beside the event
 * loop since that waits for other programs, then read in a thread of its own.
 */
import { statSync } from "node:fs";
import { Failure, usageError } from "../errors.ts";
import { type CaptureOptions, type CaptureReport, checkOptions } from "./capture.ts";
import { cutLikePartclone, type ExactExtents } from "./exact-extents.ts";
import { type PreparedSource, prepareSource } from "./foreign/prepared-source.ts";
import { readTorrentInfo } from "./torrent-info-file.ts";
import { type Survey, surveySource } from "./survey.ts";
import { runWork, type WorkHooks } from "./work.ts";
import { Interrupted } from "./work-thread.ts";

/** How it is found out what is sent. */
export const EXTENTS_CHOICES = ["auto", "partclone", "data", "all"] as const;

export interface CaptureRequest extends Omit<CaptureOptions, "extents" | "survey" | "origin" | "exact"> {
  /** "raw": the source's own bytes are captured, whatever it is an image of. */
  readonly format: "auto" | "raw";
  /**
   * partclone: used blocks of the filesystems that partclone knows. data: everything but zeros. all: every byte.
   * auto: partclone for a disk, partition or virtual disk, the maps of unpacked images, data for a raw file.
   */
  readonly extents: (typeof EXTENTS_CHOICES)[number];
  /** partclone's torrent.info of the source, which says what is sent; null: there is none. */
  readonly torrentInfoPath: string | null;
}

/** What a virtual disk is captured without where it is not there: its zeros are known even so. */
const MISSING = new Set(["tool-missing", "tool-too-old", "no-loop-device"]);

/**
 * Resolves with the report, or null when `signal` stopped it; rejects with the Failure that ended it. What has to be
 * unpacked first tells its progress to `unpackHooks`.
 */
export async function captureImage(
  request: CaptureRequest,
  hooks: WorkHooks,
  unpackHooks: WorkHooks,
  signal: AbortSignal,
): Promise<CaptureReport | null> {
  const extents = request.extents === "all" ? "all" : "data";
  const ezio = request.ezio || request.torrentInfoPath !== null;
  const options: CaptureOptions = { ...request, ezio, extents, survey: null, origin: null, exact: null };
  checkOptions(options);
  if (request.torrentInfoPath !== null && request.extents !== "auto")
    throw usageError(`what is sent stands in ${request.torrentInfoPath}; leave --extents away`);
  try {
    const source = await prepareSource(request, unpackHooks, signal);
    try {
      return await capturePrepared(source, request, options, hooks, signal);
    } finally {
      await source.close();
    }
  } catch (error) {
    if (error instanceof Interrupted) return null;
    throw error;
  }
}

/** What is said of a view or an unpacked file is said of what the user named. */
async function capturePrepared(
  source: PreparedSource,
  request: CaptureRequest,
  options: CaptureOptions,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<CaptureReport | null> {
  const named = (message: string) => message.replaceAll(source.path, request.sourcePath);
  const namedHooks: WorkHooks = { ...hooks, warning: (code, message) => hooks.warning(code, named(message)) };
  try {
    const { path: sourcePath, origin } = source;
    if (request.torrentInfoPath !== null) {
      const exact = readTorrentInfo(request.torrentInfoPath);
      const work = { ...options, sourcePath, origin, exact };
      return await runWork<CaptureOptions, CaptureReport>("image/capture-worker", work, namedHooks, signal);
    }
    const survey = await surveyOf(source, request, namedHooks, signal);
    const exact = survey !== null && options.ezio ? exactOf(survey, source) : null;
    const work = { ...options, sourcePath, origin, survey, exact };
    return await runWork<CaptureOptions, CaptureReport>("image/capture-worker", work, namedHooks, signal);
  } catch (error) {
    if (error instanceof Failure) throw new Failure(error.exitCode, error.code, named(error.message));
    throw error;
  }
}

/**
 * A filesystem's blocks are listed as partclone does: an image's as it restores them, a device's as it clones them.
 * Whole disks it does not know; their ranges stay in one piece each.
 */
function exactOf({ partitions, taken }: Survey, { maps }: PreparedSource): ExactExtents {
  const isFilesystem = partitions === undefined;
  const extents = isFilesystem ? cutLikePartclone(taken, maps?.has(0) ? "image" : "device") : taken;
  return { extents, expected: null };
}

async function surveyOf(
  source: PreparedSource,
  request: CaptureRequest,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<Survey | null> {
  const { mergeGapBytes, force, extents, ezio } = request;
  const { path: sourcePath, maps, isVirtualDisk } = source;
  const isDisk = statSync(sourcePath, { throwIfNoEntry: false })?.isBlockDevice() ?? false;
  // A torrent for EZIO is one of a filesystem, also where a raw file holds it.
  const isKnown = isDisk || isVirtualDisk || maps !== null || ezio;
  const asks = extents === "partclone" || (extents === "auto" && isKnown);
  if (!asks) return null;
  try {
    const survey = { sourcePath, extents, mergeGapBytes, force, maps, isExact: ezio };
    return await surveySource(survey, hooks.warning, signal);
  } catch (error) {
    if (!(error instanceof Failure) || extents !== "auto" || !isVirtualDisk || !MISSING.has(error.code)) throw error;
    hooks.warning(error.code, `${error.message}; which blocks the filesystems use is not looked at`);
    return null;
  }
}
