/**
 * Makes a dynamically linked executable start without a dynamic loader and a C library on the machine: as the
 * only file of an initramfs, in an empty folder, beside musl (docs/decisions/0022).
 *
 * What is appended to it, and mapped by the kernel together with it since the new program headers name it:
 *
 *     original file | table | launcher | dynamic loader | its libraries
 *
 * There is no interpreter for the kernel to load any more. It starts the launcher (launcher-*.s), which puts into
 * the auxiliary vector what would be there if it had, and jumps to the loader. From then on the loader does what
 * it always does, except that its openat calls were replaced: a library that is carried here is answered with a
 * file in memory (memfd). Nothing of the program is copied, and neither /proc nor a writable folder is needed.
 *
 * The libraries are carried as they are; of the loader the few bytes of those system calls differ.
 */
import { lstatSync, readFileSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { Elf, ElfError, type Machine, PROGRAM_HEADER_BYTES, type Segment, SegmentType } from "./elf.ts";
import { LAUNCHERS } from "./machine-code.ts";
import { openSites, trampoline } from "./open-sites.ts";

/** The largest page of the machines' kernels; whatever is mapped is at multiples of it, in the file and in memory. */
const PAGE_BYTES = 0x10000;
const READ = 4;
const READ_WRITE = 6;
const READ_EXECUTE = 5;
const TABLE_WORDS = 9;
const LIBRARY_WORDS = 3;
const LINKS_MAX = 40;
/** Of the ELF header: e_shoff, and e_shnum with e_shstrndx. */
const SECTIONS_OFFSET_AT = 40;
const SECTION_COUNT_AT = 60;

/** Something that the kernel is to map. */
interface Part {
  readonly bytes: Buffer;
  readonly address: number;
  readonly flags: number;
}

/** The executable and what it runs with, as taken from `systemRoot`. */
interface Program {
  readonly elf: Elf;
  readonly loader: Elf;
  readonly libraries: readonly Elf[];
}

/** The bytes of the standalone form of an executable; throws ElfError where something is not as expected. */
export function standalone(executable: Elf, systemRoot: string): Buffer {
  const program = readProgram(executable, systemRoot);
  const start = align(Math.max(...program.elf.loads.map((load) => load.address + load.memoryBytes)));
  const launcherAt = start + PAGE_BYTES;
  const loaderAt = launcherAt + PAGE_BYTES;
  const loader = memoryImage(program.loader);
  const launcher = makeLauncher(program, loader, launcherAt, loaderAt);
  const librariesAt = loaderAt + align(loader.length);
  const { bytes: libraries, table } = packLibraries(program.libraries, librariesAt);
  const words = [...tableWords(program, loaderAt), ...table, 0];
  const parts: Part[] = [
    { bytes: wordsToBytes(words), address: start, flags: READ_WRITE },
    { bytes: launcher, address: launcherAt, flags: READ_EXECUTE },
    ...program.loader.loads.map((load) => loaderPart(load, loader, loaderAt)),
    { bytes: libraries, address: librariesAt, flags: READ },
  ];
  return assemble(program.elf, start, parts, launcherAt + entryPoints(program.elf.machine).start);
}

function readProgram(elf: Elf, systemRoot: string): Program {
  if (!elf.isAtFixedAddresses) failWith(`${elf.name} has no fixed addresses, so no standalone form can be made`);
  const interpreter = elf.interpreter ?? failWith(`${elf.name} names no dynamic loader`);
  // A distribution's loader lies beside its C library, whatever the link is called that executables name.
  // What was unpacked from packages lacks the link from /lib to /usr/lib.
  const loaderPath =
    realPathBelow(systemRoot, interpreter) ??
    realPathBelow(systemRoot, `/usr${interpreter}`) ??
    failWith(`there is no ${join(systemRoot, interpreter)}, the loader that the executable needs`);
  const loader = readLibrary(loaderPath, elf.machine);
  const found = new Map<string, Elf>([[interpreter.slice(interpreter.lastIndexOf("/") + 1), loader]]);
  const libraries: Elf[] = [];
  const wanted = [...elf.needed];
  for (let name = wanted.shift(); name !== undefined; name = wanted.shift()) {
    if (found.has(name)) continue;
    const library = readLibrary(join(dirname(loaderPath), name), elf.machine, name);
    found.set(name, library);
    libraries.push(library);
    wanted.push(...library.needed);
  }
  return { elf, loader, libraries };
}

function readLibrary(path: string, machine: Machine, name = path): Elf {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    return failWith(`cannot read ${path}, which the executable needs: ${(error as Error).message}`);
  }
  const library = new Elf(name, bytes);
  return library.machine === machine ? library : failWith(`${path} is for ${library.machine}, not for ${machine}`);
}

/** Follows links as a process would whose root is `systemRoot`: they may be absolute. Null where there is nothing. */
function realPathBelow(systemRoot: string, path: string): string | null {
  let parts = path.split("/").filter((part) => part !== "");
  let real = systemRoot;
  for (let links = 0; parts.length > 0; ) {
    const next = join(real, parts[0]!);
    const status = lstatSync(next, { throwIfNoEntry: false });
    if (!status) return null;
    parts = parts.slice(1);
    if (!status.isSymbolicLink()) {
      real = next;
      continue;
    }
    if (++links > LINKS_MAX) failWith(`${join(systemRoot, path)}: too many links`);
    const target = readlinkSync(next);
    parts = [...target.split("/").filter((part) => part !== ""), ...parts];
    if (target.startsWith("/")) real = systemRoot;
  }
  return real;
}

