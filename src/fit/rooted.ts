/**
 * The files of an installed system under a folder that its filesystem is mounted on. Paths are resolved inside it, as a
 * process in a chroot would see them: a symbolic link to /etc leads to the image's /etc, and no number of `..` leads out.
 *
 * Nobody else changes the tree meanwhile, so a path that was resolved stays what it is.
 */
import {
  chmodSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeSync,
} from "node:fs";
import { constants } from "node:fs";
import { fitFailure } from "./tools.ts";

/** As the kernel: more links in one path are a loop. */
const LINKS_MAX = 40;
/** Of the small configuration files that are read here. */
const FILE_BYTES_MAX = 1024 * 1024;

export class Rooted {
  /** `folder` is where the system's / is. */
  constructor(readonly folder: string) {}

  /** Does it lead to something, links followed? */
  exists(path: string): boolean {
    return this.#stat(path) !== null;
  }

  isFolder(path: string): boolean {
    return this.#stat(path)?.isDirectory() ?? false;
  }

  /** Where it is for other programs of this machine, links followed. It need not exist. */
  pathOf(path: string): string | null {
    return this.#resolve(path);
  }

  /** Text of an ordinary file, or null where there is none. */
  read(path: string): string | null {
    const found = this.#stat(path);
    if (!found?.isFile() || found.size > FILE_BYTES_MAX) return null;
    return readFileSync(this.#resolve(path)!, "utf8");
  }

  /** Names in a folder; none where there is no such folder. */
  list(path: string): string[] {
    return this.isFolder(path) ? readdirSync(this.#resolve(path)!).sort() : [];
  }

  /** Is there an ordinary file at that very name, not a link? */
  isPlainFile(path: string): boolean {
    return this.#lstat(path)?.isFile() ?? false;
  }

  /** Writes an ordinary file in place, which keeps its owner, mode and labels, or makes a new one. Stored when it returns. */
  write(path: string, text: string, modeOfNew = 0o644): void {
    const target = this.#resolve(path);
    const found = target === null ? null : (lstatSync(target, { throwIfNoEntry: false }) ?? null);
    if (target === null || (found !== null && !found.isFile()))
      throw fitFailure("personalize", `/${path} of the image is not an ordinary file in an existing folder`);
    const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    const fd = openSync(target, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, modeOfNew);
    try {
      const bytes = Buffer.from(text);
      // Cut afterwards: a full filesystem has room for what is overwritten.
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
      ftruncateSync(fd, bytes.length);
      // Whatever umask this process has.
      if (found === null) chmodSync(target, modeOfNew);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }

  makeFolder(path: string): void {
    if (this.isFolder(path)) return;
    const target = this.#resolve(path);
    if (target === null) throw fitFailure("personalize", `/${path} of the image cannot be made: its parent is missing`);
    mkdirSync(target, { mode: 0o755 });
    chmodSync(target, 0o755);
  }

  /** Makes a symbolic link with exactly that text, in place of one that is there. */
  link(path: string, text: string): void {
    this.remove(path);
    const place = this.#placeOf(path);
    if (place === null) throw fitFailure("personalize", `/${path} of the image cannot be made: its folder is missing`);
    symlinkSync(text, place);
  }

  /** Removes a file or link at that very name; nothing where there is none. */
  remove(path: string): void {
    const place = this.#placeOf(path);
    if (place !== null && this.#lstat(path) !== null) rmSync(place);
  }

  #stat(path: string): Stats | null {
    const target = this.#resolve(path);
    return target === null ? null : (lstatSync(target, { throwIfNoEntry: false }) ?? null);
  }

  #lstat(path: string): Stats | null {
    const place = this.#placeOf(path);
    return place === null ? null : (lstatSync(place, { throwIfNoEntry: false }) ?? null);
  }

  /** The name itself in its resolved folder, or null where that folder is missing. */
  #placeOf(path: string): string | null {
    const slash = path.lastIndexOf("/");
    const parent = this.#resolve(slash < 0 ? "" : path.slice(0, slash));
    if (parent === null || !lstatSync(parent, { throwIfNoEntry: false })?.isDirectory()) return null;
    return `${parent}/${path.slice(slash + 1)}`;
  }

  /** Where a path leads, all links followed inside the folder. The last part may be missing; null where an earlier one is. */
  #resolve(path: string): string | null {
    const left = path.split("/").reverse();
    const done: string[] = [];
    for (let links = 0; left.length > 0; ) {
      const part = left.pop()!;
      if (part === "" || part === ".") continue;
      if (part === "..") {
        done.pop();
        continue;
      }
      const here = [this.folder, ...done, part].join("/");
      const found = lstatSync(here, { throwIfNoEntry: false });
      if (found?.isSymbolicLink()) {
        if (++links > LINKS_MAX) throw fitFailure("personalize", `/${path} of the image is a loop of symbolic links`);
        const text = readlinkSync(here);
        if (text.startsWith("/")) done.length = 0;
        left.push(...text.split("/").reverse());
        continue;
      }
      const isLast = left.every((one) => one === "" || one === ".");
      if (!isLast && !found?.isDirectory()) return null;
      done.push(part);
    }
    return [this.folder, ...done].join("/");
  }
}
