/**
 * What the machines of the tests boot: the program's own kernel and initramfs, built by `diskswarm initramfs` from
 * Debian's kernel, and kept in `.cache/boot` for one executable.
 */
import { beforeAll } from "bun:test";
import { readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, kept } from "./cache.ts";
import { programArgv } from "./diskswarm.ts";
import { debianKernel } from "./kernels.ts";
import { run } from "./process.ts";
import { isRoot } from "./tools.ts";

export type Stages = "one-stage" | "two-stage";
/** lz4 is packed in a moment; xz, which is what admins get, takes the better part of a minute, and less of a node's memory. */
export type Packing = "lz4" | "xz";
/** Small kernels with virtio, or Debian's for all hardware with every driver that nodes may want. */
export type Hardware = "virtual" | "all";

const BUILD_TIMEOUT_MS = 9 * 60_000;
const OLD_MS = 24 * 60 * 60_000;

/** The folder for `serve --boot`: vmlinuz, initrd.img, and root.squashfs where there are two stages. */
export function bootFolder(stages: Stages, packing: Packing = "lz4", hardware: Hardware = "virtual"): string {
  const binary = process.env.DISKSWARM_BINARY;
  if (!binary) throw new Error("an initramfs holds the executable: run npm run build and set DISKSWARM_BINARY to it");
  const [flavour, drivers] = hardware === "all" ? (["amd64", "all"] as const) : (["cloud-amd64", "minimal"] as const);
  const { release, vmlinuz, modules } = debianKernel(flavour);
  const hash = new Bun.CryptoHasher("sha256").update(readFileSync(binary)).digest("hex").slice(0, 16);
  return kept("boot", `${stages}-${packing}-${release}-${hash}`, (made) => {
    removeOld();
    const words = ["--kernel", vmlinuz, "--modules", modules, "--drivers", drivers, "--compress", packing];
    const twoStage = stages === "two-stage" ? ["--two-stage"] : [];
    run([...programArgv(), "initramfs", "-o", made, ...words, ...twoStage]);
  });
}

/** Has it made before the first test of a file, outside of that test's time. */
export function bootBeforehand(kinds: readonly Stages[], packing?: Packing, hardware?: Hardware): void {
  if (isRoot) beforeAll(() => void kinds.map((stages) => bootFolder(stages, packing, hardware)), BUILD_TIMEOUT_MS);
}

/** Those of executables that were built on another day. */
function removeOld(): void {
  const folder = cacheFolder("boot");
  const paths = readdirSync(folder).map((name) => join(folder, name));
  for (const path of paths.filter((each) => Date.now() - statSync(each).mtimeMs > OLD_MS))
    rmSync(path, { recursive: true, force: true });
}
