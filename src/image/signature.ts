/** What a disk or a part of it holds, by `blkid --probe`: a filesystem, swap, LUKS, LVM, a partition table. */
import { runToolForText, reasonOf, throwIfTooOld, type Tool, toolFailure } from "./external-tool.ts";

const BLKID: Tool = { program: "blkid", package: "util-linux" };
/** blkid(8), EXIT STATUS: nothing was found; several signatures that exclude each other were found. */
const EXIT_NOTHING = 2;
const EXIT_AMBIVALENT = 8;

export interface Signature {
  /** blkid's word, such as `ext4`, `swap` or `crypto_LUKS`; "" where it knows nothing or is in doubt. */
  readonly type: string;
  /** `gpt`, `dos` and others; "" where there is no partition table. */
  readonly tableType: string;
  /** The filesystem's smallest access in bytes: a disk's sectors may not be larger; 0 where blkid does not say. */
  readonly blockBytes: number;
  /** As fstab names it; "" where there is none. */
  readonly uuid: string;
  readonly label: string;
}

/** A part of a disk in bytes. */
export interface Part {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Looks at a disk or image file, or at a part of it. Throws Failure where blkid is missing or fails. */
export async function readSignature(path: string, part: Part | null, signal: AbortSignal): Promise<Signature> {
  const where = part === null ? [] : ["-O", String(part.offsetBytes), "-S", String(part.lengthBytes)];
  const run = await runToolForText(BLKID, ["-p", "-o", "export", ...where, path], signal);
  if (run.exitCode === EXIT_NOTHING || run.exitCode === EXIT_AMBIVALENT) return parseSignature("");
  if (run.exitCode !== 0) {
    throwIfTooOld(BLKID, run);
    throw toolFailure("blkid", `blkid cannot look at ${path} (${reasonOf(run)}): install the package util-linux`);
  }
  return parseSignature(run.stdout);
}

/** Reads what `blkid -o export` prints. */
function parseSignature(text: string): Signature {
  return {
    type: wordOf(text, "TYPE"),
    tableType: wordOf(text, "PTTYPE"),
    blockBytes: Number(/^BLOCK_SIZE=(\d{1,7})$/m.exec(text)?.[1] ?? 0),
    uuid: wordOf(text, "UUID", 64),
    label: wordOf(text, "LABEL", 64),
  };
}

/** Words alone: the text of a label cannot pass for one. */
function wordOf(text: string, key: string, lengthMax = 32): string {
  return new RegExp(`^${key}=([\\w.+-]{1,${lengthMax}})$`, "m").exec(text)?.[1] ?? "";
}
