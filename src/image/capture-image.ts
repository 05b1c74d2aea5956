/**
 * A capture as a command asks for it: the survey first, beside the event loop since it waits for other
 * programs, then the reading in a thread of its own.
 */
import { statSync } from "node:fs";
import { usageError } from "../errors.ts";
import { type CaptureOptions, type CaptureReport, checkOptions } from "./capture.ts";
import { type Survey, surveySource } from "./survey.ts";
import { runWork, type WorkHooks } from "./work.ts";
import { Interrupted } from "./work-thread.ts";

/** How it is found out what is sent. */
export const EXTENTS_CHOICES = ["auto", "partclone", "data", "all"] as const;

export interface CaptureRequest extends Omit<CaptureOptions, "extents" | "survey"> {
  /**
   * partclone: used blocks of the filesystems that partclone knows. data: everything but zeros. all: every byte.
   * auto: partclone for a disk or partition, data for a file.
   */
  readonly extents: (typeof EXTENTS_CHOICES)[number];
}

/** Resolves with the report, or null when `signal` stopped it; rejects with the Failure that ended it. */
export async function captureImage(
  request: CaptureRequest,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<CaptureReport | null> {
  const options: CaptureOptions = { ...request, extents: request.extents === "all" ? "all" : "data", survey: null };
  checkOptions(options);
  const survey = await surveyOf(request, hooks, signal);
  if (survey === "interrupted") return null;
  return runWork<CaptureOptions, CaptureReport>("image/capture-worker", { ...options, survey }, hooks, signal);
}

async function surveyOf(
  request: CaptureRequest,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<Survey | null | "interrupted"> {
  const { sourcePath, mergeGapBytes, force, extents, ezio } = request;
  if (extents === "partclone" && ezio)
    throw usageError("--compat ezio sends every byte of the source; leave --extents partclone away");
  const isDisk = statSync(sourcePath, { throwIfNoEntry: false })?.isBlockDevice() ?? false;
  const asks = extents === "partclone" || (extents === "auto" && isDisk && !ezio);
  if (!asks) return null;
  try {
    const choice = extents === "partclone" ? "partclone" : "auto";
    return await surveySource({ sourcePath, extents: choice, mergeGapBytes, force }, hooks.warning, signal);
  } catch (error) {
    if (error instanceof Interrupted) return "interrupted";
    throw error;
  }
}
