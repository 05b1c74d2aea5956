/**
 * The image of a boot folder, found by its SHA-256. What was opened stays open: a folder that is built anew while nodes
 * run does not take from under them what they run on.
 */
import { createReadStream } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { NODE_IMAGES_OPEN_MAX } from "../../limits.ts";
import type { ReadableImage } from "./session.ts";

interface OpenImage extends ReadableImage {
  readonly file: FileHandle;
  /** What tells the file from one that took its place. */
  readonly mark: string;
}

export class ImageFiles {
  /** In the order in which they were asked for last. */
  #open: OpenImage[] = [];
  /** Two hosts that come at once have it hashed once. */
  #looking: Promise<void> | null = null;

  constructor(
    private readonly path: string,
    private readonly tell: (problem: string) => void,
  ) {}

  /** Its length; null where there is no such file. */
  async lengthBytes(): Promise<number | null> {
    const found = await this.#stat();
    return found === null ? null : found.size;
  }

  async find(sha256: string): Promise<ReadableImage | null> {
    const known = this.#known(sha256);
    if (known !== null) return known;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = null;
    });
    await this.#looking;
    return this.#known(sha256);
  }

  async close(): Promise<void> {
    await this.#looking;
    for (const { file } of this.#open.splice(0)) await file.close();
  }

  #known(sha256: string): OpenImage | null {
    const found = this.#open.find((image) => image.sha256 === sha256);
    if (found === undefined) return null;
    this.#open = [...this.#open.filter((image) => image !== found), found];
    return found;
  }

  /** Takes in the file that is there now, unless it is known. */
  async #look(): Promise<void> {
    const found = await this.#stat();
    if (found === null || this.#open.some(({ mark }) => mark === markOf(found))) return;
    try {
      this.#open.push(await this.#take());
    } catch (error) {
      this.tell(`cannot read ${this.path}: ${(error as Error).message}`);
      return;
    }
    if (this.#open.length > NODE_IMAGES_OPEN_MAX) await this.#open.shift()!.file.close();
  }

  async #take(): Promise<OpenImage> {
    const file = await open(this.path, "r");
    try {
      const found = await file.stat();
      const hasher = new Bun.CryptoHasher("sha256");
      const stream = createReadStream("", { fd: file.fd, autoClose: false, start: 0, highWaterMark: HASH_BYTES });
      for await (const chunk of stream) hasher.update(chunk as Buffer);
      const sha256 = hasher.digest("hex");
      const read = (into: Uint8Array, offsetBytes: number) => this.#read(file, into, offsetBytes);
      return { file, mark: markOf(found), sha256, lengthBytes: found.size, read };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #read(file: FileHandle, into: Uint8Array, offsetBytes: number): Promise<boolean> {
    try {
      const { bytesRead } = await file.read(into, 0, into.length, offsetBytes);
      if (bytesRead === into.length) return true;
      this.tell(`cannot read ${this.path}: it ends before byte ${offsetBytes + into.length} now`);
    } catch (error) {
      this.tell(`cannot read ${this.path} at byte ${offsetBytes}: ${(error as Error).message}`);
    }
    return false;
  }

  async #stat() {
    try {
      const found = await stat(this.path);
      return found.isFile() ? found : null;
    } catch {
      // One stage, or a folder that was taken away: there is no image to be read.
      return null;
    }
  }
}

const HASH_BYTES = 1 << 20;

function markOf({ ino, size, mtimeMs }: { ino: number; size: number; mtimeMs: number }): string {
  return `${ino} ${size} ${mtimeMs}`;
}
