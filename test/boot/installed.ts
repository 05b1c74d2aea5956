/** A filesystem of an installed system in memory, for tests of what is read of it. */
import type { InstalledFiles } from "../../src/boot/init/installed-files.ts";

export function installed(files: Readonly<Record<string, string>>): InstalledFiles {
  const paths = Object.keys(files);
  return {
    exists: (path) => paths.some((one) => one === path || one.startsWith(`${path}/`)),
    read: (path) => files[path] ?? null,
    list: (path) => {
      const prefix = path === "" ? "" : `${path}/`;
      const below = paths.filter((one) => one.startsWith(prefix));
      return [...new Set(below.map((one) => one.slice(prefix.length).split("/")[0]!))].sort();
    },
  };
}
