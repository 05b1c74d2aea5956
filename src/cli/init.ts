/** `init`: what runs on a node that boots to be imaged. The kernel's command line and the server's plan say what it does. */
import { mkdirSync, readFileSync } from "node:fs";
import { AFTER_ACTIONS, parseCommandLine } from "../boot/init/command-line.ts";
import { Consoles, consolePaths } from "../boot/init/consoles.ts";
import { readMachine } from "../boot/init/machine.ts";
import { isInitramfs } from "../boot/init/surroundings.ts";
import { ExitCode, Failure } from "../errors.ts";
import { defineCommand } from "./command.ts";
import { NODE_OPTION_NAMES } from "./node-options.ts";
import { NodeRun } from "./node-run.ts";
import { choice, type OptionTable, text } from "./options.ts";
import { Output, type Sink } from "./output.ts";
import { descriptorSink } from "./terminal.ts";

const OPTIONS = {
  cmdline: text("FILE", "read this instead of /proc/cmdline"),
  after: choice(AFTER_ACTIONS, "what follows the proof, whatever the kernel command line and the plan say"),
} satisfies OptionTable;

/** The kernel itself takes 4 KiB; a bootconfig may add to it. */
const COMMAND_LINE_BYTES_MAX = 64 * 1024;

export const init = defineCommand({
  name: "init",
  arguments: "",
  summary: "what a node runs that boots to be imaged",
  details: `
The kernel command line says what to do, or a server: the one that it names, that DHCP names, or that
answers on the link.
  diskswarm.server=URL         ask this server for the plan
  diskswarm.torrent=URL        deploy this torrent (or magnet link), whatever the plan
  diskswarm.target=RULE        the disk: a path, serial=, wwn=, model= (with * and ?), size>=, size<=,
                               auto (the smallest that fits), or several of these parted by commas;
                               without any: auto
  diskswarm.after=ACTION       ${AFTER_ACTIONS.join(", ")}; without any: reboot. kexec goes to the
                               kernel that the disk's own boot loader names, or says why not and reboots
  diskswarm.key=BASE64         the torrent must be signed with this key
  diskswarm.debug              tell more
  diskswarm.NAME=VALUE         any option of deploy, such as diskswarm.memory=32M
  rd.shell, rd.emergency=, BOOTIF=   as everywhere
Before the machine goes it is looked whether its firmware will start the disk; under UEFI a boot entry is made
where the disk's loader needs one. A failure that waiting may mend is tried again for ever. Outside of an
initramfs nothing is rebooted, and the clock is left alone, unless --after is given.`,
  options: OPTIONS,
  examples: ["diskswarm init", "diskswarm init --cmdline ./cmdline.txt"],
  exitCodes: Object.values(ExitCode),
  async run({ options, given, output, signal }) {
    const commandLine = parseCommandLine(readCommandLine(options.cmdline ?? "/proc/cmdline"), NODE_OPTION_NAMES);
    const isNode = isInitramfs();
    // Tools' answers go through files there, and not every initramfs has the folder.
    if (isNode) mkdirSync("/tmp", { recursive: true });
    const consoles = new Consoles(isNode && !output.settings.json ? consolePaths() : []);
    if (consoles.missing.length > 0) output.log("debug", `no such console: ${consoles.missing.join(", ")}`);
    try {
      return await new NodeRun({
        commandLine,
        machine: readMachine(commandLine.settings.bootMac),
        after: options.after,
        isOurs: isNode || given.has("after"),
        output: consoles.count > 0 ? consoleOutput(consoles, output, commandLine.settings.debug) : output,
        signal,
      }).run();
    } finally {
      consoles.close();
    }
  },
});

function readCommandLine(path: string): string {
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch (error) {
    throw new Failure(ExitCode.usage, "cmdline", `cannot read ${path}: ${(error as Error).message}`);
  }
  if (content.length > COMMAND_LINE_BYTES_MAX)
    throw new Failure(ExitCode.usage, "cmdline", `${path} is longer than any kernel command line`);
  return content.trim();
}

/** Lines for all consoles, and for standard output where that is none of them (a journal, a file). */
function consoleOutput(consoles: Consoles, output: Output, debug: boolean): Output {
  const sink = (fd: 1 | 2): Sink => {
    const own = descriptorSink(fd);
    return {
      write: (line) => {
        consoles.write(line);
        if (!own.isTerminal) own.write(line);
        return true;
      },
      isTerminal: false,
      columns: () => own.columns(),
    };
  };
  const logLevel = debug ? "debug" : output.settings.logLevel;
  return new Output(sink(1), sink(2), { ...output.settings, logLevel, color: false });
}
