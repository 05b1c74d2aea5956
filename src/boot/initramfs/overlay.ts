/**
 * What is appended to an initramfs that somebody else made, so that `rdinit=/diskswarm/init` images the machine with the
 * drivers that are in there. A root folder of its own, complete but for them: nothing of theirs is replaced.
 */
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { syncFolder } from "../../image/atomic-file.ts";
import { writeArchive } from "./archive-file.ts";
import type { BuildRequest } from "./build.ts";
import { ElfProblem, elfNeeds, type Machine } from "./elf.ts";
import { FileTree } from "./file-tree.ts";
import { Libraries } from "./libraries.ts";
import { openOutputFolder } from "./output-folder.ts";
import { buildFailure } from "./problem.ts";
import { addPrograms, findProgram, needFiles, needStaticBusybox, type NodeProgram } from "./programs.ts";
import { fillSecondRoot } from "./roots.ts";
import { SCRIPTS } from "./scripts.ts";

const NAME = "overlay.img";

export type OverlayRequest = Pick<BuildRequest, "outputFolder" | "binary" | "tools" | "extra" | "sysroot">;

export interface OverlayReport {
  readonly path: string;
  readonly lengthBytes: number;
  /** Unpacked, as it is in the node's memory. */
  readonly unpackedBytes: number;
  readonly missingPrograms: readonly NodeProgram[];
}

/** Writes overlay.img, which replaces an earlier one when it is complete. Throws Failure. */
export function buildOverlay(request: OverlayRequest): OverlayReport {
  const { tree, missingPrograms } = overlayTree(request);
  const folder = openOutputFolder(request.outputFolder);
  const work = mkdtempSync(join(folder, ".diskswarm-overlay-"));
  try {
    // Every kernel unpacks gzip, and whose it is appended to is not known.
    writeArchive(join(work, NAME), tree, null, "gzip");
    renameSync(join(work, NAME), join(folder, NAME));
    syncFolder(join(folder, NAME));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const path = join(folder, NAME);
  return { path, lengthBytes: statSync(path).size, unpackedBytes: tree.totalBytes, missingPrograms };
}

function overlayTree({ binary, tools, extra, sysroot }: OverlayRequest) {
  needFiles([binary, ...extra]);
  const libraries = new Libraries(sysroot, machineOf(binary));
  const root = new FileTree();
  libraries.addProgram(root, binary, "usr/bin/diskswarm");
  const missingPrograms = addPrograms(root, libraries, sysroot, tools);
  // Distributions pack their modules in ways that busybox cannot unpack.
  const kmod = findProgram(sysroot, "kmod");
  if (kmod !== null) libraries.addProgram(root, `${sysroot}${kmod}`, "usr/bin/modprobe");
  fillSecondRoot(root, libraries, { busybox: needStaticBusybox(sysroot, libraries), extra });
  const tree = new FileTree();
  tree.text("diskswarm/init", SCRIPTS.overlay, 0o755);
  tree.graft("diskswarm/root", root);
  return { tree, missingPrograms };
}

/** There is no kernel that would say for which machine it is to be. */
function machineOf(binary: string): Machine {
  try {
    return elfNeeds(readFileSync(binary)).machine;
  } catch (error) {
    if (!(error instanceof ElfProblem)) throw error;
    throw buildFailure("elf", `${binary} ${error.message}`);
  }
}
