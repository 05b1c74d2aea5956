/**
 * zstd over memory of the slab pool: one compressing and one inflating context for each thread that uses it.
 *
 * The runtime's one-call functions return a new buffer for each block, which piles up outside of the heap faster than
 * it is collected: 100 to 200 MB for 128 MiB of blocks. The contexts behind `node:zlib`'s streams write where they are told,
 * keep their tables from block to block, and are called in the same synchronous way by that module itself.
 */
import { assert } from "../errors.ts";
import { zstdFrameProblem } from "../wire/zstd-frame.ts";

/** Level 1 packs files of an operating system to 44 % at 0.3 GiB/s; level 3 to 41 % at 0.19 GiB/s. */
const LEVEL = 1;
/** What is left of a frame that came out too long goes here, a piece at a time. */
const DRAIN_BYTES = 16 * 1024;
/** ZSTD_EndDirective of zstd.h. */
const END_OF_FRAME = 2;
const NO_BYTES = new Uint8Array(0);

/** The part of a `node:zlib` stream that does the work. */
interface Stream {
  readonly _handle: {
    writeSync(
      flush: number,
      input: Uint8Array,
      inputAt: number,
      inputBytes: number,
      output: Uint8Array,
      outputAt: number,
      outputBytes: number,
    ): void;
    reset(): void;
    onerror: (message: string) => void;
  };
  /** Bytes of output that stayed free, bytes of input that were not taken. */
  readonly _writeState: Uint32Array;
}

export class Zstd {
  #compressing: Stream | null = null;
  #inflating: Stream | null = null;
  #failed = false;
  #drain = NO_BYTES;
  #copy = NO_BYTES;

  /** Packs `plain` into `packed`, as one frame. Returns its length; 0 where it does not fit. */
  pack(plain: Uint8Array, packed: Uint8Array): number {
    this.#compressing ??= compressor();
    const stream = this.#compressing;
    const leftBytes = this.#write(stream, plain, packed);
    assert(!this.#failed, "packing refuses no input");
    if (leftBytes > 0) return packed.length - leftBytes;
    // The context begins a new frame only after it has given away all of this one. Resetting it would reset the level.
    if (this.#drain.length === 0) this.#drain = new Uint8Array(DRAIN_BYTES);
    let drainedBytes = 0;
    do {
      const rest = plain.subarray(plain.length - stream._writeState[1]!);
      drainedBytes = DRAIN_BYTES - this.#write(stream, rest, this.#drain);
      assert(!this.#failed, "packing refuses no input");
    } while (drainedBytes === DRAIN_BYTES);
    return 0;
  }

  /** Inflates `packed` into exactly `plain`; the two may overlap. False where it is not one sound frame of that length. */
  unpack(packed: Uint8Array, plain: Uint8Array): boolean {
    if (zstdFrameProblem(packed, plain.length) !== null) return false;
    this.#inflating ??= inflater();
    const stream = this.#inflating;
    const input = overlaps(packed, plain) ? this.#copyOf(packed) : packed;
    const leftBytes = this.#write(stream, input, plain);
    if (!this.#failed && leftBytes === 0 && stream._writeState[1] === 0) return true;
    stream._handle.reset();
    return false;
  }

  /** Ends a frame with all of `input`. Returns the bytes of `output` that stayed free. */
  #write(stream: Stream, input: Uint8Array, output: Uint8Array): number {
    this.#failed = false;
    stream._handle.onerror = () => {
      this.#failed = true;
    };
    stream._handle.writeSync(END_OF_FRAME, input, 0, input.length, output, 0, output.length);
    return stream._writeState[0]!;
  }

  #copyOf(bytes: Uint8Array): Uint8Array {
    if (this.#copy.length < bytes.length) this.#copy = new Uint8Array(bytes.length);
    this.#copy.set(bytes);
    return this.#copy.subarray(0, bytes.length);
  }
}

function compressor(): Stream {
  const { constants, createZstdCompress } = zlib();
  return streamOf(createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: LEVEL } }));
}

function inflater(): Stream {
  return streamOf(zlib().createZstdDecompress());
}

/** Loaded by the thread that packs or inflates, with its first block: it brings all of the runtime's streams with it. */
function zlib(): typeof import("node:zlib") {
  return require("node:zlib") as typeof import("node:zlib");
}

function streamOf(stream: unknown): Stream {
  const { _handle, _writeState } = stream as Partial<Stream>;
  assert(
    typeof _handle?.writeSync === "function" && _writeState instanceof Uint32Array,
    "the runtime has zstd contexts",
  );
  return stream as Stream;
}

function overlaps(a: Uint8Array, b: Uint8Array): boolean {
  return a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.length && b.byteOffset < a.byteOffset + a.length;
}
