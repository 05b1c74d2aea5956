/** Every command of the program, in the order in which the help lists them. */
import type { Command } from "./command.ts";
import { demo } from "./demo.ts";
import { deploy } from "./deploy.ts";
import { seed } from "./seed.ts";
import { serve } from "./serve.ts";
import { track } from "./track.ts";

export const COMMANDS: readonly Command[] = [seed, track, deploy, serve, demo];
