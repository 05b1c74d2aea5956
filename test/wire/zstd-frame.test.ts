/** The check of packed payload: which zstd frames are taken. */
import { describe, expect, test } from "bun:test";
import { zstdCompressSync } from "node:zlib";
import { zstdFrameProblem } from "../../src/wire/zstd-frame.ts";

const plain = new Uint8Array(300_000).map((_, i) => (i * i) >> 11);
const frame = new Uint8Array(Bun.zstdCompressSync(plain, { level: 1 }));

/** A frame from its parts: descriptor and what follows it. */
function handMade(...bytes: number[]): Uint8Array {
  return Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...bytes);
}

describe("the payload of a packed block", () => {
  test("is a frame as compressors make it, of any level and size", () => {
    for (const level of [1, 3, 9, 19])
      for (const length of [1, 255, 256, 65_791, 65_792, 131_073, 300_000])
        expect(zstdFrameProblem(Bun.zstdCompressSync(plain.subarray(0, length), { level }), length)).toBeNull();
  });
  test("may have a checksum", () => {
    const { ZSTD_c_checksumFlag } = require("node:zlib").constants;
    const checked = zstdCompressSync(plain, { params: { [ZSTD_c_checksumFlag]: 1 }, pledgedSrcSize: plain.length });
    expect(zstdFrameProblem(checked, plain.length)).toBeNull();
    expect(zstdFrameProblem(checked.subarray(0, -4), plain.length)).toContain("does not end");
  });
  test("says its length, and the right one", () => {
    expect(zstdFrameProblem(frame, plain.length - 1)).toContain("not 299999");
    expect(zstdFrameProblem(handMade(0x00, 0x58, 0x01, 0, 0), 0)).toContain("does not say");
  });
  test("is one frame from its first byte to its last", () => {
    expect(zstdFrameProblem(new Uint8Array(0), 1)).toContain("no zstd frame");
    expect(zstdFrameProblem(plain, plain.length)).toContain("no zstd frame");
    expect(zstdFrameProblem(Buffer.concat([frame, Uint8Array.of(0)]), plain.length)).toContain("does not end");
    expect(zstdFrameProblem(Buffer.concat([frame, frame]), plain.length)).toContain("does not end");
    for (const cut of [6, 9, 100, frame.length - 1])
      expect(zstdFrameProblem(frame.subarray(0, cut), plain.length)).not.toBeNull();
    const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4);
    expect(zstdFrameProblem(Buffer.concat([skippable, frame]), plain.length)).toContain("no zstd frame");
  });
  test("names no dictionary, uses no reserved bit and no large window", () => {
    for (const descriptor of [0x21, 0x22, 0x23, 0x28])
      expect(zstdFrameProblem(handMade(descriptor, 1, 1, 0, 0), 1)).toContain("dictionary");
    expect(zstdFrameProblem(handMade(0x80, 0x60, 1, 0, 0, 0, 0x09, 0, 0, 7), 1)).toContain("large window");
  });
  test("has blocks of known types that fit it", () => {
    expect(zstdFrameProblem(handMade(0x20, 1, 0x09, 0, 0, 7), 1)).toBeNull();
    expect(zstdFrameProblem(handMade(0x20, 5, 0x2b, 0, 0, 7), 5)).toBeNull();
    expect(zstdFrameProblem(handMade(0x20, 1, 0x0f, 0, 0, 7), 1)).toContain("cannot be");
    expect(zstdFrameProblem(handMade(0x20, 1, 0x11, 0, 0, 7), 1)).toContain("cannot be");
    expect(zstdFrameProblem(handMade(0x20, 1, 0x08, 0, 0, 7), 1)).toContain("cannot be");
  });
});
