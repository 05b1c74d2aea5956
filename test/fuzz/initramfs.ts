/** Fuzz targets of the initramfs builder: what it reads of programs and kernels, and the archive that it writes. */
import { deepStrictEqual, ok } from "node:assert";
import {
  cpioHeader,
  cpioInlineContent,
  cpioPadding,
  cpioTrailer,
  type CpioEntry,
} from "../../src/boot/initramfs/cpio.ts";
import { ElfProblem, elfNeeds, elfSection } from "../../src/boot/initramfs/elf.ts";
import { kernelFacts } from "../../src/boot/initramfs/kernel-image.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows, randomBytes } from "./mutate.ts";

/** A program with a loader, two libraries and a section, as small as one can be. */
function smallElf(): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(18, 62, true);
  word(32, 64);
  view.setUint16(56, 3, true);
  word(40, 704);
  view.setUint16(60, 2, true);
  view.setUint16(62, 1, true);
  // Segments: all of it loaded at 4096, the loader's name, the dynamic section.
  for (const [i, [type, offset, length]] of [
    [1, 0, 1024],
    [3, 512, 16],
    [2, 256, 96],
  ].entries()) {
    const at = 64 + i * 56;
    view.setUint32(at, type!, true);
    word(at + 8, offset!);
    word(at + 16, 4096 + offset!);
    word(at + 32, length!);
  }
  for (const [i, [tag, value]] of [
    [5, 4096 + 544],
    [1, 1],
    [1, 11],
    [29, 21],
    [0, 0],
  ].entries()) {
    word(256 + i * 16, tag!);
    word(256 + i * 16 + 8, value!);
  }
  bytes.set(Buffer.from("/lib64/ld.so.2\0"), 512);
  bytes.set(Buffer.from("\0libc.so.6\0libm.so.6\0/opt/lib:/x\0"), 544);
  bytes.set(Buffer.from("\0.modinfo\0.names\0"), 640);
  for (const [i, [name, offset, length]] of [
    [1, 512, 16],
    [10, 640, 20],
  ].entries()) {
    const at = 704 + i * 64;
    view.setUint32(at, name!, true);
    word(at + 24, offset!);
    word(at + 32, length!);
  }
  return bytes;
}

const ELF = smallElf();
deepStrictEqual(elfNeeds(ELF), {
  machine: "x86-64",
  loader: "/lib64/ld.so.2",
  libraries: ["libc.so.6", "libm.so.6"],
  searchFolders: ["/opt/lib", "/x"],
});
deepStrictEqual(elfSection(ELF, ".modinfo")?.length, 16);

/** Nothing but ElfProblem is thrown, and no more is found than the file has bytes. */
export function fuzzElf(random: SeededRandom): void {
  const bytes = random.below(4) === 0 ? randomBytes(random, random.below(1200)) : mutate(random, ELF);
  const needs = onlyThrows(ElfProblem, () => elfNeeds(bytes));
  for (const name of needs?.libraries ?? []) ok(name.length <= bytes.length);
  const section = onlyThrows(ElfProblem, () => elfSection(bytes, ".modinfo"));
  ok(section === null || section.length <= bytes.length);
}

const IMAGE = new Uint8Array(2048);
IMAGE.set(Buffer.from("HdrS"), 0x202);
new DataView(IMAGE.buffer).setUint16(0x20e, 0x300, true);
IMAGE.set(Buffer.from("6.1.0-9-amd64 (x@y) #1 SMP\0"), 0x500);

/** Facts or none; a release is a name of a folder and nothing that climbs out of one. */
export function fuzzKernelImage(random: SeededRandom): void {
  const packed = random.below(3) === 0 ? Bun.gzipSync(IMAGE) : IMAGE;
  const facts = kernelFacts(random.below(8) === 0 ? randomBytes(random, random.below(600)) : mutate(random, packed));
  if (facts !== null) ok(/^[0-9][\w.+~-]*$/.test(facts.release) && !facts.release.includes("/"));
}

/** What was written is read again by the rules of newc. */
export function fuzzCpio(random: SeededRandom): void {
  const entries = Array.from({ length: random.below(6) }, (_, i) => randomEntry(random, i));
  const contents = entries.map((entry) =>
    entry.type === "file" ? randomBytes(random, entry.lengthBytes) : cpioInlineContent(entry),
  );
  const parts = entries.flatMap((entry, i) => [
    cpioHeader(entry, i + 1),
    contents[i]!,
    cpioPadding(contents[i]!.length),
  ]);
  const archive = Buffer.concat([...parts, cpioTrailer()]);
  let at = 0;
  for (const [i, entry] of entries.entries()) {
    const read = readEntry(archive, at);
    deepStrictEqual([read.name, read.inode], [entry.path, i + 1]);
    deepStrictEqual(read.content, Buffer.from(contents[i]!));
    at = read.end;
  }
  deepStrictEqual(readEntry(archive, at).name, "TRAILER!!!");
}

function randomEntry(random: SeededRandom, index: number): CpioEntry {
  const path = `${index}${"é/x".repeat(random.below(5))}`;
  const mode = random.below(0o1000);
  switch (random.below(4)) {
    case 0:
      return { type: "folder", path, mode };
    case 1:
      return { type: "link", path, target: "a/".repeat(1 + random.below(9)) };
    case 2:
      return { type: "device", path, mode, major: random.below(256), minor: random.below(256) };
    default:
      return { type: "file", path, mode, lengthBytes: random.below(40) };
  }
}

/** One entry at a multiple of four; the fields that matter are the first and the seventh, and the name's length. */
function readEntry(archive: Buffer, at: number) {
  deepStrictEqual([at % 4, archive.toString("latin1", at, at + 6)], [0, "070701"]);
  const field = (index: number) =>
    Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
  const aligned = (offset: number) => offset + (-offset & 3);
  const nameEnd = at + 110 + field(11);
  const contentAt = aligned(nameEnd);
  const contentEnd = contentAt + field(6);
  return {
    inode: field(0),
    name: archive.toString("utf8", at + 110, nameEnd - 1),
    content: archive.subarray(contentAt, contentEnd),
    end: aligned(contentEnd),
  };
}
