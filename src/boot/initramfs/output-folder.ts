/** The folder that a build writes to. */
import { accessSync, constants, mkdirSync } from "node:fs";
import { buildFailure } from "./problem.ts";

/** Makes it unless it is there; throws Failure where nothing can be written to it. */
export function openOutputFolder(folder: string): string {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw buildFailure("output", `cannot write to the folder ${folder}: ${(error as Error).message}`);
  }
  return folder;
}
