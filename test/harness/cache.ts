/** What takes long to make is kept in `.cache`, made by one test process at a time: whoever is second finds it there. */
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LOCK_EX } from "../../src/kernel/abi.ts";
import { Errno, errnoText, flock } from "../../src/kernel/libc.ts";
import { REPOSITORY } from "./diskswarm.ts";
import { run } from "./process.ts";
import { NAME_PREFIX } from "./scope.ts";

const CACHE = join(REPOSITORY, ".cache");

/** A folder of the cache, made if it is missing. */
export function cacheFolder(name: string): string {
  const path = join(CACHE, name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** Does the work while no other process does what has the same name. Blocks; must not be nested. */
export function alone<T>(name: string, work: () => T): T {
  const fd = openSync(join(cacheFolder("locks"), name), "w");
  try {
    let result = flock(fd, LOCK_EX);
    while (result === -Errno.EINTR) result = flock(fd, LOCK_EX);
    if (result !== 0) throw new Error(`cannot wait for others that do the same (${name}): ${errnoText(result)}`);
    return work();
  } finally {
    closeSync(fd);
  }
}

/**
 * A file or folder of a folder of the cache. Where it is missing `make` makes it, at a path of its own in a temporary folder
 * that may hold other things; then it is moved to the cache, complete or not at all.
 */
export function kept(folder: string, name: string, make: (made: string, work: string) => void): string {
  const path = join(cacheFolder(folder), name);
  return alone(folder, () => {
    if (existsSync(path)) return path;
    const work = mkdtempSync(join(tmpdir(), `${NAME_PREFIX}-${process.pid}-`));
    const half = `${path}.${process.pid}.tmp`;
    try {
      make(join(work, name), work);
      run(["cp", "--recursive", "--sparse=always", join(work, name), half]);
      renameSync(half, path);
    } finally {
      for (const each of [work, half]) rmSync(each, { recursive: true, force: true });
    }
    return path;
  });
}
