/**
 * A kernel's module folder (/lib/modules/RELEASE) as depmod(8) describes it: which modules there are, what each needs,
 * and which hardware each is for. Its lists are text; a line that says nothing is passed over.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { buildFailure } from "./problem.ts";

export interface Alias {
  /** With `*`, `?` and `[...]` as in fnmatch(3). */
  readonly pattern: string;
  /** Of the pattern, what comes before the first of those. */
  readonly prefix: string;
  readonly module: string;
}

export class ModuleTree {
  /** Path below the folder and the paths that it needs, by name. */
  readonly #modules = new Map<string, { readonly path: string; readonly needs: readonly string[] }>();
  readonly #builtin: ReadonlySet<string>;
  readonly aliases: readonly Alias[];
  /** What a module wants besides, if it is there (modprobe.d(5)): names or aliases. */
  readonly #soft: ReadonlyMap<string, readonly string[]>;

  /** Throws a Failure where the folder is none that depmod has described. */
  constructor(readonly folder: string) {
    if (!existsSync(join(folder, "modules.dep")))
      throw buildFailure(
        "modules",
        `${folder} has no modules.dep: give the kernel's module folder with --modules, and run depmod for it`,
      );
    for (const line of lines(folder, "modules.dep")) {
      const [path, needs] = parts(line, ":");
      if (path !== "") this.#modules.set(moduleName(path), { path, needs: needs.split(" ").filter(Boolean) });
    }
    this.#builtin = new Set(lines(folder, "modules.builtin").map(moduleName));
    this.aliases = lines(folder, "modules.alias").flatMap(readAlias);
    this.#soft = readSoftDependencies(lines(folder, "modules.softdep"));
  }

  get paths(): string[] {
    return [...this.#modules.values()].map(({ path }) => path);
  }

  /** In the kernel itself. */
  isBuiltin(name: string): boolean {
    return this.#builtin.has(plainName(name));
  }

  has(name: string): boolean {
    return this.#modules.has(plainName(name));
  }

  pathOf(name: string): string | null {
    return this.#modules.get(plainName(name))?.path ?? null;
  }

  /** Paths that the module at `path` needs, all of them, as modules.dep lists them. */
  needsOf(path: string): readonly string[] {
    return this.#modules.get(moduleName(path))?.needs ?? [];
  }

  /** Names of the modules that are for that hardware, or for that alias of another kind. */
  modulesFor(modalias: string): string[] {
    // There are tens of thousands of patterns, and few begin like the alias that is looked for.
    return this.aliases
      .filter(({ pattern, prefix }) => modalias.startsWith(prefix) && matcherOf(pattern).test(modalias))
      .map(({ module }) => module);
  }

  /** The modules of these names with all that they need, as paths below the folder, in order. Unknown names are left out. */
  withDependencies(names: Iterable<string>): string[] {
    const found = new Set<string>();
    const take = (name: string): void => {
      const known = this.#modules.get(plainName(name));
      if (known === undefined || found.has(known.path)) return;
      found.add(known.path);
      for (const path of known.needs) take(moduleName(path));
      for (const wanted of this.#soft.get(plainName(name)) ?? []) this.#takeSoft(wanted, take);
    };
    for (const name of names) take(name);
    return [...found].sort();
  }

  #takeSoft(wanted: string, take: (name: string) => void): void {
    if (this.has(wanted)) take(wanted);
    else for (const name of this.modulesFor(wanted)) take(name);
  }
}

/** `kernel/drivers/net/virtio_net.ko.xz` to `virtio_net`. The kernel takes dashes and underscores as the same. */
export function moduleName(path: string): string {
  return plainName(basename(path).replace(/\.ko(\.\w+)?$/, ""));
}

function plainName(name: string): string {
  return name.replaceAll("-", "_");
}

function lines(folder: string, name: string): string[] {
  const path = join(folder, name);
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
}

function parts(line: string, separator: string): [string, string] {
  const at = line.indexOf(separator);
  return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
}

function readAlias(line: string): Alias[] {
  const match = /^alias (\S+) (\S+)$/.exec(line);
  if (match === null) return [];
  const pattern = match[1]!;
  return [{ pattern, prefix: /^[^*?[]*/.exec(pattern)![0], module: plainName(match[2]!) }];
}

function readSoftDependencies(all: readonly string[]): Map<string, string[]> {
  const wanted = new Map<string, string[]>();
  for (const line of all) {
    const [, name, ...rest] = line.split(/\s+/);
    if (name === undefined) continue;
    const words = rest.filter((word) => word !== "" && !word.endsWith(":"));
    wanted.set(plainName(name), [...(wanted.get(plainName(name)) ?? []), ...words]);
  }
  return wanted;
}

const matchers = new Map<string, RegExp>();

/** fnmatch(3) without flags, as modprobe asks it. */
function matcherOf(pattern: string): RegExp {
  let matcher = matchers.get(pattern);
  if (matcher === undefined) {
    matcher = new RegExp(
      `^${pattern
        .replaceAll(/[.+^${}()|\\]/g, "\\$&")
        .replaceAll("*", ".*")
        .replaceAll("?", ".")}$`,
    );
    matchers.set(pattern, matcher);
  }
  return matcher;
}
