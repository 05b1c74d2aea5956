/**
 * Writes initrd.img: archives one after the other, as kernels take them. What is compressed already (the image) comes
 * first and plain; the small rest is compressed.
 */
import { closeSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { MiB } from "../../units.ts";
import { type CpioEntry, cpioHeader, cpioInlineContent, cpioPadding, cpioTrailer } from "./cpio.ts";
import { type FileTree, lengthOf, type TreeNode } from "./file-tree.ts";
import { buildFailure } from "./problem.ts";

/** What kernels can unpack: gzip all of them, zstd since 5.9 if it was built in. */
export type ArchivePacker = "zstd" | "gzip";

const COPY_BYTES = 1 * MiB;
/** An archive that is not compressed begins at a multiple of this; cpio's own padding sees to it within one. */
const ALIGN_BYTES = 512;
const ZSTD_LEVEL = 19;

/** A file that is written from its start. Names the file where the disk is full. */
class OutputFile {
  readonly #fd: number;
  #lengthBytes = 0;

  constructor(private readonly path: string) {
    this.#fd = this.#try(() => openSync(path, "wx", 0o644));
  }

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) done += this.#try(() => writeSync(this.#fd, bytes, done));
    this.#lengthBytes += bytes.length;
  }

  /** Appends a file of this machine. Throws where it is not as long as it was. */
  copy(from: string, lengthBytes: number): void {
    const source = openSync(from, "r");
    try {
      const chunk = new Uint8Array(COPY_BYTES);
      let done = 0;
      for (let length = readSync(source, chunk); length > 0; length = readSync(source, chunk)) {
        this.write(chunk.subarray(0, length));
        done += length;
      }
      if (done !== lengthBytes) throw buildFailure("changed", `${from} changed while it was read: build again`);
    } finally {
      closeSync(source);
    }
  }

  finish(): void {
    this.#try(() => fsyncSync(this.#fd));
  }

  close(): void {
    closeSync(this.#fd);
  }

  #try<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw buildFailure("write", `cannot write ${this.path}: ${code === "ENOSPC" ? "the disk is full" : message}`);
    }
  }
}

/** Writes the archive. `image` lies in it as /root.squashfs, or is null. Returns its length and that of the packed part. */
export function writeArchive(
  path: string,
  root: FileTree,
  image: { readonly path: string; readonly lengthBytes: number } | null,
  packer: ArchivePacker,
): { lengthBytes: number; packedBytes: number } {
  const file = new OutputFile(path);
  try {
    if (image !== null) writeImage(file, image);
    const plain = plainArchive(root);
    const packed =
      packer === "zstd" ? Bun.zstdCompressSync(plain, { level: ZSTD_LEVEL }) : Bun.gzipSync(plain, { level: 9 });
    file.write(packed);
    // So that another archive may follow, as it is or packed.
    file.write(new Uint8Array(-file.lengthBytes & (ALIGN_BYTES - 1)));
    file.finish();
    return { lengthBytes: file.lengthBytes, packedBytes: packed.length };
  } finally {
    file.close();
  }
}

/** Writes a copy of a file. */
export function writeCopy(path: string, from: string, lengthBytes: number): void {
  const file = new OutputFile(path);
  try {
    file.copy(from, lengthBytes);
    file.finish();
  } finally {
    file.close();
  }
}

function writeImage(file: OutputFile, image: { readonly path: string; readonly lengthBytes: number }): void {
  const { lengthBytes } = image;
  file.write(cpioHeader({ type: "file", path: "root.squashfs", mode: 0o600, lengthBytes }, 1));
  file.copy(image.path, lengthBytes);
  file.write(cpioPadding(lengthBytes));
  file.write(cpioTrailer());
  file.write(new Uint8Array(-file.lengthBytes & (ALIGN_BYTES - 1)));
}

/** The archive of a small root, in memory. */
function plainArchive(root: FileTree): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (const [index, [path, node]] of root.entries().entries()) {
    const entry = entryOf(path, node);
    const content = node.type === "file" ? contentBytes(node) : cpioInlineContent(entry);
    parts.push(cpioHeader(entry, index + 1), content, cpioPadding(content.length));
  }
  return new Uint8Array(Buffer.concat([...parts, cpioTrailer()]));
}

function contentBytes(node: Extract<TreeNode, { type: "file" }>): Uint8Array {
  return "bytes" in node.content ? node.content.bytes : readFileSync(node.content.from);
}

function entryOf(path: string, node: TreeNode): CpioEntry {
  switch (node.type) {
    case "file":
      return { type: "file", path, mode: node.mode, lengthBytes: lengthOf(node.content) };
    default:
      return { path, ...node };
  }
}
