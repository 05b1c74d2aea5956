/** `initramfs`: writes what a node boots over the network or from a stick: kernel, initramfs, and the image for two stages. */
import { ExitCode } from "../errors.ts";
import { Interrupted } from "../image/work-thread.ts";
import { type BuildReport, type BuildRequest, buildInitramfs } from "../boot/initramfs/build.ts";
import { DRIVER_SETS } from "../boot/initramfs/drivers.ts";
import { firmwarePackages } from "../boot/initramfs/firmware-packages.ts";
import { buildFailure } from "../boot/initramfs/problem.ts";
import { buildOverlay, type OverlayReport } from "../boot/initramfs/overlay.ts";
import { type NodeProgram, TOOL_SETS } from "../boot/initramfs/programs.ts";
import { PACKERS } from "../boot/initramfs/squashfs.ts";
import { usageError } from "../errors.ts";
import { formatBytes } from "../units.ts";
import { type Context, defineCommand } from "./command.ts";
import { choice, flag, type OptionTable, repeated, text } from "./options.ts";

const OPTIONS = {
  output: text("DIR", "the folder to write vmlinuz, initrd.img and, with --two-stage, root.squashfs to", "o"),
  kernel: text("VMLINUZ", "the kernel; without it this system's, /boot/vmlinuz-$(uname -r)"),
  modules: text("DIR", "the kernel's modules; without it /lib/modules/ and the kernel's version"),
  drivers: choice(
    DRIVER_SETS,
    "minimal: virtual machines, NVMe and AHCI; host: those of this machine; all: every disk controller and wired network card",
    "all",
  ),
  twoStage: flag(
    "a small initrd.img that fetches root.squashfs over HTTP, goes on where that broke off, and checks it",
  ),
  tools: choice(
    TOOL_SETS,
    "programs that nodes use where they are there: all also grows XFS, Btrfs and NTFS; without it minimal with minimal drivers, else all",
  ),
  compress: choice(PACKERS, "how the image is packed: xz is the smallest, lz4 is made in a moment", "xz"),
  extra: repeated(
    text("FILE", "a further program or file, put into /usr/bin with its libraries; may be given more than once"),
  ),
  binary: text("FILE", "the diskswarm executable to put in; without it this one"),
  firmware: text("DIR", "firmware that drivers ask for; without it /lib/firmware"),
  overlay: flag(
    "write overlay.img instead: to append to an initramfs of yours, whose drivers it uses; rdinit=/diskswarm/init starts it",
  ),
  sysroot: text("DIR", "take busybox, programs and libraries from this folder, for another kind of machine than this"),
} satisfies OptionTable;

type InitramfsContext = Context<typeof OPTIONS>;

export const initramfs = defineCommand({
  name: "initramfs",
  arguments: "",
  summary: "write the kernel and initramfs that nodes boot",
  details: `
What it writes boots by PXE, iPXE, GRUB, UEFI HTTP boot or a USB stick; serve --boot DIR hands it out. On
a node it finds the network, then runs init, which asks the server named on the kernel command line
(diskswarm.server=URL) or by DHCP what to do. Nodes need 192 MB of memory, with --two-stage 128 MB.
Needed on this machine: mksquashfs (Debian: squashfs-tools), a static busybox (busybox-static) and a
kernel with its modules, which must be of one version. The same inputs give the same files. Nothing is
replaced by a build that fails.`,
  options: OPTIONS,
  examples: [
    "diskswarm initramfs -o boot",
    "diskswarm initramfs -o boot --two-stage --drivers host",
    "diskswarm initramfs -o boot --kernel k/boot/vmlinuz-6.1.0-56-amd64 --modules k/lib/modules/6.1.0-56-amd64",
  ],
  exitCodes: [ExitCode.done, ExitCode.failed, ExitCode.usage, ExitCode.interrupted],
  async run(context) {
    const { options, output, signal } = context;
    const request = requestOf(context);
    if (options.overlay) refuseKernelOptions(context);
    output.start(`building for ${request.outputFolder}`, { command: "initramfs", folder: request.outputFolder });
    const startMs = performance.now();
    try {
      if (options.overlay) {
        tellOverlay(context, buildOverlay(request), (performance.now() - startMs) / 1000);
        return ExitCode.done;
      }
      const report = await buildInitramfs(request, (line) => output.line(line), signal);
      tell(context, request, report, (performance.now() - startMs) / 1000);
    } catch (error) {
      if (error instanceof Interrupted) return ExitCode.interrupted;
      throw error;
    }
    return ExitCode.done;
  },
});

