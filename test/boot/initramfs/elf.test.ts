/** What programs need, compared with what their own loader says. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { ElfProblem, elfNeeds, elfSection } from "../../../src/boot/initramfs/elf.ts";
import { FileTree } from "../../../src/boot/initramfs/file-tree.ts";
import { kernelFacts } from "../../../src/boot/initramfs/kernel-image.ts";
import { Libraries } from "../../../src/boot/initramfs/libraries.ts";
import { run } from "../../harness/process.ts";

const machine = process.arch === "x64" ? "x86-64" : "aarch64";
const PROGRAMS = ["/bin/ls", "/bin/bash", "/usr/bin/dpkg", process.execPath].filter((path) => existsSync(path));

describe("an executable", () => {
  for (const program of PROGRAMS)
    test(`${program}: the libraries are those that ldd finds`, () => {
      const tree = new FileTree();
      new Libraries("", machine).addProgram(tree, program, "usr/bin/program");
      const added = tree
        .entries()
        .filter(([, node]) => node.type === "file")
        .map(([path]) => path.split("/").at(-1)!);
      const wanted = [...run(["ldd", program]).matchAll(/([\w.+-]+\.so[\w.]*) (?:=>|\()/g)]
        .map((match) => match[1]!)
        .filter((name) => !name.startsWith("linux-vdso"));
      expect(added.filter((name) => name !== "program").sort()).toEqual([...new Set(wanted)].sort());
    });
  test("a script needs nothing, and is taken as it is", () => {
    expect(new Libraries("", machine).needsOf("/usr/bin/ldd")).toBeNull();
  });
  test("a static program has no loader", () => {
    const needs = elfNeeds(readFileSync("/bin/busybox"));
    expect([needs.loader, needs.libraries]).toEqual([null, []]);
  });
  test("one that is cut short is told, wherever it is cut", () => {
    const whole = readFileSync(realpathSync("/bin/ls"));
    for (let length = 0; length < 4096; length++)
      expect(() => elfNeeds(Uint8Array.from(whole.subarray(0, length)))).toThrow(ElfProblem);
    // Sections are listed at the very end.
    expect(() => elfSection(whole.subarray(0, whole.length - 100), ".none")).toThrow(ElfProblem);
  });
  test("one for another kind of machine is refused with both names", () => {
    const other = machine === "x86-64" ? "aarch64" : "x86-64";
    expect(() => new Libraries("", other).needsOf("/bin/ls")).toThrow(`/bin/ls is for ${machine}`);
  });
});

describe("a kernel's file", () => {
  const banner = "Linux version 6.1.0-9-arm64 (someone@somewhere) #1 SMP";
  const image = new Uint8Array(4096);
  image.set(Buffer.from("ARM\x64"), 56);
  image.set(Buffer.from(banner), 2000);
  const facts = { release: "6.1.0-9-arm64", machine: "aarch64" } as const;

  test("a bzImage says its version where its header points", () => {
    const bytes = new Uint8Array(4096);
    bytes.set(Buffer.from("HdrS"), 0x202);
    new DataView(bytes.buffer).setUint16(0x20e, 0x300, true);
    bytes.set(Buffer.from("6.1.0-9-amd64 (x@y) #1 SMP\0"), 0x500);
    expect(kernelFacts(bytes)).toEqual({ release: "6.1.0-9-amd64", machine: "x86-64" });
    // A pointer to nowhere.
    new DataView(bytes.buffer).setUint16(0x20e, 0xfff0, true);
    expect(kernelFacts(bytes)).toBeNull();
  });
  test("an Image of arm64, plain, packed by gzip, and in EFI zboot form", () => {
    expect(kernelFacts(image)).toEqual(facts);
    expect(kernelFacts(Bun.gzipSync(image))).toEqual(facts);
    for (const [name, packed] of [
      ["gzip", Bun.gzipSync(image)],
      ["zstd22", Bun.zstdCompressSync(image)],
    ] as const) {
      const zboot = new Uint8Array(512 + packed.length);
      zboot.set(Buffer.from("MZ\0\0zimg"));
      new DataView(zboot.buffer).setUint32(8, 512, true);
      new DataView(zboot.buffer).setUint32(12, packed.length, true);
      zboot.set(Buffer.from(`${name}\0`), 24);
      zboot.set(packed, 512);
      expect(kernelFacts(zboot)).toEqual(facts);
      expect(kernelFacts(zboot.subarray(0, 520))).toBeNull();
    }
  });
  test("anything else is none", () => {
    for (const bytes of [new Uint8Array(0), Buffer.from("MZ"), Buffer.from("#!ipxe\n"), readFileSync("/bin/ls")])
      expect(kernelFacts(bytes)).toBeNull();
  });
});
