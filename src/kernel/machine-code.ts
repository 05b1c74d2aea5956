/**
 * Machine code that was made at run time: memory that may be executed, and functions in it.
 *
 * It is written while it may not be executed and executed when it may no longer be written, so no bytes of a disk or a peer can
 * ever become code. A system can refuse executable memory (SELinux, seccomp); callers have another way then.
 */
import { assert } from "../errors.ts";
import * as abi from "./abi.ts";
import { bufferAt, type ForeignFunction, type LinkedFunction, linkFunction, type Signature } from "./ffi.ts";
import { errnoText, mmap, mprotect, munmap } from "./libc.ts";

export class MachineCode {
  readonly #linked: LinkedFunction<Signature>[] = [];

  private constructor(
    readonly address: number,
    readonly mappedBytes: number,
  ) {}

  /** Maps the code, or null where the system refuses. It lives until `free`. */
  static map(code: Uint8Array): MachineCode | null {
    const mappedBytes = Math.ceil(code.length / abi.PAGE_BYTES) * abi.PAGE_BYTES;
    const address = mmap(mappedBytes, abi.PROT_READ | abi.PROT_WRITE, abi.MAP_PRIVATE | abi.MAP_ANONYMOUS, -1, 0);
    if (address < 0) return null;
    const mapped = new MachineCode(address, mappedBytes);
    new Uint8Array(bufferAt(address, code.length)).set(code);
    if (mprotect(address, mappedBytes, abi.PROT_READ | abi.PROT_EXEC) === 0) return mapped;
    mapped.free();
    return null;
  }

  /** The function that begins at an offset of the code. Not to be called after `free`. */
  link<const One extends Signature>(offsetBytes: number, signature: One): ForeignFunction<One> {
    const linked = linkFunction(this.address + offsetBytes, signature);
    this.#linked.push(linked as unknown as LinkedFunction<Signature>);
    return linked.call;
  }

  free(): void {
    for (const linked of this.#linked) linked.close();
    const result = munmap(this.address, this.mappedBytes);
    assert(result === 0, `munmap of our own mapping failed: ${errnoText(result)}`);
  }
}
