/** What a kernel was built with, where its configuration lies beside it (Debian, Ubuntu, Fedora and others install it). */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

export class KernelConfig {
  private constructor(private readonly values: ReadonlyMap<string, string> | null) {}

  /** Of the kernel at `vmlinuz`; one that is nowhere to be found knows nothing. */
  static find(vmlinuz: string, release: string, modulesFolder: string): KernelConfig {
    const path = [
      join(dirname(vmlinuz), `config-${release}`),
      join(modulesFolder, "config"),
      `/boot/config-${release}`,
    ].find(existsSync);
    return new KernelConfig(path === undefined ? null : parseConfig(readFileSync(path, "utf8")));
  }

  static parse(text: string): KernelConfig {
    return new KernelConfig(parseConfig(text));
  }

  /** True or false where it is known; null where the configuration is not there. */
  has(name: string): boolean | null {
    return this.values === null ? null : this.values.has(`CONFIG_${name}`);
  }
}

/** Lines that set something to y or m; all others mean no. */
function parseConfig(text: string): Map<string, string> {
  return new Map([...text.matchAll(/^(CONFIG_\w+)=([ym])$/gm)].map((match) => [match[1]!, match[2]!]));
}
