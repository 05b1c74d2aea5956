/** The listing of SHA-1 as functions that can be called. */
import { assertRange } from "../../errors.ts";
import type { ForeignFunction } from "../../kernel/ffi.ts";
import { MachineCode } from "../../kernel/machine-code.ts";
import type { Address } from "../../kernel/reactor.ts";
import { assembleSha1, type Listing } from "./listing.ts";
import { hasSha1Instructions } from "./processor.ts";

const SIGNATURE = { args: ["u64_fast", "u64_fast"], returns: "void" } as const;

export class Sha1Code {
  readonly #code: MachineCode;
  readonly #compress: readonly ForeignFunction<typeof SIGNATURE>[];

  private constructor(code: MachineCode, { compress }: Listing) {
    this.#code = code;
    this.#compress = compress.map((place) => code.link(place, SIGNATURE));
  }

  /** Null on a processor without the instructions, and where the system refuses executable memory. */
  static load(): Sha1Code | null {
    if (!hasSha1Instructions()) return null;
    const listing = assembleSha1();
    const code = MachineCode.map(listing.bytes);
    return code && new Sha1Code(code, listing);
  }

  /** Takes as many blocks of each lane into its state; `table` has a row for each (see listing.ts). */
  compress(lanes: number, table: Address, blocks: number): void {
    assertRange(Number.isSafeInteger(blocks) && blocks > 0, "blocks", blocks);
    this.#compress[lanes - 1](table, blocks);
  }

  free(): void {
    this.#code.free();
  }
}
