/**
 * A capture as a command asks for it: the source is made readable as a raw disk and surveyed first, beside the event
 * loop since that waits for other programs, then read in a thread of its own.
 */
import { statSync } from "node:fs";
import { Failure, usageError } from "../errors.ts";
import { type CaptureOptions, type CaptureReport, checkOptions } from "./capture.ts";
import { type PreparedSource, prepareSource } from "./foreign/prepared-source.ts";
import { type Survey, surveySource } from "./survey.ts";
import { runWork, type WorkHooks } from "./work.ts";
import { Interrupted } from "./work-thread.ts";

/** How it is found out what is sent. */
export const EXTENTS_CHOICES = ["auto", "partclone", "data", "all"] as const;

export interface CaptureRequest extends Omit<CaptureOptions, "extents" | "survey" | "origin"> {
  /** "raw": the source's own bytes are captured, whatever it is an image of. */
  readonly format: "auto" | "raw";
  /**
   * partclone: used blocks of the filesystems that partclone knows. data: everything but zeros. all: every byte.
   * auto: partclone for a disk, partition or virtual disk, the maps of unpacked images, data for a raw file.
   */
  readonly extents: (typeof EXTENTS_CHOICES)[number];
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
  const options: CaptureOptions = { ...request, extents, survey: null, origin: null };
  checkOptions(options);
  if (request.extents === "partclone" && request.ezio)
    throw usageError("--compat ezio sends every byte of the source; leave --extents partclone away");
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
    const survey = await surveyOf(source, request, namedHooks, signal);
    const work = { ...options, sourcePath: source.path, origin: source.origin, survey };
    return await runWork<CaptureOptions, CaptureReport>("image/capture-worker", work, namedHooks, signal);
  } catch (error) {
    if (error instanceof Failure) throw new Failure(error.exitCode, error.code, named(error.message));
    throw error;
  }
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
  const isKnown = isDisk || isVirtualDisk || maps !== null;
  const asks = extents === "partclone" || (extents === "auto" && isKnown && !ezio);
  if (!asks) return null;
  try {
    const survey = { sourcePath, extents, mergeGapBytes, force, maps };
    return await surveySource(survey, hooks.warning, signal);
  } catch (error) {
    if (!(error instanceof Failure) || extents !== "auto" || !isVirtualDisk || !MISSING.has(error.code)) throw error;
    hooks.warning(error.code, `${error.message}; which blocks the filesystems use is not looked at`);
    return null;
  }
}
