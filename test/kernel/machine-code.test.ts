import { expect, test } from "bun:test";
import { mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Errno, pread } from "../../src/kernel/libc.ts";
import { MachineCode } from "../../src/kernel/machine-code.ts";

/** Returns its argument plus one: lea eax, [rdi + 1]; ret. And add w0, w0, #1; ret. */
const SUCCESSOR = process.arch === "arm64" ? "00040011c0035fd6" : "8d4701c3";
const SIGNATURE = { args: ["i32"], returns: "i32" } as const;

function permissionsAt(address: number): string | undefined {
  const begin = `${address.toString(16)}-`;
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .find((line) => line.replace(/^0+/, "").startsWith(begin))
    ?.split(" ")[1];
}

test("code is called, again after a second function was linked, and gone when it is freed", () => {
  const code = MachineCode.map(Uint8Array.fromHex(SUCCESSOR))!;
  const successor = code.link(0, SIGNATURE);
  expect([successor(41), code.link(0, SIGNATURE)(-1), successor(0)]).toEqual([42, 0, 1]);
  const { address } = code;
  expect(permissionsAt(address)).toBe("r-xp");
  code.free();
  expect(permissionsAt(address)).toBeUndefined();
});

test("code cannot be written to", () => {
  const folder = mkdtempSync(join(tmpdir(), "machine-code-"));
  const path = join(folder, "file");
  writeFileSync(path, "other code");
  const fd = openSync(path, "r");
  const code = MachineCode.map(Uint8Array.fromHex(SUCCESSOR))!;
  try {
    expect(pread(fd, code.address, 4, 0)).toBe(-Errno.EFAULT);
    expect(code.link(0, SIGNATURE)(1)).toBe(2);
  } finally {
    code.free();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
});

test("no mapping is writable and executable at the same time while code is made", () => {
  const before = writableCode();
  const codes = Array.from({ length: 20 }, () => MachineCode.map(Uint8Array.fromHex(SUCCESSOR))!);
  const after = writableCode();
  for (const code of codes) code.free();
  // The runtime has such mappings of its own for what it compiles; ours add none.
  expect(after).toBe(before);
});

function writableCode(): number {
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes(" rwx")).length;
}
