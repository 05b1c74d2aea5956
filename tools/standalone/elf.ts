/**
 * Reads what the build needs to know of an ELF file (elf(5), 64-bit, little-endian): of the executable that Bun
 * made and of the C library's files. Whatever is not as expected ends the build: nothing is guessed.
 */

export const SegmentType = { load: 1, dynamic: 2, interpreter: 3, stack: 0x6474e551 } as const;
const DynamicTag = { needed: 1, stringTable: 5, symbolTable: 6, rela: 7, relaSize: 8, pltRelaSize: 2, pltRela: 23 };
const MACHINES: Readonly<Record<number, Machine>> = { 62: "x86-64", 183: "aarch64" };
export const HEADER_BYTES = 64;
export const PROGRAM_HEADER_BYTES = 56;
const SYMBOL_BYTES = 24;
const RELA_BYTES = 24;
const DYNAMIC_BYTES = 16;
const EXECUTABLE_AT_FIXED_ADDRESSES = 2;

export type Machine = "x86-64" | "aarch64";

/** A program header. */
export interface Segment {
  readonly type: number;
  /** 4 read, 2 write, 1 execute. */
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
  readonly alignment: number;
}

export class ElfError extends Error {}

export class Elf {
  readonly machine: Machine;
  readonly segments: readonly Segment[];
  readonly #view: DataView;

  /** `name` is for messages. */
  constructor(
    readonly name: string,
    readonly bytes: Buffer,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length < HEADER_BYTES || this.#view.getUint32(0) !== 0x7f454c46) this.#fail("is no ELF file");
    if (bytes[4] !== 2 || bytes[5] !== 1) this.#fail("is no 64-bit little-endian ELF file");
    this.machine = MACHINES[this.#half(18)] ?? this.#fail("is for a machine that is not known here");
    const [tableAt, count] = [this.#word(32), this.#half(56)];
    if (this.#half(54) !== PROGRAM_HEADER_BYTES) this.#fail("has program headers of another size");
    this.segments = Array.from({ length: count }, (_, i) => this.#segmentAt(tableAt + i * PROGRAM_HEADER_BYTES));
  }

  get entry(): number {
    return this.#word(24);
  }

  /** Whether it can only be at the addresses that it names (ET_EXEC). */
  get isAtFixedAddresses(): boolean {
    return this.#half(16) === EXECUTABLE_AT_FIXED_ADDRESSES;
  }

  /** The offset of the program headers. */
  get tableOffset(): number {
    return this.#word(32);
  }

  get loads(): readonly Segment[] {
    return this.segments.filter((segment) => segment.type === SegmentType.load);
  }

  /** The path of the dynamic loader; null where there is none. */
  get interpreter(): string | null {
    const segment = this.segments.find(({ type }) => type === SegmentType.interpreter);
    return segment ? this.#text(segment.offset) : null;
  }

  /** The names of the libraries that it names itself. */
  get needed(): string[] {
    const strings = this.#dynamicOffset(DynamicTag.stringTable);
    return this.#dynamicValues(DynamicTag.needed).map((at) => this.#text(strings + at));
  }

  /** The address at which the loader puts the pointer to an imported function. */
  importSlot(symbol: string): number {
    const tables = [
      [DynamicTag.pltRela, DynamicTag.pltRelaSize],
      [DynamicTag.rela, DynamicTag.relaSize],
    ] as const;
    for (const [tag, sizeTag] of tables) {
      const [start, bytes] = [this.#dynamicOffset(tag), this.#dynamicValues(sizeTag)[0] ?? 0];
      for (let at = start; at < start + bytes; at += RELA_BYTES) {
        if (this.#symbolName(this.#long(at + 12)) === symbol) return this.#word(at);
      }
    }
    return this.#fail(`imports no ${symbol}`);
  }

  #symbolName(index: number): string {
    const at = this.#dynamicOffset(DynamicTag.symbolTable) + index * SYMBOL_BYTES;
    return this.#text(this.#dynamicOffset(DynamicTag.stringTable) + this.#long(at));
  }

  #dynamicOffset(tag: number): number {
    const address = this.#dynamicValues(tag)[0] ?? this.#fail(`has no entry ${tag} in its dynamic section`);
    const load = this.loads.find((one) => address >= one.address && address < one.address + one.fileBytes);
    return load ? address - load.address + load.offset : this.#fail(`has nothing at address ${address}`);
  }

  #dynamicValues(tag: number): number[] {
    const section = this.segments.find(({ type }) => type === SegmentType.dynamic);
    if (!section) return this.#fail("is not dynamically linked");
    const values: number[] = [];
    for (let at = section.offset; at < section.offset + section.fileBytes; at += DYNAMIC_BYTES) {
      if (this.#word(at) === tag) values.push(this.#word(at + 8));
    }
    return values;
  }

  #segmentAt(at: number): Segment {
    const segment = {
      type: this.#long(at),
      flags: this.#long(at + 4),
      offset: this.#word(at + 8),
      address: this.#word(at + 16),
      fileBytes: this.#word(at + 32),
      memoryBytes: this.#word(at + 40),
      alignment: this.#word(at + 48),
    };
    this.#inside(segment.offset, segment.fileBytes);
    return segment;
  }

  #word(at: number): number {
    return Number(this.#view.getBigUint64(this.#inside(at, 8), true));
  }

  #long(at: number): number {
    return this.#view.getUint32(this.#inside(at, 4), true);
  }

  #half(at: number): number {
    return this.#view.getUint16(this.#inside(at, 2), true);
  }

  #inside(at: number, lengthBytes: number): number {
    return at >= 0 && at + lengthBytes <= this.bytes.length ? at : this.#fail("ends too early");
  }

  #text(at: number): string {
    const end = this.bytes.indexOf(0, at);
    return end < 0 ? this.#fail("ends inside a name") : this.bytes.toString("latin1", at, end);
  }

  #fail(what: string): never {
    throw new ElfError(`${this.name} ${what}`);
  }
}
