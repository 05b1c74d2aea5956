/** What a capture does when nothing else was asked for; shared by `capture` and `serve`. */
import { basename } from "node:path";
import { KiB } from "../units.ts";

/** An extent costs some 60 bytes of torrent on every node and a seek; zeros shorter than this cost less. */
export const MERGE_GAP_BYTES = 64 * KiB;

/** What its kind of image, its compressor and `split` add to a name. */
const SUFFIXES = /(?:\.(?:raw|img|bin|qcow2?|vmdk|vhdx?|vdi))?(?:\.(?:gz|zst|xz|bz2|lz4|lzo|lz))?(?:\.a{2,4})?$/i;

/** What an image is called that was captured from there: `/srv/classroom.raw` is `classroom`, `/dev/sda` is `sda`. */
export function imageName(sourcePath: string): string {
  return basename(sourcePath).replace(SUFFIXES, "") || "image";
}
