/**
 * The libraries that a program needs, found as its loader would find them (ld.so(8)), but read and never run: a
 * program for another machine is as welcome as one for this.
 *
 * Every library goes into the folder where libc is, which its loader always looks in: an image needs no cache of
 * ldconfig then. Those that a program names a folder for stay in that folder.
 */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ElfProblem, elfNeeds, isElf, type ElfNeeds, type Machine } from "./elf.ts";
import type { FileTree } from "./file-tree.ts";
import { buildFailure } from "./problem.ts";

const TRIPLETS: Record<Machine, string> = { "x86-64": "x86_64-linux-gnu", aarch64: "aarch64-linux-gnu" };
/** Loaders that are installed by /lib64 of other distributions are found by the name in the program. */
const DEFAULT_FOLDERS = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];
const CONFIG_DEPTH_MAX = 4;

export class Libraries {
  readonly #needs = new Map<string, ElfNeeds>();
  /** Names of the loaders that programs had. */
  readonly #loaders = new Set<string>();
  readonly #folders: readonly string[];
  /** Folder of libc, where all others go. */
  readonly #home: string;

  /** `sysroot`: the folder whose programs and libraries are taken; "" is this machine. */
  constructor(
    private readonly sysroot: string,
    private readonly machine: Machine,
  ) {
    const triplet = TRIPLETS[machine];
    this.#folders = [`/lib/${triplet}`, `/usr/lib/${triplet}`, ...configuredFolders(sysroot), ...DEFAULT_FOLDERS];
    this.#home = this.#folders.find((folder) => existsSync(`${sysroot}${folder}/libc.so.6`)) ?? "/usr/lib";
  }

  /** Puts a program with its loader and libraries into `tree`. `from` is a path of this machine. Throws Failure. */
  addProgram(tree: FileTree, from: string, path: string): void {
    tree.file(path, contentOf(from), 0o755);
    const needs = this.needsOf(from);
    if (needs === null) return;
    if (needs.loader !== null) this.#addLoader(tree, from, needs.loader);
    this.#addLibraries(tree, from, dirname(path), needs);
  }

  /** What an ELF file needs; null for a script. Throws Failure where it is damaged or for another machine. */
  needsOf(from: string): ElfNeeds | null {
    const key = realpathSync(from);
    const known = this.#needs.get(key);
    if (known) return known;
    const bytes = readFileSync(key);
    if (!isElf(bytes)) return null;
    try {
      const needs = elfNeeds(bytes);
      if (needs.machine !== this.machine)
        throw new ElfProblem(`is for ${needs.machine}, but the kernel is for ${this.machine}`);
      this.#needs.set(key, needs);
      return needs;
    } catch (error) {
      if (!(error instanceof ElfProblem)) throw error;
      throw buildFailure("elf", `${from} ${error.message}`);
    }
  }

  #addLoader(tree: FileTree, program: string, loader: string): void {
    const from = `${this.sysroot}${loader}`;
    if (!existsSync(from))
      throw buildFailure(
        "library-missing",
        `${program} wants the loader ${loader}, which this system does not have: install the C library that it was built for`,
      );
    tree.file(loader, contentOf(from), 0o755);
    this.#loaders.add(basename(loader));
  }

  #addLibraries(tree: FileTree, from: string, origin: string, needs: ElfNeeds): void {
    const searched = needs.searchFolders
      .map((folder) => folder.replaceAll(/\$ORIGIN|\$\{ORIGIN\}/g, origin))
      .filter((folder) => folder.startsWith("/"));
    for (const name of needs.libraries) {
      // The loader itself is a library too, for programs that ask it for something.
      if (this.#loaders.has(name)) continue;
      const special = searched.find((folder) => existsSync(`${this.sysroot}${folder}/${name}`));
      const folder = special ?? this.#folders.find((one) => existsSync(`${this.sysroot}${one}/${name}`));
      if (folder === undefined)
        throw buildFailure("library-missing", `${from} wants the library ${name}, which this system does not have`);
      const path = join(special ?? this.#home, name);
      if (tree.has(path)) continue;
      const library = join(`${this.sysroot}${folder}`, name);
      tree.file(path, contentOf(library), 0o755);
      this.#addLibraries(tree, library, folder, this.needsOf(library)!);
    }
  }
}

function contentOf(path: string): { from: string; lengthBytes: number } {
  const from = realpathSync(path);
  return { from, lengthBytes: statSync(from).size };
}

/** The folders of /etc/ld.so.conf and what it includes. */
function configuredFolders(sysroot: string): string[] {
  const read = (path: string, depth: number): string[] => {
    if (depth > CONFIG_DEPTH_MAX || !existsSync(path)) return [];
    return readFileSync(path, "utf8")
      .split("\n")
      .map((line) => line.replace(/#.*/, "").trim())
      .filter((line) => line !== "")
      .flatMap((line) => {
        const included = /^include\s+(.+)$/.exec(line)?.[1];
        if (included === undefined) return line.startsWith("/") ? [line] : [];
        const pattern = included.startsWith("/") ? included : join(dirname(path).slice(sysroot.length), included);
        const found = [...new Bun.Glob(pattern.slice(1)).scanSync({ cwd: sysroot || "/" })].sort();
        return found.flatMap((name) => read(join(sysroot || "/", name), depth + 1));
      });
  };
  return read(`${sysroot}/etc/ld.so.conf`, 0);
}
