/**
 * What is being captured: a disk's source with the facts that go into the torrent, opened for direct reads
 * also where it is a file, since a capture reads every byte once and has no use for the page cache.
 *
 * It owns its descriptors; `close` gives them back. Nothing is ever written to a source.
 */
import { existsSync, realpathSync } from "node:fs";
import { closeChecked, openDirect } from "../disk/open-disk.ts";
import { openSource, type Source } from "../disk/source.ts";
import { ExitCode, Failure } from "../errors.ts";
import { O_RDONLY } from "../kernel/abi.ts";
import type { ImageInfo } from "../torrent/types.ts";
import { CLASSIFY_BLOCK_BYTES } from "./classify.ts";

export interface CaptureSource {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly kind: ImageInfo["kind"];
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly isBlockDevice: boolean;
  /** `major:minor` of a block device as the kernel names it, else empty. */
  readonly deviceId: string;
  readonly bufferedFd: number;
  /** Opened with O_DIRECT, or -1 where reads of 4 KiB blocks are not possible with it. */
  readonly directFd: number;
  /** What changed since it was opened, as words that follow its name, or null. */
  changed(): string | null;
  close(): void;
}

/** Sector size that a file is said to have: what it is most likely an image of. */
const FILE_SECTOR_BYTES = 512;

/**
 * Opens a regular file or block device for capture. `direct` false reads through the page cache; `madeOf` are the files
 * that it is a view of.
 */
export function openCaptureSource(givenPath: string, direct: boolean, madeOf: readonly string[] = []): CaptureSource {
  // Bun asks /proc for where a path leads; a file in a root without it (decision 0022) is read by the name it was given.
  const path = existsSync(givenPath) && existsSync("/proc/self") ? realpathSync(givenPath) : givenPath;
  const source = openSource(path, { needBytes: null, direct: "off", madeOf });
  if (source.sizeBytes === 0) {
    source.close();
    throw new Failure(ExitCode.failed, "source-empty", `${path} is empty: there is nothing to capture`);
  }
  return describe(source, direct ? openDirectly(source) : -1);
}

function describe(source: Source, directFd: number): CaptureSource {
  const { path, sizeBytes, files, identity } = source;
  const isBlockDevice = files.kind === "block";
  const deviceId = isBlockDevice ? `${identity.stat.rdevMajor}:${identity.stat.rdevMinor}` : "";
  const isPartition = isBlockDevice && existsSync(`/sys/dev/block/${deviceId}/partition`);
  return {
    path,
    kind: !isBlockDevice ? "file" : isPartition ? "partition" : "disk",
    sizeBytes,
    sectorBytes: files.sectorBytes ?? FILE_SECTOR_BYTES,
    isBlockDevice,
    deviceId,
    bufferedFd: files.bufferedFd,
    directFd,
    changed: () => source.changed(),
    close: () => {
      if (directFd >= 0) closeChecked(directFd);
      source.close();
    },
  };
}

function openDirectly(source: Source): number {
  const opened = openDirect(source.path, source.files.bufferedFd, O_RDONLY, false);
  if (opened === null) return -1;
  const { offsetBytes, memoryBytes } = opened.alignment;
  if (Math.max(offsetBytes, memoryBytes) <= CLASSIFY_BLOCK_BYTES) return opened.fd;
  closeChecked(opened.fd);
  return -1;
}
