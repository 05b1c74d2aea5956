/** Every command of the program, in the order in which the help lists them. */
import { capture } from "./capture.ts";
import type { Command } from "./command.ts";
import { demo } from "./demo.ts";
import { deploy } from "./deploy.ts";
import { init } from "./init.ts";
import { initramfs } from "./initramfs.ts";
import { inspect } from "./inspect.ts";
import { keygen } from "./keygen.ts";
import { seed } from "./seed.ts";
import { serve } from "./serve.ts";
import { track } from "./track.ts";
import { verify } from "./verify.ts";

export const COMMANDS: readonly Command[] = [
  capture,
  seed,
  track,
  deploy,
  serve,
  verify,
  inspect,
  keygen,
  initramfs,
  init,
  demo,
];