/** The file as it will be in memory, to the end of its last page: the loader uses what follows its data as its heap. */
function memoryImage(loader: Elf): Buffer {
  const end = Math.max(...loader.loads.map((load) => load.address + load.memoryBytes));
  const image = Buffer.alloc(align(end));
  for (const { offset, address, fileBytes } of loader.loads)
    loader.bytes.copy(image, address, offset, offset + fileBytes);
  return image;
}

function loaderPart(load: Segment, image: Buffer, loaderAt: number): Part {
  const bytes = image.subarray(load.address, load.address + load.memoryBytes);
  return { bytes, address: loaderAt + load.address, flags: load.flags };
}

/** The machine code, then one trampoline for each place where the loader opens files; the loader's image is changed. */
function makeLauncher(program: Program, loader: Buffer, launcherAt: number, loaderAt: number): Buffer {
  const { machine } = program.elf;
  const code = LAUNCHERS[machine];
  const openAt = launcherAt + entryPoints(machine).open;
  const chunks = [code];
  let address = launcherAt + code.length;
  for (const site of openSites(machine, program.loader)) {
    const made = trampoline(machine, site, loader, { address, loaderAt, openAt });
    chunks.push(made);
    address += made.length;
  }
  if (address > loaderAt) failWith(`${program.loader.name} opens files in too many places`);
  return Buffer.concat(chunks);
}

/** Where the launcher's routines begin, as its first words say. */
function entryPoints(machine: Machine): { start: number; open: number } {
  const code = LAUNCHERS[machine];
  return { start: code.readUInt32LE(0), open: code.readUInt32LE(4) };
}

/** In the order of the launcher's source. Zeros are what it fills in itself. */
function tableWords({ elf, loader }: Program, loaderAt: number): number[] {
  const first = elf.loads.find((load) => load.offset === 0) ?? failWith(`${elf.name} does not map its own headers`);
  const headersAt = first.address + elf.tableOffset;
  const slot = elf.importSlot("pthread_getattr_np");
  return [headersAt, elf.segments.length, loaderAt, loaderAt + loader.entry, elf.entry, slot, 0, 0, 0];
}

/** The libraries one after the other, each at a page, then their names; and the table's words about them. */
function packLibraries(libraries: readonly Elf[], address: number): { bytes: Buffer; table: number[] } {
  const table: number[] = [];
  const namesAt = libraries.reduce((at, library) => at + align(library.bytes.length), 0);
  const names = Buffer.from(libraries.map((library) => `${library.name}\0`).join(""));
  const bytes = Buffer.alloc(namesAt + names.length);
  names.copy(bytes, namesAt);
  let [at, nameAt] = [0, namesAt];
  for (const library of libraries) {
    library.bytes.copy(bytes, at);
    table.push(address + nameAt, address + at, library.bytes.length);
    nameAt += library.name.length + 1;
    at += align(library.bytes.length);
  }
  return { bytes, table };
}

/**
 * The original file with the parts behind it and an ELF header that names them. The header names no sections any more:
 * strip would throw away what is in none of them, as tools that make an initramfs or packages run it, and so it refuses.
 */
function assemble(elf: Elf, start: number, parts: readonly Part[], entry: number): Buffer {
  const appendedAt = align(elf.bytes.length);
  const offsetOf = (address: number) => appendedAt + address - start;
  const last = parts.at(-1)!;
  const file = Buffer.alloc(align(offsetOf(last.address) + last.bytes.length));
  elf.bytes.copy(file);
  for (const { bytes, address } of parts) bytes.copy(file, offsetOf(address));
  const headers = Buffer.concat([
    ...elf.loads.map((load) => programHeader(load)),
    ...parts.map(({ bytes, address, flags }) =>
      programHeader({
        type: SegmentType.load,
        flags,
        offset: offsetOf(address),
        address,
        fileBytes: bytes.length,
        memoryBytes: bytes.length,
        alignment: PAGE_BYTES,
      }),
    ),
    programHeader(elf.segments.find(({ type }) => type === SegmentType.stack) ?? failWith(`${elf.name} has no stack`)),
  ]);
  const headersAt = file.length;
  file.writeBigUInt64LE(BigInt(entry), 24);
  file.writeBigUInt64LE(BigInt(headersAt), 32);
  file.writeUInt16LE(headers.length / PROGRAM_HEADER_BYTES, 56);
  file.fill(0, SECTIONS_OFFSET_AT, SECTIONS_OFFSET_AT + 8);
  file.fill(0, SECTION_COUNT_AT, SECTION_COUNT_AT + 4);
  return Buffer.concat([file, headers]);
}

function programHeader(segment: Segment): Buffer {
  const bytes = Buffer.alloc(PROGRAM_HEADER_BYTES);
  bytes.writeUInt32LE(segment.type, 0);
  bytes.writeUInt32LE(segment.flags, 4);
  const { offset, address, fileBytes, memoryBytes, alignment } = segment;
  for (const [i, word] of [offset, address, address, fileBytes, memoryBytes, alignment].entries())
    bytes.writeBigUInt64LE(BigInt(word), 8 + 8 * i);
  return bytes;
}

function wordsToBytes(words: readonly number[]): Buffer {
  if ((words.length - 1 - TABLE_WORDS) % LIBRARY_WORDS !== 0 || words.length * 8 > PAGE_BYTES)
    failWith(`the launcher's table has ${words.length} words`);
  return Buffer.from(BigUint64Array.from(words.map(BigInt)).buffer);
}

function align(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

function failWith(message: string): never {
  throw new ElfError(message);
}
