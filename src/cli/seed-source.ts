/** What a seeder reads: the source that the user named, or the raw disk that it stands for. */
import { statSync } from "node:fs";
import { openSeedSource as openSource, type SeedSource } from "../image/foreign/prepared-source.ts";
import { Interrupted } from "../image/work-thread.ts";
import type { Metainfo } from "../torrent/types.ts";

/** Null where `signal` stopped it. A file of exactly the image's size is the image itself, whatever it looks like. */
export async function openSeedSource(
  path: string,
  { image }: Metainfo,
  signal: AbortSignal,
): Promise<SeedSource | null> {
  const isImage = image !== null && statSync(path, { throwIfNoEntry: false })?.size === image.diskBytes;
  try {
    if (signal.aborted) return null;
    return isImage ? { path, madeOf: [], close: () => Promise.resolve() } : await openSource(path, signal);
  } catch (error) {
    if (error instanceof Interrupted) return null;
    throw error;
  }
}