function requestOf({ options }: InitramfsContext): BuildRequest {
  const { output, kernel, modules, drivers, twoStage, tools, compress, extra, binary, firmware, sysroot } = options;
  if (output === null)
    throw usageError("initramfs needs -o DIR, the folder to write to (see diskswarm initramfs --help)");
  return {
    outputFolder: output,
    kernel,
    modules,
    drivers,
    tools: tools ?? (drivers === "minimal" ? "minimal" : "all"),
    packer: compress,
    twoStage,
    binary: binary ?? ownBinary(),
    extra,
    sysroot: sysroot === null ? "" : sysroot.replace(/\/+$/, ""),
    firmware,
  };
}

/** Throws a usage failure for options that say something of a kernel: an overlay has none. */
function refuseKernelOptions({ given }: InitramfsContext): void {
  for (const name of ["kernel", "modules", "drivers", "firmware", "twoStage"] as const)
    if (given.has(name))
      throw usageError(`--overlay is for any kernel: leave out --${name === "twoStage" ? "two-stage" : name}`);
}

/** The compiled executable itself. From source there is none. */
function ownBinary(): string {
  if (import.meta.url.includes("/$bunfs/")) return process.execPath;
  throw buildFailure(
    "binary",
    "this is no executable but its source: run npm run build, and give dist/diskswarm with --binary",
  );
}

function tellOverlay({ output }: InitramfsContext, report: OverlayReport, seconds: number): void {
  for (const missing of report.missingPrograms) output.log("info", leftOut(missing));
  output.event("done", { ...report, seconds });
  output.line(`${report.path}: ${formatBytes(report.lengthBytes)}, unpacked ${formatBytes(report.unpackedBytes)}`);
  output.line("append it: cat initrd.img overlay.img > both.img; kernel command line: rdinit=/diskswarm/init");
}

function leftOut({ program, package: name, reason }: NodeProgram): string {
  return `left out: ${program}, which nodes need to ${reason} (package ${name})`;
}

function tell({ output }: InitramfsContext, request: BuildRequest, report: BuildReport, seconds: number): void {
  for (const missing of report.missingPrograms) output.log("info", leftOut(missing));
  if (report.missingFirmware.length > 0) output.log("info", firmwareText(report.missingFirmware));
  output.event("done", { ...report, folder: request.outputFolder, seconds });
  output.line(`kernel ${report.release}; unpacked:`);
  for (const { part, bytes, note } of report.parts)
    output.line(`  ${part.padEnd(12)} ${formatBytes(bytes).padStart(10)}  ${note}`);
  output.line(`written to ${request.outputFolder} in ${seconds.toFixed(0)} s:`);
  for (const { name, bytes, sha256 } of report.files)
    output.line(`  ${name.padEnd(13)} ${formatBytes(bytes).padStart(10)}  ${sha256.slice(0, 16)}`);
}

function firmwareText(missing: readonly string[]): string {
  const shown = missing.slice(0, 4).join(", ");
  const more = missing.length > 4 ? ` and ${missing.length - 4} more` : "";
  const packages = firmwarePackages(missing);
  const remedy = packages.length === 0 ? "no package has it" : `packages ${packages.join(", ")}, or linux-firmware`;
  return `left out: firmware that drivers name and this machine does not have: ${shown}${more} (${remedy})`;
}
