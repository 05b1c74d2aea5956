/**
 * Filesystems of every kind that Debian's tools make: made on a device, filled, half emptied, checked, read
 * back. Where this kernel has no driver, FUSE or the filesystem's own tools stand in.
 */
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeHfsPlus } from "./hfsplus.ts";
import { type Extent, randomBytes, writeFully } from "./image.ts";
import { mountWith } from "./mounts.ts";
import { run } from "./process.ts";
import { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";

const MIB = 1024 * 1024;

export interface Filesystem {
  /** blkid's word. */
  readonly type: string;
  /** partclone's program. */
  readonly partclone: string;
  /** The least that its mkfs takes, and room for the files. */
  readonly lengthBytes: number;
  readonly tools: readonly string[];
  /** Leaves what the device held before where it can. */
  make(device: string): void;
  /** Writes the files and removes those that are not kept. */
  fill(device: string, files: readonly TestFile[]): Promise<void>;
  /** SHA-1 of every file in the root by name; null where nothing here can read it. */
  digests(device: string): Promise<Record<string, string> | null>;
  /** The filesystem's own check, without repairs. Throws where it complains. */
  check(device: string): void;
}

export interface TestFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly isKept: boolean;
}

/** Files of which every second one is to be deleted. */
export function testFiles(count: number, lengthBytes: number): TestFile[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `file${i}.bin`,
    bytes: randomBytes(lengthBytes - i * 37, i + 1),
    isKept: i % 2 === 1,
  }));
}

export function digestsOf(files: readonly TestFile[]): Record<string, string> {
  return Object.fromEntries(files.filter(({ isKept }) => isKept).map(({ name, bytes }) => [name, sha1(bytes)]));
}

/** The used runs by partclone itself, and what it counts. */
export function partcloneRuns(filesystem: Filesystem, device: string): { runs: Extent[]; usedBytes: number } {
  const map = run([filesystem.partclone, "-D", "-q", "-f", "0", "-L", "/dev/null", "-s", device, "-o", "-"]);
  const runs = [...map.matchAll(/^(0x\S+)\s+(0x\S+)\s+\+$/gm)].map((match) => ({
    offsetBytes: Number(match[1]),
    lengthBytes: Number(match[2]),
  }));
  return { runs, usedBytes: runs.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) };
}

function sha1(bytes: Uint8Array): string {
  return createHash("sha1").update(bytes).digest("hex");
}

function digestsIn(folder: string): Record<string, string> {
  const names = readdirSync(folder).filter((name) => name.endsWith(".bin"));
  return Object.fromEntries(names.sort().map((name) => [name, sha1(readFileSync(join(folder, name)))]));
}

async function inMount<T>(words: readonly string[], use: (folder: string) => T): Promise<T> {
  const scope = new Scope();
  try {
    return use(mountWith(scope, words));
  } finally {
    await scope.close();
  }
}

/** Filled and read through a mount: `words` go before the folder. */
function mounted(words: (device: string) => string[]): Pick<Filesystem, "fill" | "digests"> {
  return {
    fill: (device, files) =>
      inMount(words(device), (folder) => {
        for (const { name, bytes } of files) writeFileSync(join(folder, name), bytes);
        run(["sync", "--file-system", folder]);
        for (const { name } of files.filter(({ isKept }) => !isKept)) rmSync(join(folder, name));
      }),
    digests: (device) => inMount(words(device), digestsIn),
  };
}

const byKernel = mounted((device) => ["mount", device]);

