/**
 * Images that are no disk yet are unpacked into the raw file of `--save`, from which they can be seeded then: one of
 * partclone, a compressed raw image, or a folder of Clonezilla with a whole disk in it.
 *
 * Which bytes are unused is what the images' own bitmaps say. What no image holds (space between partitions, partitions
 * that were not saved) is a hole of the file, and zero on the target.
 */
import { ExitCode, Failure } from "../../errors.ts";
import type { UsedMap } from "../partclone.ts";
import type { WorkHooks } from "../work.ts";
import { formatOf, type SourceFormat } from "./format.ts";
import { restoreNtfsBackup } from "./ntfs-backup.ts";
import { PackedImage } from "./packed-image.ts";
import type { RawTarget } from "./raw-target.ts";
import { partsOf } from "./split-files.ts";
import { unpackClonezilla } from "./unpack-clonezilla.ts";

/** The used blocks that the images themselves name, by partition (0: a filesystem without a table). The owner closes them. */
export type KnownMaps = ReadonlyMap<number, UsedMap>;

export interface Unpacked {
  /** What the source was found to be, in words. */
  readonly what: string;
  /** null: a raw image, of which nothing is known. */
  readonly maps: KnownMaps | null;
}

/** Unpacks the source into the target, which gets its size. Throws Failure, Interrupted; the target is the caller's. */
export async function unpack(
  sourcePath: string,
  format: SourceFormat,
  target: RawTarget,
  hooks: WorkHooks,
  signal: AbortSignal,
): Promise<Unpacked> {
  if (format.kind === "clonezilla") return unpackClonezilla(sourcePath, target, hooks, signal);
  const image = new PackedImage(partsOf(sourcePath));
  const packed = format.kind === "compressed" ? `, compressed (${format.codec.name})` : "";
  const partclone = await image.readPartclone(signal);
  if (partclone === null) {
    await target.watched(0, hooks, async () => target.resize(await image.copy(target.path, 0, signal)));
    refuseNested(sourcePath, formatOf(target.path));
    return { what: `a raw image${packed}`, maps: null };
  }
  try {
    const { head, map } = partclone;
    target.needRoom(map.usedBytes);
    const sizeBytes = Math.max(head.deviceBytes, map.endBytes);
    target.resize(sizeBytes);
    await target.watched(map.usedBytes, hooks, () => image.restore(target.path, 0, signal));
    restoreNtfsBackup(target, 0, sizeBytes);
    return { what: `an image of partclone (${head.filesystem})${packed}`, maps: new Map([[0, map]]) };
  } catch (error) {
    partclone.map.close();
    throw error;
  }
}

/** A qcow2 that was compressed again would go to the nodes as a file and not as a disk. */
function refuseNested(path: string, inner: SourceFormat): void {
  if (inner.kind === "raw") return;
  const what = inner.kind === "virtual-disk" ? `a ${inner.driver} image` : "no disk but another image";
  throw new Failure(ExitCode.failed, "image-type", `${path} holds ${what}: unpack it, and capture that`);
}
