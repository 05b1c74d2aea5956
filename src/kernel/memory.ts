/**
 * Memory that the kernel may read and write while JavaScript runs.
 *
 * A typed array of the JavaScript heap can move, so the kernel is only ever given mmapped memory. The
 * owner of a `Memory` frees it; after `free` no view of it may be touched, by any thread.
 */
import { assert, assertRange, ExitCode, Failure } from "../errors.ts";
import { MiB } from "../units.ts";
import * as abi from "./abi.ts";
import { bufferAt } from "./ffi.ts";
import { Errno, errnoText, madvise, mmap, munmap } from "./libc.ts";

/** Mappings from this size on may be made of 2 MiB pages. */
const HUGE_FROM_BYTES = 8 * MiB;

export interface Memory {
  /** Page aligned. */
  readonly address: number;
  readonly lengthBytes: number;
  /**
   * The whole range; `subarray` of it shares the memory. Made at the first use: JavaScriptCore counts a view as
   * heap of its thread, so a thread that views a pool of 64 MiB lets as much garbage pile up before it collects.
   */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** munmap(2). The kernel may have no operation in flight on the range. */
  free(): void;
}

/** Maps `lengthBytes` zeroed bytes, rounded up to whole pages, that live until `free`. Pages cost RSS when first touched. */
export function mapMemory(lengthBytes: number): Memory {
  assertRange(Number.isSafeInteger(lengthBytes) && lengthBytes > 0, "memory size", lengthBytes);
  const mappedBytes = Math.ceil(lengthBytes / abi.PAGE_BYTES) * abi.PAGE_BYTES;
  const address = mmap(mappedBytes, abi.PROT_READ | abi.PROT_WRITE, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS, -1, 0);
  if (address < 0) {
    throw new Failure(
      ExitCode.failed,
      "memory",
      `cannot map ${lengthBytes} bytes of memory: ${errnoText(address)}; give a smaller --memory`,
    );
  }
  if (mappedBytes >= HUGE_FROM_BYTES) {
    // Copies into and out of large buffers miss the TLB less; a kernel without huge pages says EINVAL, and nothing is lost.
    const advised = madvise(address, mappedBytes, abi.MADV_HUGEPAGE);
    assert(advised === 0 || advised === -Errno.EINVAL, `madvise of our own mapping failed: ${errnoText(advised)}`);
  }
  return new MappedMemory(address, lengthBytes, mappedBytes);
}

class MappedMemory implements Memory {
  #bytes: Uint8Array | null = null;
  #view: DataView | null = null;
  #mapped = true;

  constructor(
    readonly address: number,
    readonly lengthBytes: number,
    readonly mappedBytes: number,
  ) {}

  get bytes(): Uint8Array {
    this.#bytes ??= viewAt(this.address, this.lengthBytes);
    return this.#bytes;
  }

  get view(): DataView {
    this.#view ??= new DataView(this.bytes.buffer, this.bytes.byteOffset, this.lengthBytes);
    return this.#view;
  }

  free(): void {
    assert(this.#mapped, "memory freed twice");
    this.#mapped = false;
    const result = munmap(this.address, this.mappedBytes);
    assert(result === 0, `munmap of our own mapping failed: ${errnoText(result)}`);
  }
}

/**
 * A view of memory that this process has mapped, for example by another thread: make it once and keep it.
 * The mapping must outlive the view.
 */
export function viewAt(address: number, lengthBytes: number): Uint8Array {
  return new Uint8Array(bufferAt(address, lengthBytes));
}
