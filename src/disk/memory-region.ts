/**
 * The memory that jobs name by offsets, as it is seen by the thread that does them.
 *
 * It belongs to the owner of the hasher. JavaScriptCore counts a view of it as heap of its thread, so none is made before a
 * job needs one; blocks land at the same places again and again, so views are kept and jobs make no garbage.
 */
import { bufferAt } from "../kernel/ffi.ts";
import type { Address } from "../kernel/reactor.ts";

/** 64 MiB in blocks of 16 KiB. */
const VIEWS_MAX = 4096;

export class MemoryRegion {
  #buffer: ArrayBuffer | null = null;
  /** By where they begin. */
  readonly #views = new Map<number, Uint8Array>();

  constructor(
    readonly address: Address,
    readonly lengthBytes: number,
  ) {}

  view(offsetBytes: number, lengthBytes: number): Uint8Array {
    let view = this.#views.get(offsetBytes);
    if (view?.length !== lengthBytes) {
      if (this.#views.size >= VIEWS_MAX) this.#views.clear();
      this.#buffer ??= bufferAt(this.address, this.lengthBytes);
      view = new Uint8Array(this.#buffer, offsetBytes, lengthBytes);
      this.#views.set(offsetBytes, view);
    }
    return view;
  }
}
