/**
 * An image that has to be unpacked into a raw file: one of partclone, or a raw one that was compressed; in one file or
 * split into many. What it holds streams from the files through the programs that know it into the raw file.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { ExitCode, Failure } from "../../errors.ts";
import { reasonOf, ScratchFile, throwIfTooOld, type Tool } from "../external-tool.ts";
import type { UsedMap } from "../partclone.ts";
import { type Codec, codecOf, UNPACK_OPTIONS } from "./codecs.ts";
import {
  BitmapParser,
  isPartcloneImage,
  PARTCLONE_HEAD_BYTES,
  type PartcloneHead,
  PartcloneImageFault,
  parsePartcloneHead,
} from "./partclone-image.ts";
import { failedStage, runPipeline, type Stage, type StageRun } from "./pipeline.ts";

const needed = (program: string, packageName: string): Tool => ({ program, package: packageName, isNeeded: true });
const CAT = needed("cat", "coreutils");
const HEAD = needed("head", "coreutils");
const DD = needed("dd", "coreutils");
const RESTORE = needed("partclone.restore", "partclone");
/** From standard input into a part of a file that is there; silent, without its log and the seconds of sleep at its end. */
const RESTORE_OPTIONS = ["-s", "-", "-C", "-q", "-f", "0", "-L", "/dev/null"];
/** Copies as they come from a pipe, leaves holes where there are zeros, and does not cut the file. */
const DD_OPTIONS = ["bs=1M", "iflag=fullblock", "oflag=seek_bytes", "conv=sparse,notrunc"];

/** A map that was read from an image; `usedBytes` are what unpacking it writes. */
export interface PartcloneImage {
  readonly head: PartcloneHead;
  readonly map: UsedMap;
}

/** The image's files, as a stream. */
export class PackedImage {
  readonly #codec: Codec | null;

  /** `parts` are its files in order. */
  constructor(readonly parts: readonly string[]) {
    this.#codec = codecOf(firstBytes(parts[0]));
  }

  /** The first file, for messages. */
  get name(): string {
    return this.parts[0];
  }

  /** Its head and map where it is partclone's, else null: a raw image. The caller closes the map. Throws Failure, Interrupted. */
  async readPartclone(signal: AbortSignal): Promise<PartcloneImage | null> {
    const start = await this.#start(PARTCLONE_HEAD_BYTES, signal);
    try {
      const bytes = Buffer.alloc(PARTCLONE_HEAD_BYTES);
      const head = bytes.subarray(0, readSync(start.fd, bytes, 0, bytes.length, 0));
      return isPartcloneImage(head) ? await this.#readMap(parsePartcloneHead(head), signal) : null;
    } catch (error) {
      throw this.#translated(error);
    } finally {
      start.close();
    }
  }

  /** Restores an image of partclone at an offset of a file. Throws Failure, also where a checksum is wrong; Interrupted. */
  async restore(rawPath: string, offsetBytes: number, signal: AbortSignal): Promise<void> {
    const words = [...RESTORE_OPTIONS, "-O", rawPath, "-E", String(offsetBytes)];
    this.#throwIfFailed(await this.#run({ tool: RESTORE, args: words }, null, signal));
  }

  /** Writes a raw image at an offset of a file. Answers with its length. Throws Failure, Interrupted. */
  async copy(rawPath: string, offsetBytes: number, signal: AbortSignal): Promise<number> {
    const args = [...DD_OPTIONS, `of=${rawPath}`, `seek=${offsetBytes}`];
    const runs = await this.#run({ tool: DD, args }, null, signal);
    this.#throwIfFailed(runs);
    const copied = /^(\d+) bytes? .*copied/m.exec(runs.at(-1)!.stderr);
    if (copied === null) throw this.#failure("dd does not say how much it copied: install the package coreutils");
    return Number(copied[1]);
  }

  async #readMap(head: PartcloneHead, signal: AbortSignal): Promise<PartcloneImage> {
    const start = await this.#start(head.headBytes + head.bitmapBytes, signal);
    const walk = (used: (offsetBytes: number, lengthBytes: number) => void) => {
      const parser = new BitmapParser(head, used);
      let skipBytes = head.headBytes;
      start.read((bytes) => {
        parser.push(bytes.subarray(Math.min(skipBytes, bytes.length)));
        skipBytes -= Math.min(skipBytes, bytes.length);
      });
      parser.finish();
      return parser.usedBytes;
    };
    try {
      const usedBytes = walk(() => {});
      const endBytes = head.blockBytes * head.blockCount;
      return {
        head,
        map: { endBytes, usedBytes, forEachRun: (visit) => void walk(visit), close: () => start.close() },
      };
    } catch (error) {
      start.close();
      throw error;
    }
  }

  /** The stream's first bytes, or all of a shorter one. The caller closes the file. */
  async #start(lengthBytes: number, signal: AbortSignal): Promise<ScratchFile> {
    const output = new ScratchFile();
    try {
      const runs = await this.#run({ tool: HEAD, args: ["-c", String(lengthBytes)] }, output, signal);
      // `head` ends the others when it has enough; a stream that ended before that has to be whole.
      if (fstatSync(output.fd).size < lengthBytes) this.#throwIfFailed(runs);
      return output;
    } catch (error) {
      output.close();
      throw error;
    }
  }

  async #run(last: Stage, output: ScratchFile | null, signal: AbortSignal): Promise<StageRun[]> {
    const stages: Stage[] = [];
    if (this.parts.length > 1) stages.push({ tool: CAT, args: ["--", ...this.parts] });
    if (this.#codec !== null) stages.push({ tool: this.#codec.tool, args: UNPACK_OPTIONS });
    const fd = this.parts.length > 1 ? null : openSync(this.parts[0], "r");
    try {
      return await runPipeline([...stages, last], { stdin: fd, stdout: output?.fd ?? null }, signal);
    } finally {
      if (fd !== null) closeSync(fd);
    }
  }

  #throwIfFailed(runs: readonly StageRun[]): void {
    const failed = failedStage(runs);
    if (failed === null) return;
    throwIfTooOld(failed.tool, failed);
    throw this.#failure(`${failed.tool.program} says: ${reasonOf(failed)}`);
  }

  #translated(error: unknown): unknown {
    return error instanceof PartcloneImageFault ? this.#failure(`the image ${error.message}`) : error;
  }

  #failure(problem: string): Failure {
    const name = this.parts.length > 1 ? `${this.name} and its ${this.parts.length - 1} other parts` : this.name;
    return new Failure(ExitCode.failed, "image-damaged", `cannot unpack ${name}: ${problem}`);
  }
}

function firstBytes(path: string): Buffer {
  const bytes = Buffer.alloc(64);
  const fd = openSync(path, "r");
  try {
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(fd);
  }
}
