/**
 * The kernel that an installed Linux would boot, read from the words of its own boot loader: Boot Loader Specification
 * entries (Fedora, systemd-boot), else the first menu entry of grub.cfg, else the links /vmlinuz and /initrd.img. Pure.
 *
 * grub.cfg is a program; what is read here is what distributions write. Where it asks for more (a variable that is
 * nowhere set, a kernel that is not where it should be) nothing is guessed: a reason comes back.
 */
import type { InstalledFiles } from "./installed-files.ts";

export interface InstalledKernel {
  /** Paths in the filesystem that was looked at. */
  readonly kernel: string;
  readonly initrds: readonly string[];
  readonly commandLine: string;
  /** Where it stood, for people. */
  readonly source: string;
}

/** Looks into one filesystem. `root`: what to call it on a command line where its loader does not say. */
export function findKernel(files: InstalledFiles, root: string | null): InstalledKernel | string {
  return fromEntries(files) ?? fromGrub(files) ?? fromLinks(files, root) ?? "it holds no kernel";
}

const ENTRY_FOLDERS = ["loader/entries", "boot/loader/entries", "efi/loader/entries"];
const GRUB_FOLDERS = ["boot/grub", "boot/grub2", "grub", "grub2"];
/** Entries of rescue images and of memory tests are not what is booted by itself. */
const NOT_DEFAULT = /rescue|memtest/i;

interface Boot {
  readonly linux: string;
  readonly initrds: readonly string[];
  readonly options: string;
}

/** Null where there are no entries. */
function fromEntries(files: InstalledFiles): InstalledKernel | string | null {
  const folder = ENTRY_FOLDERS.find((path) => files.list(path).some((name) => name.endsWith(".conf")));
  if (folder === undefined) return null;
  const names = files.list(folder).filter((name) => name.endsWith(".conf") && !NOT_DEFAULT.test(name));
  const variables = grubEnvironment(files);
  const saved = `${variables.get("saved_entry") ?? ""}.conf`;
  // The newest version last; a name is MACHINEID-VERSION.conf, and may end with counts of tries (+3-0).
  names.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const name = names.includes(saved) ? saved : names.at(-1);
  if (name === undefined) return `${folder} has no entry but for rescue`;
  const entry = parseEntry(files.read(`${folder}/${name}`) ?? "");
  if (entry === null) return `${folder}/${name} names no kernel`;
  return complete(files, entry, variables, `${folder}/${name}`);
}

/** `key value` lines; initrd and options may come more than once. */
function parseEntry(text: string): Boot | null {
  const values = (key: string) =>
    [...text.matchAll(new RegExp(`^${key}[ \\t]+(.*)$`, "gm"))].map(([, value]) => value!.trim());
  const linux = values("linux").at(-1);
  if (linux === undefined) return null;
  return {
    linux,
    initrds: values("initrd").flatMap((value) => value.split(/\s+/)),
    options: values("options").join(" "),
  };
}

function fromGrub(files: InstalledFiles): InstalledKernel | string | null {
  for (const folder of GRUB_FOLDERS) {
    const text = files.read(`${folder}/grub.cfg`);
    // On an EFI system partition, and in Fedora's, it only says where the real one is.
    if (text === null || !/^\s*linux(16|efi)?\s/m.test(text)) continue;
    const entry = firstMenuEntry(text);
    if (entry === null) return `${folder}/grub.cfg has no menu entry with a kernel`;
    const variables = new Map([...grubEnvironment(files), ...constants(text)]);
    return complete(files, entry, variables, `${folder}/grub.cfg`);
  }
  return null;
}

