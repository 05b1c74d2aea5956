/**
 * Builds what a node boots: the kernel, an initramfs and, in two stages, the image that the first stage fetches.
 *
 * Everything is written beside its final name and renamed at the end: a build that fails, is interrupted or runs out
 * of disk leaves what was there before. The same inputs give the same bytes.
 */
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { release as runningRelease } from "node:os";
import { join } from "node:path";
import { syncFolder } from "../../image/atomic-file.ts";
import { type ArchivePacker, writeArchive, writeCopy } from "./archive-file.ts";
import { chooseDrivers, type DriverSet } from "./drivers.ts";
import { FileTree } from "./file-tree.ts";
import { KernelConfig } from "./kernel-config.ts";
import { type KernelFacts, kernelFacts } from "./kernel-image.ts";
import { Libraries } from "./libraries.ts";
import { type FirmwareReport, ModuleFiles } from "./module-files.ts";
import { ModuleTree } from "./module-tree.ts";
import { buildFailure } from "./problem.ts";
import { openOutputFolder } from "./output-folder.ts";
import { addPrograms, needFiles, needStaticBusybox, type NodeProgram, type ToolSet } from "./programs.ts";
import { fillFirstRoot, fillSecondRoot } from "./roots.ts";
import { BLOCK_BYTES, makeSquashfs, needSquashfsTools, type Packer, SMALL_BLOCK_BYTES } from "./squashfs.ts";

export interface BuildRequest {
  readonly outputFolder: string;
  /** Null: the running system's. */
  readonly kernel: string | null;
  readonly modules: string | null;
  readonly drivers: DriverSet;
  readonly tools: ToolSet;
  readonly packer: Packer;
  readonly twoStage: boolean;
  readonly binary: string;
  readonly extra: readonly string[];
  /** Folder whose programs and libraries are taken; "" is this machine. */
  readonly sysroot: string;
  /** Null: /lib/firmware of the sysroot. */
  readonly firmware: string | null;
}

export interface BuildReport {
  readonly release: string;
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  /** What is in it, unpacked: a line of the table each. */
  readonly parts: readonly { readonly part: string; readonly bytes: number; readonly note: string }[];
  readonly missingPrograms: readonly NodeProgram[];
  readonly missingFirmware: readonly string[];
}