export const FILESYSTEMS: readonly Filesystem[] = [
  {
    type: "ext4",
    partclone: "partclone.ext4",
    lengthBytes: 128 * MIB,
    tools: ["mkfs.ext4", "e2fsck"],
    make: (device) => void run(["mkfs.ext4", "-q", "-E", "nodiscard", device]),
    check: (device) => void run(["e2fsck", "-fn", device]),
    ...byKernel,
  },
  {
    type: "xfs",
    partclone: "partclone.xfs",
    lengthBytes: 320 * MIB,
    tools: ["mkfs.xfs", "xfs_repair"],
    make: (device) => void run(["mkfs.xfs", "-q", "-K", device]),
    check: (device) => void run(["xfs_repair", "-n", device]),
    ...byKernel,
  },
  {
    type: "btrfs",
    partclone: "partclone.btrfs",
    lengthBytes: 256 * MIB,
    tools: ["mkfs.btrfs", "btrfs"],
    make: (device) => void run(["mkfs.btrfs", "-q", "-K", device]),
    check: (device) => void run(["btrfs", "check", "--readonly", "--check-data-csum", device]),
    ...byKernel,
  },
  {
    type: "f2fs",
    partclone: "partclone.f2fs",
    lengthBytes: 128 * MIB,
    tools: ["mkfs.f2fs", "sload.f2fs", "fsck.f2fs"],
    make: (device) => void run(["mkfs.f2fs", "-q", "-t", "0", device]),
    // Without a driver nothing is deleted; the files that would be are left out.
    fill: async (device, files) => {
      const scope = new Scope();
      const folder = scope.ramDir();
      for (const { name, bytes } of files.filter(({ isKept }) => isKept)) writeFileSync(join(folder, name), bytes);
      run(["sload.f2fs", "-f", folder, device]);
      await scope.close();
    },
    digests: () => Promise.resolve(null),
    check: (device) => void run(["fsck.f2fs", "--dry-run", device]),
  },
  {
    type: "ntfs",
    partclone: "partclone.ntfs",
    lengthBytes: 128 * MIB,
    tools: ["mkfs.ntfs", "ntfs-3g", "ntfsfix"],
    make: (device) => void run(["mkfs.ntfs", "-Q", "-q", "-F", device]),
    check: (device) => void run(["ntfsfix", "-n", device]),
    ...mounted((device) => ["ntfs-3g", device]),
  },
  {
    type: "vfat",
    partclone: "partclone.fat32",
    lengthBytes: 128 * MIB,
    tools: ["mkfs.fat", "mcopy", "mdel", "fsck.fat"],
    make: (device) => void run(["mkfs.fat", "-F", "32", device]),
    fill: async (device, files) => {
      const scope = new Scope();
      const folder = scope.ramDir();
      for (const { name, bytes } of files) writeFileSync(join(folder, name), bytes);
      run(["mcopy", "-i", device, ...files.map(({ name }) => join(folder, name)), "::"]);
      run(["mdel", "-i", device, ...files.filter(({ isKept }) => !isKept).map(({ name }) => `::${name}`)]);
      await scope.close();
    },
    digests: async (device) => {
      const scope = new Scope();
      const folder = join(scope.ramDir(), "files");
      mkdirSync(folder);
      run(["mcopy", "-i", device, "::*", folder]);
      const digests = digestsIn(folder);
      await scope.close();
      return digests;
    },
    check: (device) => void run(["fsck.fat", "-n", device]),
  },
  {
    type: "exfat",
    partclone: "partclone.exfat",
    lengthBytes: 128 * MIB,
    tools: ["mkfs.exfat", "mount.exfat-fuse", "fsck.exfat"],
    make: (device) => void run(["mkfs.exfat", device]),
    check: (device) => void run(["fsck.exfat", "-n", device]),
    ...mounted((device) => ["mount.exfat-fuse", device]),
  },
  {
    type: "hfsplus",
    partclone: "partclone.hfsplus",
    lengthBytes: 128 * MIB,
    tools: ["blkid"],
    make: (device) => writeHfsPlus(device, 128 * MIB, []),
    // The bytes of every file, of which the allocation file names those that are kept.
    fill: (device, files) => {
      const fileBlocks = 512;
      const firstBlock = (index: number) => 1000 + index * fileBlocks;
      const indexes = files.map((_, index) => index);
      const kept = indexes.filter((index) => files[index].isKept);
      writeHfsPlus(
        device,
        128 * MIB,
        kept.map((index) => [firstBlock(index), fileBlocks] as const),
      );
      const fd = openSync(device, "r+");
      for (const index of indexes) writeFully(fd, files[index].bytes, firstBlock(index) * 4096);
      closeSync(fd);
      return Promise.resolve();
    },
    digests: () => Promise.resolve(null),
    check: (device) => {
      const type = run(["blkid", "-p", "-o", "value", "-s", "TYPE", device]).trim();
      if (type !== "hfsplus") throw new Error(`${device} holds ${type}`);
    },
  },
];

export function filesystemOf(type: string): Filesystem {
  const found = FILESYSTEMS.find((filesystem) => filesystem.type === type);
  if (!found) throw new Error(`the tests know no ${type}`);
  needTools(...found.tools, found.partclone);
  return found;
}