function firstMenuEntry(text: string): Boot | null {
  const lines = text.split("\n");
  const start = lines.findIndex((line) => /^\s*menuentry\s/.test(line) && !NOT_DEFAULT.test(line));
  if (start < 0) return null;
  const end = lines.findIndex((line, index) => index > start && /^\s*\}/.test(line));
  const body = lines.slice(start, end < 0 ? undefined : end);
  const words = (pattern: RegExp) => body.map((line) => pattern.exec(line)?.[1]).find((found) => found !== undefined);
  const linux = words(/^\s*linux(?:16|efi)?\s+(.*)$/);
  if (linux === undefined) return null;
  const [path, ...options] = linux.trim().split(/\s+/);
  const initrd = words(/^\s*initrd(?:16|efi)?\s+(.*)$/);
  return { linux: path!, initrds: initrd === undefined ? [] : initrd.trim().split(/\s+/), options: options.join(" ") };
}

/** `set NAME=value` with a plain value; of a variable that is set twice it is not known which one counts. */
function constants(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name, value] of text.matchAll(/^\s*set ([A-Za-z_]\w*)=["']?([^"'$\n]*)["']?\s*$/gm)) {
    if (found.has(name!) && found.get(name!) !== value) found.set(name!, "");
    else found.set(name!, value!);
  }
  return found;
}

/** grubenv: a block of `name=value` lines, filled up with #. */
function grubEnvironment(files: InstalledFiles): Map<string, string> {
  const text = GRUB_FOLDERS.map((folder) => files.read(`${folder}/grubenv`)).find((found) => found !== null) ?? "";
  return new Map([...text.matchAll(/^([A-Za-z_]\w*)=(.*)$/gm)].map(([, name, value]) => [name!, value!]));
}

/** Variables that may be empty: what they add is nice to have. */
const OPTIONAL = new Set(["tuned_params", "tuned_initrd", "vt_handoff", "extra_cmdline"]);

function complete(
  files: InstalledFiles,
  { linux, initrds, options }: Boot,
  variables: ReadonlyMap<string, string>,
  source: string,
): InstalledKernel | string {
  const unknown = new Set<string>();
  const expand = (text: string) =>
    text
      .replaceAll(/\$\{?([A-Za-z_]\w*)\}?/g, (_, name: string) => {
        const value = variables.get(name);
        if (value === undefined && !OPTIONAL.has(name)) unknown.add(name);
        return value ?? "";
      })
      .replaceAll(/["']/g, "");
  const commandLine = expand(options).trim().replaceAll(/\s+/g, " ");
  const kernelPath = expand(linux);
  const wanted = [kernelPath, ...initrds.map(expand).filter((path) => path !== "")];
  if (kernelPath === "") return `${source} names no kernel`;
  if (unknown.size > 0) return `${source} uses ${[...unknown].join(" and ")}, which is not set there`;
  if (/[\x00-\x1f\x7f]/.test(commandLine + wanted.join(""))) return `${source} holds control characters`;
  const paths = wanted.map((path) => locate(files, path));
  const missing = wanted.find((_, index) => paths[index] === null);
  if (missing !== undefined) return `${source} names ${missing}, which is not there`;
  const [kernel, ...rest] = paths as [string, ...string[]];
  return { kernel, initrds: rest, commandLine, source };
}

/** A loader's path begins at its filesystem's top, which for a subvolume of Btrfs is one folder above. */
function locate(files: InstalledFiles, path: string): string | null {
  const plain = path.replace(/^\/+/, "");
  const below = plain.slice(plain.indexOf("/") + 1);
  return [plain, below].find((candidate) => candidate !== "" && files.exists(candidate)) ?? null;
}

const LINKS: readonly (readonly [kernel: string, initrd: string])[] = [
  ["vmlinuz", "initrd.img"],
  ["boot/vmlinuz", "boot/initrd.img"],
  ["boot/vmlinuz-linux", "boot/initramfs-linux.img"],
];

function fromLinks(files: InstalledFiles, root: string | null): InstalledKernel | string | null {
  const found = LINKS.find(([kernel]) => files.exists(kernel));
  if (found === undefined) return null;
  const [kernel, initrd] = found;
  if (root === null) return `/${kernel} is there, but not what its root is to be called`;
  const initrds = files.exists(initrd) ? [initrd] : [];
  return { kernel, initrds, commandLine: `root=${root} ro`, source: `/${kernel}` };
}
