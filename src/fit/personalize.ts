/** `--personalize`: the system that was installed on a disk becomes this machine's own. */
import type { Tool } from "../image/external-tool.ts";
import { findRoot } from "./find-root.ts";
import { giveIdentity, type SshHostKeys } from "./identity.ts";
import { mountDetached } from "./mounted.ts";
import type { Personality } from "./personality.ts";
import { Rooted } from "./rooted.ts";
import { openPart, type TargetDisk } from "./target-disk.ts";
import { BLKID, fitFailure, LOSETUP, MOUNT, SFDISK, UMOUNT } from "./tools.ts";

export const PERSONALIZE_TOOLS: readonly Tool[] = [SFDISK, BLKID, LOSETUP, MOUNT, UMOUNT];

export interface Personalized {
  /** Where the system is, in words. */
  readonly place: string;
  readonly sshHostKeys: SshHostKeys;
}

/** What was written is stored when it returns. Throws Failure. */
export async function personalize(
  disk: TargetDisk,
  { hostname }: Personality,
  warn: (code: string, message: string) => void,
): Promise<Personalized> {
  const { place, windows } = await findRoot(disk);
  const sshHostKeys = await change(disk, place, (root) => giveIdentity(root, hostname));
  for (const name of windows)
    warn("personalize-windows", `${name} of ${disk.path} holds NTFS: Windows is left alone, and not renamed`);
  if (sshHostKeys === "kept")
    warn("personalize-ssh", `${disk.path}: the SSH host keys are the image's, since nothing in it would make new ones`);
  return { place: place.name, sshHostKeys };
}

async function change<T>(
  disk: TargetDisk,
  { part, type, flags, folder, name }: Awaited<ReturnType<typeof findRoot>>["place"],
  work: (root: Rooted) => T,
): Promise<T> {
  const view = await openPart(disk, part);
  try {
    const mounted = await mountDetached(view.path, type, ["rw", ...flags]);
    if (typeof mounted === "string")
      throw fitFailure("personalize-root", `${name} of ${disk.path} cannot be mounted: ${mounted}`);
    try {
      return work(new Rooted(folder === "" ? mounted.folder : `${mounted.folder}/${folder}`));
    } finally {
      mounted.close();
    }
  } finally {
    view.close();
  }
}
