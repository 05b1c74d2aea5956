/**
 * What an ELF file needs before it can run (elf(5)): its loader and the names of its libraries; and the section of a
 * kernel module that describes it. Pure: bytes in. Of foreign files nothing is run and nothing is believed unchecked.
 */

export type Machine = "x86-64" | "aarch64";

export interface ElfNeeds {
  readonly machine: Machine;
  /** The loader's path (PT_INTERP); null: the program is static, or this is a library. */
  readonly loader: string | null;
  /** Names of libraries (DT_NEEDED), in order. */
  readonly libraries: readonly string[];
  /** Folders where they are looked for first (DT_RUNPATH or DT_RPATH), as written. */
  readonly searchFolders: readonly string[];
}

export class ElfProblem extends Error {
  override readonly name = "ElfProblem";
}

const MACHINES: Readonly<Record<number, Machine>> = { 62: "x86-64", 183: "aarch64" };
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1;
const DT_STRTAB = 5;
const DT_RPATH = 15;
const DT_RUNPATH = 29;
const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const SECTION_HEADER_BYTES = 64;

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly length: number;
}

/** Is this the start of an ELF file at all? Shell scripts are programs, too. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** Throws ElfProblem where the file is cut short, contradicts itself or is for another kind of machine. */
export function elfNeeds(bytes: Uint8Array): ElfNeeds {
  const reader = new Reader(bytes);
  const segments = reader.segments();
  const interpreter = segments.find(({ type }) => type === PT_INTERP);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  const { libraries, searchFolders } =
    dynamic === undefined ? { libraries: [], searchFolders: [] } : readDynamic(reader, dynamic, segments);
  return {
    machine: reader.machine,
    loader: interpreter === undefined ? null : reader.textAt(interpreter.offset),
    libraries,
    searchFolders,
  };
}

function readDynamic(reader: Reader, dynamic: Segment, segments: readonly Segment[]) {
  const libraryAt: number[] = [];
  const runpathAt: number[] = [];
  const rpathAt: number[] = [];
  let stringsAddress: number | null = null;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.length; at += 16) {
    const tag = reader.word(at);
    const value = reader.word(at + 8);
    if (tag === 0) break;
    if (tag === DT_NEEDED) libraryAt.push(value);
    else if (tag === DT_RPATH) rpathAt.push(value);
    else if (tag === DT_RUNPATH) runpathAt.push(value);
    else if (tag === DT_STRTAB) stringsAddress = value;
  }
  if (stringsAddress === null) throw new ElfProblem("has a dynamic section without strings");
  const home = segments.find(
    ({ type, address, length }) => type === PT_LOAD && stringsAddress! >= address && stringsAddress! < address + length,
  );
  if (home === undefined) throw new ElfProblem("has its strings in no segment");
  const strings = home.offset + (stringsAddress - home.address);
  const textAt = (offset: number) => reader.textAt(strings + offset);
  // With a RUNPATH the older RPATH does not count (ld.so(8)).
  const search = runpathAt.length > 0 ? runpathAt : rpathAt;
  return {
    libraries: libraryAt.map(textAt),
    searchFolders: search.flatMap((at) => textAt(at).split(":")).filter(Boolean),
  };
}

/** Content of a section by its name, such as `.modinfo`; null where there is none. Throws ElfProblem. */
export function elfSection(bytes: Uint8Array, name: string): Uint8Array | null {
  const reader = new Reader(bytes);
  const tableAt = reader.word(40);
  const count = reader.half(60);
  const namesIndex = reader.half(62);
  if (count === 0) return null;
  const headerAt = (index: number) => tableAt + index * SECTION_HEADER_BYTES;
  const namesAt = reader.word(headerAt(namesIndex) + 24);
  for (let i = 0; i < count; i++) {
    const at = headerAt(i);
    if (reader.textAt(namesAt + reader.int(at)) !== name) continue;
    return reader.slice(reader.word(at + 24), reader.word(at + 32));
  }
  return null;
}

class Reader {
  readonly machine: Machine;
  readonly #view: DataView;

  constructor(private readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (!isElf(bytes)) throw new ElfProblem("is no ELF file");
    this.#check(0, HEADER_BYTES);
    if (bytes[4] !== 2 || bytes[5] !== 1) throw new ElfProblem("is not for a 64-bit little-endian machine");
    const machine = MACHINES[this.half(18)];
    if (machine === undefined) throw new ElfProblem(`is for machine type ${this.half(18)}, not for x86-64 or aarch64`);
    this.machine = machine;
  }

  segments(): Segment[] {
    const tableAt = this.word(32);
    return Array.from({ length: this.half(56) }, (_, i) => {
      const at = tableAt + i * PROGRAM_HEADER_BYTES;
      return { type: this.int(at), offset: this.word(at + 8), address: this.word(at + 16), length: this.word(at + 32) };
    });
  }

  half(at: number): number {
    this.#check(at, 2);
    return this.#view.getUint16(at, true);
  }

  int(at: number): number {
    this.#check(at, 4);
    return this.#view.getUint32(at, true);
  }

  word(at: number): number {
    this.#check(at, 8);
    const value = Number(this.#view.getBigUint64(at, true));
    if (!Number.isSafeInteger(value)) throw new ElfProblem("has an address beyond any file");
    return value;
  }

  textAt(at: number): string {
    this.#check(at, 1);
    const end = this.bytes.indexOf(0, at);
    if (end < 0) throw new ElfProblem("ends within a text");
    return new TextDecoder().decode(this.bytes.subarray(at, end));
  }

  slice(at: number, length: number): Uint8Array {
    this.#check(at, length);
    return this.bytes.subarray(at, at + length);
  }

  #check(at: number, length: number): void {
    if (at + length > this.bytes.length) throw new ElfProblem("is cut short");
  }
}
