/** The executable's entry: argv to command. The only place that ends the process. */
import { COMMANDS } from "./cli/commands.ts";
import { runProgram } from "./cli/run.ts";
import { descriptorSink } from "./cli/terminal.ts";

process.exit(
  await runProgram(COMMANDS, {
    words: process.argv.slice(2),
    environment: process.env,
    stdout: descriptorSink(1),
    stderr: descriptorSink(2),
    exit: (code) => process.exit(code),
  }),
);
