/**
 * What a kernel says of itself in its file: the release that its modules must be of, and the machine that it is for.
 * Known are bzImage (Documentation/arch/x86/boot.rst), arm64's Image (arch/arm64/booting.rst), that image packed by
 * gzip, and EFI zboot images (a packed kernel behind a small EFI program) of gzip and zstd.
 */
import type { Machine } from "./elf.ts";

export interface KernelFacts {
  /** `6.1.0-56-amd64` */
  readonly release: string;
  readonly machine: Machine;
}

const BOOT_SECTOR_BYTES = 0x200;
/** Shorter is no kernel. */
const HEADER_BYTES = 0x264;
const BANNER = "Linux version ";
const RELEASE = /^[0-9][\w.+~-]{0,63}$/;

/** Null where the file is none of these, or does not say. */
export function kernelFacts(file: Uint8Array): KernelFacts | null {
  const bytes = unpacked(file);
  if (bytes === null || bytes.length < HEADER_BYTES) return null;
  if (textAt(bytes, 0x202, 4) === "HdrS") return bzImageFacts(bytes);
  if (textAt(bytes, 56, 4) === "ARM\x64") return releaseOfBanner(bytes, "aarch64");
  return null;
}

function bzImageFacts(bytes: Uint8Array): KernelFacts | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = view.getUint16(0x20e, true) + BOOT_SECTOR_BYTES;
  const end = bytes.indexOf(0, at);
  return facts(textAt(bytes, at, end - at), "x86-64");
}

/** The text that the kernel prints first is in it as it is. */
function releaseOfBanner(bytes: Uint8Array, machine: Machine): KernelFacts | null {
  const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(BANNER);
  return at < 0 ? null : facts(textAt(bytes, at + BANNER.length, 64), machine);
}

function facts(text: string, machine: Machine): KernelFacts | null {
  const release = text.split(" ")[0]!;
  return RELEASE.test(release) ? { release, machine } : null;
}

/** The kernel itself; null where it does not unpack. */
function unpacked(file: Uint8Array): Uint8Array | null {
  try {
    if (file[0] === 0x1f && file[1] === 0x8b) return Bun.gunzipSync(Uint8Array.from(file));
    if (textAt(file, 0, 2) !== "MZ" || textAt(file, 4, 4) !== "zimg") return file;
    const view = new DataView(file.buffer, file.byteOffset, file.length);
    const payload = Uint8Array.from(file.subarray(view.getUint32(8, true)).subarray(0, view.getUint32(12, true)));
    const packer = textAt(file, 24, 8).split("\0")[0]!;
    if (packer === "gzip") return Bun.gunzipSync(payload);
    return packer.startsWith("zstd") ? Bun.zstdDecompressSync(payload) : null;
  } catch {
    // Damaged: the caller says that it is no kernel.
    return null;
  }
}

function textAt(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.subarray(at, at + Math.max(0, length))).toString("latin1");
}
