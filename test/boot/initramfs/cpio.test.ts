/** The archive that kernels unpack, read by the programs that others read it with. */
import { describe, expect, test } from "bun:test";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeArchive } from "../../../src/boot/initramfs/archive-file.ts";
import { CPIO_FILE_BYTES_MAX, cpioHeader, cpioPadding, cpioTrailer } from "../../../src/boot/initramfs/cpio.ts";
import { FileTree } from "../../../src/boot/initramfs/file-tree.ts";
import { run } from "../../harness/process.ts";
import { type Scope, scopedTest } from "../../harness/scope.ts";
import { isRoot, needTools } from "../../harness/tools.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function sample(folder: string): FileTree {
  const tree = new FileTree();
  writeFileSync(join(folder, "source"), "from a file of this machine");
  tree.file("bin/tool", { from: join(folder, "source"), lengthBytes: 27 }, 0o755);
  tree.text("etc/odd length", "12345");
  tree.text("etc/empty", "");
  tree.text("etc/ünïcode", "x");
  tree.link("sbin/modprobe", "../bin/tool");
  tree.folder("proc");
  tree.device("dev/console", 0o600, 5, 1);
  return tree;
}

function unpack(scope: Scope, archive: string, unpacker: string): string {
  needTools("cpio");
  const folder = scope.tempDir();
  // cpio(1) ends at the first archive: what the kernel goes on with is looked at by booting it.
  run(["sh", "-c", `cd ${folder} && ${unpacker} < ${archive} | cpio -id --quiet`]);
  return folder;
}

describe("headers", () => {
  test("are those of newc: magic, thirteen fields, the name, aligned to four", () => {
    const header = text(cpioHeader({ type: "file", path: "a", mode: 0o644, lengthBytes: 300 }, 7));
    const fields = ["070701", "00000007", "000081A4", "00000000", "00000000", "00000001", "00000000", "0000012C"];
    expect(header).toBe(`${fields.join("")}${"00000000".repeat(4)}0000000200000000a\0`);
    expect(cpioHeader({ type: "file", path: "abc", mode: 0o644, lengthBytes: 0 }, 1).length % 4).toBe(0);
    expect([0, 1, 2, 3, 4].map((length) => cpioPadding(length).length)).toEqual([0, 3, 2, 1, 0]);
    expect(text(cpioTrailer())).toContain("TRAILER!!!\0");
  });
  test("a name or a size that no archive can hold is a bug of the caller's", () => {
    for (const path of ["", "/etc", "a\0b"])
      expect(() => cpioHeader({ type: "folder", path, mode: 0o755 }, 1)).toThrow(/no name/);
    expect(() => cpioHeader({ type: "file", path: "a", mode: 0o644, lengthBytes: CPIO_FILE_BYTES_MAX + 1 }, 1)).toThrow(
      /no cpio field/,
    );
  });
});

describe.skipIf(!isRoot)("cpio(1)", () => {
  for (const [packer, unpacker] of [
    ["gzip", "gunzip"],
    ["zstd", "zstd -dc"],
  ] as const)
    scopedTest(`unpacks what was put in, packed by ${packer}`, async (scope) => {
      const folder = scope.tempDir();
      const archive = join(folder, "initrd.img");
      writeArchive(archive, sample(folder), null, packer);
      const root = unpack(scope, archive, unpacker);
      expect(readFileSync(join(root, "bin/tool"), "utf8")).toBe("from a file of this machine");
      expect(lstatSync(join(root, "bin/tool")).mode & 0o777).toBe(0o755);
      expect(readdirSync(join(root, "etc")).sort()).toEqual(["empty", "odd length", "ünïcode"].sort());
      expect(readlinkSync(join(root, "sbin/modprobe"))).toBe("../bin/tool");
      const console = lstatSync(join(root, "dev/console"));
      expect([console.isCharacterDevice(), console.rdev]).toEqual([true, (5 << 8) | 1]);
      expect(lstatSync(join(root, "etc/empty")).uid).toBe(0);
    });

  scopedTest("finds the image plain and aligned before the packed rest", async (scope) => {
    const folder = scope.tempDir();
    const image = Uint8Array.from({ length: 10_001 }, (_, i) => i);
    writeFileSync(join(folder, "image"), image);
    const archive = join(folder, "initrd.img");
    writeArchive(archive, sample(folder), { path: join(folder, "image"), lengthBytes: image.length }, "gzip");
    expect(readFileSync(join(unpack(scope, archive, "cat"), "root.squashfs"))).toEqual(Buffer.from(image));
    const bytes = readFileSync(archive);
    const packedAt = bytes.indexOf(Uint8Array.of(0x1f, 0x8b, 8));
    expect(packedAt % 512).toBe(0);
    mkdirSync(join(folder, "rest"));
    writeFileSync(join(folder, "rest.gz"), bytes.subarray(packedAt));
    expect(readdirSync(unpack(scope, join(folder, "rest.gz"), "gunzip")).sort()).toEqual(
      ["bin", "dev", "etc", "proc", "sbin"].sort(),
    );
  });
});

scopedTest("the same tree gives the same bytes, in whatever order it was filled", async (scope) => {
  const folder = scope.tempDir();
  const forth = new FileTree();
  const back = new FileTree();
  const names = ["b/c", "a", "b.d", "b/a/z", "é"];
  for (const name of names) forth.text(name, name);
  for (const name of names.toReversed()) back.text(name, name);
  writeArchive(join(folder, "1"), forth, null, "zstd");
  writeArchive(join(folder, "2"), back, null, "zstd");
  expect(readFileSync(join(folder, "1"))).toEqual(readFileSync(join(folder, "2")));
  // A folder comes before what is in it, or the kernel has nowhere to put that.
  const paths = forth.entries().map(([path]) => path);
  for (const path of paths.filter((one) => one.includes("/")))
    expect(paths.indexOf(path.slice(0, path.lastIndexOf("/")))).toBeLessThan(paths.indexOf(path));
});
