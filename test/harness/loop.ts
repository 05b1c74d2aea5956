/** Loop devices: real block devices for tests, backed by files of the scope. */
import { join } from "node:path";
import { type Extent, fillRandom, sparseFile } from "./image.ts";
import { run } from "./process.ts";
import { isStale, type Scope } from "./scope.ts";

export interface LoopOptions {
  readonly sectorBytes?: 512 | 4096;
  /** Random bytes everywhere before the test, as on a disk that was used; a number makes other ones. */
  readonly dirty?: boolean | number;
  readonly readOnly?: boolean;
  /** With nodes for its partitions. */
  readonly partitions?: boolean;
  /** On the disk instead of in memory. */
  readonly onDisk?: boolean;
}

export interface LoopDevice {
  readonly path: string;
  readonly backingPath: string;
}

/** A part of a device or file as a device. */
export function loopPart(
  scope: Scope,
  path: string,
  { offsetBytes, lengthBytes }: Extent,
  sectorBytes: 512 | 4096 = 512,
): string {
  const part = ["--offset", String(offsetBytes), "--sizelimit", String(lengthBytes)];
  return loopOver(scope, path, "--sector-size", String(sectorBytes), ...part);
}

/** A file as a device. */
export function loopOver(scope: Scope, path: string, ...flags: string[]): string {
  const device = run(["losetup", "--find", "--show", ...flags, path]).trim();
  scope.defer(() => void run(["losetup", "--detach", device]));
  return device;
}

let swept = false;

/** A new loop device of `lengthBytes`. */
export function loopDevice(scope: Scope, lengthBytes: number, options: LoopOptions = {}): LoopDevice {
  sweepStale();
  const backingPath = join(options.onDisk ? scope.tempDir() : scope.ramDir(), "backing");
  sparseFile(backingPath, lengthBytes);
  if (options.dirty) fillRandom(backingPath, lengthBytes, options.dirty === true ? undefined : options.dirty);
  const flags = [
    "--sector-size",
    String(options.sectorBytes ?? 512),
    ...(options.readOnly ? ["--read-only"] : []),
    ...(options.partitions ? ["--partscan"] : []),
  ];
  const path = loopOver(scope, backingPath, ...flags);
  // Those that partx made outlive the device, for whoever gets it next.
  if (options.partitions) scope.defer(() => void Bun.spawnSync(["partx", "--delete", path]));
  return { path, backingPath };
}

function sweepStale(): void {
  if (swept) return;
  swept = true;
  for (const line of run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]).split("\n")) {
    const [device, backing] = line.trim().split(/\s+/);
    if (device && backing && isStale(backing)) run(["losetup", "--detach", device]);
  }
}
