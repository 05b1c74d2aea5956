/**
 * Puts a choice of modules into a root folder: unpacked (a kernel may not be able to, and an image that is compressed
 * as a whole gets smaller), with the lists of depmod cut down to them, and the firmware that they name.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ScratchFile, runTool } from "../../image/external-tool.ts";
import { elfSection, ElfProblem } from "./elf.ts";
import type { Content, FileTree } from "./file-tree.ts";
import { type ModuleTree, moduleName } from "./module-tree.ts";
import { buildFailure } from "./problem.ts";

interface LoadedModule {
  /** Below the module folder, without the suffix of a packer. */
  readonly path: string;
  readonly bytes: Uint8Array;
  /** Names below the firmware folder. */
  readonly firmware: readonly string[];
  readonly release: string | null;
}

export interface FirmwareReport {
  readonly files: number;
  readonly bytes: number;
  /** Named by a module, and not on this machine. */
  readonly missing: readonly string[];
}

export class ModuleFiles {
  readonly #loaded = new Map<string, LoadedModule>();

  constructor(
    private readonly tree: ModuleTree,
    private readonly release: string,
    private readonly firmwareFolder: string,
    private readonly signal: AbortSignal,
  ) {}

  /** Reads modules, so that `addTo` finds them. Throws a Failure where one is damaged or of another kernel. */
  async load(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      if (this.#loaded.has(path)) continue;
      const loaded = await loadModule(join(this.tree.folder, path), path, this.signal);
      if (loaded.release !== null && loaded.release !== this.release)
        throw buildFailure(
          "modules",
          `${join(this.tree.folder, path)} is for kernel ${loaded.release}, but the kernel is ${this.release}: give the module folder of that kernel with --modules`,
        );
      this.#loaded.set(path, loaded);
    }
  }

  addTo(root: FileTree, paths: readonly string[]): FirmwareReport {
    const folder = `lib/modules/${this.release}`;
    const modules = paths.map((path) => this.#loaded.get(path)!);
    for (const { path, bytes } of modules) root.file(`${folder}/${path}`, { bytes });
    const names = new Set(modules.map(({ path }) => moduleName(path)));
    const aliases = this.tree.aliases.filter(({ module }) => names.has(module));
    root.text(`${folder}/modules.dep`, this.#dependencyLines(paths).join(""));
    root.text(`${folder}/modules.alias`, aliases.map(({ pattern, module }) => `alias ${pattern} ${module}\n`).join(""));
    for (const name of ["modules.builtin", "modules.softdep"]) this.#copyList(root, folder, name);
    return this.#addFirmware(root, modules);
  }

  #dependencyLines(paths: readonly string[]): string[] {
    return paths.map((path) => {
      const needs = this.tree.needsOf(path).map((needed) => ` ${withoutPacker(needed)}`);
      return `${withoutPacker(path)}:${needs.join("")}\n`;
    });
  }

  #copyList(root: FileTree, folder: string, name: string): void {
    const from = join(this.tree.folder, name);
    if (existsSync(from)) root.file(`${folder}/${name}`, { bytes: readFileSync(from) });
  }

  #addFirmware(root: FileTree, modules: readonly LoadedModule[]): FirmwareReport {
    const missing: string[] = [];
    let files = 0;
    let bytes = 0;
    for (const name of new Set(modules.flatMap(({ firmware }) => firmware))) {
      const found = this.#firmware(name);
      if (found.length === 0) missing.push(name);
      for (const { path, content } of found) {
        root.file(`lib/firmware/${path}`, content);
        files++;
        bytes += content.bytes.length;
      }
    }
    return { files, bytes, missing: missing.sort() };
  }

  /** The files of a name, which may have wildcards; packed ones stay packed, since the kernel unpacks these itself. */
  #firmware(name: string): { path: string; content: Extract<Content, { bytes: Uint8Array }> }[] {
    const found: { path: string; content: { bytes: Uint8Array } }[] = [];
    for (const folder of [`updates/${this.release}`, "updates", this.release, ""]) {
      const base = join(this.firmwareFolder, folder);
      if (!existsSync(base)) continue;
      const pattern = `${name.replaceAll(/[[\]{}!\\]/g, "\\$&")}{,.xz,.zst}`;
      for (const path of new Bun.Glob(pattern).scanSync({ cwd: base, onlyFiles: false }))
        found.push({ path, content: { bytes: readFileSync(join(base, path)) } });
      if (found.length > 0) return found;
    }
    return found;
  }
}

async function loadModule(file: string, path: string, signal: AbortSignal): Promise<LoadedModule> {
  if (!existsSync(file))
    throw buildFailure("modules", `${file} is in modules.dep but not there: install the kernel's package again`);
  const bytes = await unpack(file, signal);
  try {
    const info = elfSection(bytes, ".modinfo");
    const entries = new TextDecoder("latin1").decode(info ?? new Uint8Array(0)).split("\0");
    const values = (key: string) =>
      entries.filter((one) => one.startsWith(`${key}=`)).map((one) => one.slice(key.length + 1));
    const magic = values("vermagic")[0];
    return { path: withoutPacker(path), bytes, firmware: values("firmware"), release: magic?.split(" ")[0] ?? null };
  } catch (error) {
    if (!(error instanceof ElfProblem)) throw error;
    throw buildFailure("modules", `${file} is no kernel module: it ${error.message}`);
  }
}

function withoutPacker(path: string): string {
  return path.replace(/\.ko\.\w+$/, ".ko");
}

async function unpack(file: string, signal: AbortSignal): Promise<Uint8Array> {
  const bytes = readFileSync(file);
  try {
    if (file.endsWith(".zst")) return Bun.zstdDecompressSync(bytes);
    if (file.endsWith(".gz")) return Bun.gunzipSync(bytes);
  } catch {
    // Bun's message does not name the file.
    throw buildFailure("modules", `${file} is damaged: install the kernel's package again`);
  }
  return file.endsWith(".xz") ? unpackXz(file, signal) : bytes;
}

async function unpackXz(file: string, signal: AbortSignal): Promise<Uint8Array> {
  const tool = { program: "xz", package: "xz-utils" };
  if (Bun.which(tool.program) === null)
    throw buildFailure(
      "tool-missing",
      `xz is not installed, and ${file} is packed with it: install the package xz-utils`,
    );
  const output = new ScratchFile();
  try {
    const run = await runTool(tool, ["-dc", "--", file], output, signal);
    if (run.exitCode !== 0) throw buildFailure("modules", `${file} is damaged: install the kernel's package again`);
    const chunks: Uint8Array[] = [];
    output.read((chunk) => void chunks.push(chunk.slice()));
    return Buffer.concat(chunks);
  } finally {
    output.close();
  }
}
