/**
 * Which blocks of a filesystem are used, by partclone: its domain log (`-D`) is made from the filesystem's own
 * bitmaps and reads no data, in every version since 0.2.
 */
import { DomainMapFault, DomainMapParser } from "./domain-map.ts";
import { reasonOf, runTool, ScratchFile, throwIfTooOld, type Tool, type ToolRun } from "./external-tool.ts";

/** partclone's program for blkid's type. All are in one package; not every build has all of them. */
const PROGRAMS: Readonly<Record<string, string>> = {
  ext2: "partclone.ext2",
  ext3: "partclone.ext3",
  ext4: "partclone.ext4",
  xfs: "partclone.xfs",
  btrfs: "partclone.btrfs",
  f2fs: "partclone.f2fs",
  ntfs: "partclone.ntfs",
  vfat: "partclone.vfat",
  exfat: "partclone.exfat",
  hfsplus: "partclone.hfsplus",
  apfs: "partclone.apfs",
  reiser4: "partclone.reiser4",
  minix: "partclone.minix",
};

/**
 * Domain log to standard output; no progress; and no seconds of sleep at its end, which its progress thread
 * takes even then, 2 unless told otherwise. Its log file would be /var/log/partclone.log.
 */
const OPTIONS = ["-D", "-q", "-f", "0", "-L", "/dev/null", "-o", "-"];

export interface UsedMap {
  /** The map knows the bytes below; what follows in the partition does not belong to the filesystem. */
  readonly endBytes: number;
  readonly usedBytes: number;
  /** Tells the used runs, ascending, in bytes from the filesystem's first. */
  forEachRun(visit: (offsetBytes: number, lengthBytes: number) => void): void;
  close(): void;
}

/** Why there is no map: partclone's own word. */
export interface NoMap {
  readonly reason: string;
}

/** Does partclone know that filesystem (by blkid's name)? */
export function partcloneKnows(type: string): boolean {
  return Object.hasOwn(PROGRAMS, type);
}

/**
 * Reads the map of the filesystem of that type on a device. The map is checked from its first to its last line
 * before anything is told of it. Throws Failure where partclone is missing or too old, Interrupted.
 */
export async function readUsedMap(type: string, devicePath: string, signal: AbortSignal): Promise<UsedMap | NoMap> {
  const tool: Tool = { program: PROGRAMS[type], package: "partclone" };
  const output = new ScratchFile();
  try {
    const run = await runTool(tool, [...OPTIONS, "-s", devicePath], output, signal);
    throwIfTooOld(tool, run);
    const map = checkedMap(tool, run, output);
    if ("reason" in map) output.close();
    return map;
  } catch (error) {
    output.close();
    throw error;
  }
}

function checkedMap(tool: Tool, run: ToolRun, output: ScratchFile): UsedMap | NoMap {
  if (run.exitCode !== 0) return { reason: `${tool.program} says: ${reasonOf(run)}` };
  const parser = new DomainMapParser(() => {});
  try {
    output.read((bytes) => parser.push(bytes));
    parser.finish();
  } catch (error) {
    if (error instanceof DomainMapFault) return { reason: `the map of ${tool.program} is broken: ${error.message}` };
    throw error;
  }
  return {
    endBytes: parser.endBytes,
    usedBytes: parser.usedBytes,
    forEachRun: (visit) => {
      const again = new DomainMapParser(visit);
      output.read((bytes) => again.push(bytes));
    },
    close: () => output.close(),
  };
}