/** Builds. `tell` hears what is being done. Throws Failure; Interrupted when `signal` aborts. */
export async function buildInitramfs(
  request: BuildRequest,
  tell: (text: string) => void,
  signal: AbortSignal,
): Promise<BuildReport> {
  const kernel = openKernel(request);
  const busybox = needStaticBusybox(request.sysroot, new Libraries(request.sysroot, kernel.machine));
  needFiles([request.binary, ...request.extra]);
  needSquashfsTools();
  const folder = openOutputFolder(request.outputFolder);
  const work = mkdtempSync(join(folder, ".diskswarm-initramfs-"));
  try {
    const build = new Build(request, kernel, busybox, work, tell, signal);
    const report = await build.run();
    for (const { name } of report.files) renameSync(join(work, name), join(folder, name));
    // A root.squashfs of an earlier build would be fetched by nobody, and looked for by whoever wonders.
    if (!request.twoStage) rmSync(join(folder, "root.squashfs"), { force: true });
    syncFolder(join(folder, "initrd.img"));
    return report;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

interface Kernel extends KernelFacts {
  readonly path: string;
  readonly lengthBytes: number;
  readonly modules: ModuleTree;
  readonly config: KernelConfig;
}

function openKernel({ kernel, modules }: BuildRequest): Kernel {
  const path = kernel ?? `/boot/vmlinuz-${runningRelease()}`;
  if (!existsSync(path))
    throw buildFailure("kernel", `${path} does not exist: name a kernel with --kernel, and its modules with --modules`);
  const bytes = readFileSync(path);
  const facts = kernelFacts(bytes);
  if (facts === null)
    throw buildFailure(
      "kernel",
      `${path} is no kernel that says its version: it must be a bzImage, or an Image of arm64`,
    );
  const folder = modules ?? `/lib/modules/${facts.release}`;
  if (!existsSync(folder))
    throw buildFailure(
      "modules",
      `${folder} does not exist: give the modules of kernel ${facts.release} with --modules`,
    );
  const config = KernelConfig.find(path, facts.release, folder);
  return { ...facts, path, lengthBytes: bytes.length, modules: new ModuleTree(folder), config };
}

class Build {
  readonly #libraries: Libraries;
  readonly #parts: { part: string; bytes: number; note: string }[] = [];

  constructor(
    private readonly request: BuildRequest,
    private readonly kernel: Kernel,
    private readonly busybox: string,
    private readonly work: string,
    private readonly tell: (text: string) => void,
    private readonly signal: AbortSignal,
  ) {
    this.#libraries = new Libraries(request.sysroot, kernel.machine);
  }

  async run(): Promise<BuildReport> {
    const { twoStage } = this.request;
    const modules = await this.#loadModules();
    const second = new FileTree();
    const missingPrograms = this.#fillSecond(second);
    const firmware = this.#addModules(second, modules.files, modules.paths);
    const imagePath = join(this.work, "root.squashfs");
    this.tell(`compressing ${Math.ceil(second.totalBytes / 1e6)} MB with ${this.request.packer}, which takes a while`);
    const blockBytes = twoStage ? SMALL_BLOCK_BYTES : BLOCK_BYTES;
    const packing = { packer: this.request.packer, machine: this.kernel.machine, blockBytes };
    await makeSquashfs(second, imagePath, this.work, packing, this.signal);
    const image = { path: imagePath, lengthBytes: statSync(imagePath).size };
    const first = new FileTree();
    fillFirstRoot(first, this.#libraries, this.busybox, twoStage ? sha256Of(imagePath) : null);
    modules.files.addTo(first, twoStage ? modules.firstStagePaths : modules.mountPaths);
    this.#parts.push({
      part: "first root",
      bytes: first.totalBytes,
      note: "busybox, scripts and drivers to reach the image",
    });
    writeArchive(join(this.work, "initrd.img"), first, twoStage ? null : image, this.#archivePacker());
    writeCopy(join(this.work, "vmlinuz"), this.kernel.path, this.kernel.lengthBytes);
    const names = ["vmlinuz", "initrd.img", ...(twoStage ? ["root.squashfs"] : [])];
    const files = names.map((name) => {
      const path = join(this.work, name);
      return { name, bytes: statSync(path).size, sha256: sha256Of(path) };
    });
    return {
      release: this.kernel.release,
      files,
      parts: this.#parts,
      missingPrograms,
      missingFirmware: firmware.missing,
    };
  }

  async #loadModules() {
    const { drivers, firmware, sysroot } = this.request;
    const choice = chooseDrivers(this.kernel.modules, drivers);
    const folder = firmware ?? `${sysroot}/lib/firmware`;
    const files = new ModuleFiles(this.kernel.modules, this.kernel.release, folder, this.signal);
    await files.load([...choice.paths, ...choice.firstStagePaths]);
    const mountPaths = this.kernel.modules.withDependencies(["loop", "squashfs"]);
    return { ...choice, files, mountPaths };
  }

  #fillSecond(second: FileTree): readonly NodeProgram[] {
    const { binary, extra, tools, sysroot } = this.request;
    this.#libraries.addProgram(second, binary, "usr/bin/diskswarm");
    this.#note(second, "diskswarm", `${binary} and its libraries`);
    const missing = addPrograms(second, this.#libraries, sysroot, tools);
    this.#note(second, "programs", `of others, and their libraries (--tools ${tools})`);
    fillSecondRoot(second, this.#libraries, { busybox: this.busybox, extra });
    this.#note(second, "busybox", extra.length > 0 ? `scripts, and ${extra.length} of --extra` : "and scripts");
    return missing;
  }

  #addModules(second: FileTree, files: ModuleFiles, paths: readonly string[]): FirmwareReport {
    const firmware = files.addTo(second, paths);
    this.#note(
      second,
      "drivers",
      `${paths.length} modules (--drivers ${this.request.drivers}), ${firmware.files} files of firmware`,
    );
    return firmware;
  }

  /** What came into the tree since the last note. */
  #note(tree: FileTree, part: string, note: string): void {
    const before = this.#parts.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#parts.push({ part, bytes: tree.totalBytes - before, note });
  }

  #archivePacker(): ArchivePacker {
    return this.kernel.config.has("RD_ZSTD") === true ? "zstd" : "gzip";
  }
}

function sha256Of(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}
