/** Sources by their content, split files by their names, partclone's head and bitmap: what is believed and what is not. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { imageName } from "../../../src/image/capture-defaults.ts";
import { CODECS } from "../../../src/image/foreign/codecs.ts";
import { formatOf, formatOfBytes } from "../../../src/image/foreign/format.ts";
import { BitmapParser, PartcloneImageFault, parsePartcloneHead } from "../../../src/image/foreign/partclone-image.ts";
import { missingSuffix, partsOf } from "../../../src/image/foreign/split-files.ts";
import { scopedTest } from "../../harness/scope.ts";
import { partcloneBytes } from "./partclone-bytes.ts";

const EMPTY = Buffer.alloc(512);

function headWith(text: string, offsetBytes = 0): Buffer {
  const head = Buffer.alloc(512);
  head.write(text, offsetBytes, "latin1");
  return head;
}

describe("a source's format", () => {
  test("is told by its first bytes, or its last", () => {
    const drivers: [string, number, string][] = [
      ["QFI\xfb\0\0\0\x03", 0, "qcow2"],
      ["QFI\xfb\0\0\0\x01", 0, "qcow"],
      ["KDMV", 0, "vmdk"],
      ["# Disk DescriptorFile\nversion=1", 0, "vmdk"],
      ["vhdxfile", 0, "vhdx"],
      ["\x7f\x10\xda\xbe", 64, "vdi"],
      ["conectix", 0, "vpc"],
    ];
    for (const [magic, offset, driver] of drivers)
      expect(formatOfBytes(headWith(magic, offset), EMPTY)).toEqual({ kind: "virtual-disk", driver: driver as never });
    expect(formatOfBytes(EMPTY, headWith("conectix"))).toEqual({ kind: "virtual-disk", driver: "vpc" });
    expect(formatOfBytes(headWith("partclone-image"), EMPTY).kind).toBe("partclone");
    expect(formatOfBytes(headWith("block_size: 4096\n"), EMPTY).kind).toBe("torrent-info");
    expect(formatOfBytes(headWith("\0ntfsclone-image"), EMPTY).kind).toBe("unsupported");
    for (const codec of CODECS)
      expect(formatOfBytes(headWith(codec.magic), EMPTY)).toEqual({ kind: "compressed", codec });
  });

  test("is raw where nothing is known, in files shorter than any magic too", () => {
    for (const head of [EMPTY, Buffer.alloc(0), Buffer.from("QF"), headWith("\xeb\x63\x90")])
      expect(formatOfBytes(head, head)).toEqual({ kind: "raw" });
  });

  scopedTest("of a folder is Clonezilla's, or none", async (scope) => {
    const folder = scope.ramDir();
    const image = join(folder, "2026-01-01-img");
    mkdirSync(image);
    expect(formatOf(image)).toEqual({ kind: "raw" });
    writeFileSync(join(image, "parts"), "sda1\n");
    expect(formatOf(image)).toEqual({ kind: "clonezilla" });
    expect(formatOf(join(folder, "missing"))).toEqual({ kind: "raw" });
  });
});

describe("split files", () => {
  test("follow each other from the first one on", () => {
    expect(missingSuffix(["aa", "ab", "ac"])).toBeNull();
    expect(missingSuffix(["aa", "ac"])).toBe("ab");
    expect(missingSuffix(["ab", "ac"])).toBe("aa");
    expect(missingSuffix(["00", "01", "02", "04"])).toBe("03");
    const all = Array.from(
      { length: 30 },
      (_, i) => `a${String.fromCharCode(97 + Math.floor(i / 26))}${String.fromCharCode(97 + (i % 26))}`,
    );
    expect(missingSuffix(all)).toBeNull();
    expect(missingSuffix(all.filter((suffix) => suffix !== "aba"))).toBe("aba");
  });

  scopedTest("are found by the name of the first, and by no other", async (scope) => {
    const folder = scope.ramDir();
    const path = (name: string) => join(folder, name);
    for (const name of ["x.gz.aa", "x.gz.ab", "x.gz.ac", "x.gz.abc", "y.gz.aa", "plain.gz", "x.gz.zz0"])
      writeFileSync(path(name), "");
    expect(partsOf(path("x.gz.aa"))).toEqual(["x.gz.aa", "x.gz.ab", "x.gz.ac"].map(path));
    expect(partsOf(path("plain.gz"))).toEqual([path("plain.gz")]);
    expect(() => partsOf(path("x.gz.ac"))).toThrow("name its first file");
    writeFileSync(path("x.gz.ae"), "");
    expect(() => partsOf(path("x.gz.aa"))).toThrow(`${path("x.gz.ad")} is missing`);
  });
});

/** The runs of used blocks, with the bytes pushed `step` at a time. */
function runsOf(bytes: Buffer, step: number): number[][] {
  const head = parsePartcloneHead(bytes);
  const runs: number[][] = [];
  const parser = new BitmapParser(head, (offset, length) => void runs.push([offset, length]));
  for (let at = head.headBytes; at < bytes.length; at += step) parser.push(bytes.subarray(at, at + step));
  parser.finish();
  return runs;
}

describe("an image of partclone", () => {
  const used = [0, 1, 2, 9, 10, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 99];
  const expected = [
    [0, 3 * 4096],
    [9 * 4096, 2 * 4096],
    [30 * 4096, 19 * 4096],
    [99 * 4096, 4096],
  ];
  for (const version of [1, 2] as const) {
    test(`of format 000${version} has the same runs whole and byte by byte`, () => {
      const bytes = partcloneBytes(version, 100, 4096, used);
      for (const step of [1, 7, bytes.length]) expect(runsOf(bytes, step)).toEqual(expected);
    });

    test(`of format 000${version} is refused wherever it is cut off`, () => {
      const bytes = partcloneBytes(version, 100, 4096, used);
      for (let length = 0; length < bytes.length; length += version === 1 ? 61 : 1)
        expect(() => runsOf(bytes.subarray(0, length), 64)).toThrow(PartcloneImageFault);
    });
  }

  test("is refused where its head or its bitmap makes no sense", () => {
    const bytes = partcloneBytes(2, 100, 4096, used);
    const changed = (offset: number) => {
      const copy = Buffer.from(bytes);
      copy[offset] ^= 1;
      return copy;
    };
    expect(() => runsOf(changed(60), 64)).toThrow("damaged head");
    expect(() => runsOf(changed(115), 64)).toThrow("damaged bitmap");
    expect(() => runsOf(partcloneBytes(2, 100, 511, used), 64)).toThrow("100 blocks of 511 bytes");
    expect(() => runsOf(partcloneBytes(2, 0, 4096, []), 64)).toThrow("0 blocks");
    expect(() => runsOf(partcloneBytes(2, 100, 4096, used, 4096), 64)).toThrow("beyond its device");
    const newer = Buffer.from(bytes);
    newer.write("0003", 30);
    expect(() => parsePartcloneHead(newer)).toThrow('format "0003"');
  });
});

describe("what an image is called", () => {
  test("has no word of how it is kept", () => {
    const names: Record<string, string> = {
      "/srv/classroom.raw": "classroom",
      "/dev/sda": "sda",
      "lab.qcow2": "lab",
      "lab.2026.vhdx": "lab.2026",
      "lab.img.zst": "lab",
      "lab.img.gz.aa": "lab",
      "/home/partimag/lab-img": "lab-img",
      "sda1.ext4-ptcl-img.gz.aaa": "sda1.ext4-ptcl-img",
      ".img": "image",
    };
    for (const [path, name] of Object.entries(names)) expect({ path, name: imageName(path) }).toEqual({ path, name });
  });
});
