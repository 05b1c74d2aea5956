/** Files of the C library come from whatever machine builds: what is not as expected ends with one line. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Elf, ElfError, type Machine } from "../../tools/standalone/elf.ts";
import { openSites, trampoline } from "../../tools/standalone/open-sites.ts";
import { standalone } from "../../tools/standalone/standalone.ts";
import { seededRandom } from "../harness/random.ts";

const CODE_AT = 0x1000;
const HEADER = "7f454c460201010000000000000000000300";
const MACHINE_CODES: Readonly<Record<Machine, number>> = { "x86-64": 62, aarch64: 183 };

/** A loader of one executable segment that holds `code` at CODE_AT. */
function loaderWith(machine: Machine, code: string): Elf {
  const bytes = Buffer.alloc(CODE_AT + code.length / 2);
  Buffer.from(HEADER, "hex").copy(bytes);
  bytes.writeUInt16LE(MACHINE_CODES[machine], 18);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(1, 56);
  bytes.writeUInt32LE(1, 64);
  bytes.writeUInt32LE(5, 68);
  for (const [i, word] of [0, 0, 0, bytes.length, bytes.length, 0x1000].entries())
    bytes.writeBigUInt64LE(BigInt(word), 72 + 8 * i);
  bytes.write(code, CODE_AT, "hex");
  return new Elf("loader", bytes);
}

describe("places where a loader opens files", () => {
  test("x86-64: the call at once, and behind moves between registers", () => {
    // nop; mov eax, 257; syscall; ret; mov eax, 257; mov rsi, rdi; mov edi, -100; syscall; ret
    const loader = loaderWith("x86-64", "90b8010100000f05c3b8010100004889febf9cffffff0f05c3");
    const sites = openSites("x86-64", loader);
    expect(sites.map(({ from, to, between }) => [from - CODE_AT, to - CODE_AT, between.toString("hex")])).toEqual([
      [1, 8, ""],
      [9, 24, "4889febf9cffffff"],
    ]);
  });

  test("x86-64: another call, or instructions that cannot be moved, are none", () => {
    // mov eax, 256; syscall   and   mov eax, 257; lea rsi, [rip + 0]; syscall   and   mov eax, 257; jmp; syscall
    for (const code of ["b8000100000f05c3", "b801010000488d35000000000f05c3", "b801010000eb000f05c3"])
      expect(() => openSites("x86-64", loaderWith("x86-64", code))).toThrow(ElfError);
  });

  test("x86-64: the jump leads to the trampoline, which calls and returns behind the system call", () => {
    const loader = loaderWith("x86-64", "90b8010100000f05c3");
    const image = Buffer.from(loader.bytes);
    const places = { address: 0x7000000, loaderAt: 0x8000000, openAt: 0x6000000 };
    const code = trampoline("x86-64", openSites("x86-64", loader)[0]!, image, places);
    const jumpAt = places.loaderAt + CODE_AT + 1;
    expect(image.toString("hex", CODE_AT)).toMatch(/^90e9.{8}ccccc3$/);
    expect(jumpAt + 5 + image.readInt32LE(CODE_AT + 2)).toBe(places.address);
    expect(places.address + 10 + code.readInt32LE(6)).toBe(places.openAt);
    expect(places.address + code.length + code.readInt32LE(code.length - 4)).toBe(jumpAt + 7);
  });

  test("arm64: with what stands between number and call, which stays", () => {
    // mov x8, 56; svc 0; mov x8, 57; svc 0; mov x8, 56; str x5, [sp, 16]; svc 0
    const loader = loaderWith("aarch64", "080780d2010000d4280780d2010000d4080780d2e50b00f9010000d4");
    expect(openSites("aarch64", loader).map(({ from, to }) => [from - CODE_AT, to - CODE_AT])).toEqual([
      [4, 8],
      [24, 28],
    ]);
  });

  test("arm64: a trampoline that is out of reach is refused", () => {
    const loader = loaderWith("aarch64", "080780d2010000d4");
    const [site] = openSites("aarch64", loader);
    const places = { address: 0x10000000, loaderAt: 0x20000000, openAt: 0x10000000 };
    expect(() => trampoline("aarch64", site!, Buffer.from(loader.bytes), places)).toThrow(ElfError);
  });
});

describe("an ELF file", () => {
  // Bun itself: a dynamic executable like those that are made with it.
  const bytes = readFileSync(process.execPath);

  test("tells its loader, its libraries and where an import's pointer is", () => {
    const elf = new Elf("bun", bytes);
    expect(elf.interpreter).toMatch(/^\/lib.*\/ld-/);
    expect(elf.needed.length).toBeGreaterThan(0);
    expect(elf.importSlot("pthread_getattr_np")).toBeGreaterThan(elf.loads[0]!.address);
    expect(() => elf.importSlot("no_such_function")).toThrow("bun imports no no_such_function");
  });

  test("that is cut off, no ELF file or for another machine is refused in one line", () => {
    for (const length of [0, 4, 63, 64, 200, 4096])
      expect(() => new Elf("x", bytes.subarray(0, length))).toThrow(ElfError);
    expect(() => new Elf("x", Buffer.from("#!/bin/sh\n".repeat(20)))).toThrow("x is no ELF file");
    const other = Buffer.from(bytes.subarray(0, 1 << 20));
    other.writeUInt16LE(3, 18);
    expect(() => new Elf("x", other)).toThrow("is for a machine that is not known here");
  });

  test("with random bytes in its headers is read or refused, nothing else", () => {
    const random = seededRandom(22);
    const loader = loaderWith("x86-64", "b8010100000f05c3");
    for (let round = 0; round < 2000; round++) {
      const damaged = Buffer.from(loader.bytes);
      for (let i = 0; i < 3; i++) damaged[random.below(120)] = random.below(256);
      try {
        const elf = new Elf("damaged", damaged);
        openSites(elf.machine, elf);
      } catch (error) {
        expect(error).toBeInstanceOf(ElfError);
      }
    }
  });

  test("whose loader is not there is named with the folder that was searched", () => {
    expect(() => standalone(new Elf("bun", bytes), "/nonexistent")).toThrow(/there is no \/nonexistent\/lib.*needs/);
  });
});
