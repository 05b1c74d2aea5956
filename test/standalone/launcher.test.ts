/** The launchers' machine code is what their sources say: assembled by Debian's binutils, where these are installed. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Machine } from "../../tools/standalone/elf.ts";
import { LAUNCHERS } from "../../tools/standalone/machine-code.ts";
import { REPOSITORY } from "../harness/diskswarm.ts";
import { run } from "../harness/process.ts";

const SOURCES: Readonly<Record<Machine, { file: string; prefix: string }>> = {
  "x86-64": { file: "launcher-x86-64.s", prefix: "x86_64-linux-gnu-" },
  aarch64: { file: "launcher-arm64.s", prefix: "aarch64-linux-gnu-" },
};

function assemble({ file, prefix }: { file: string; prefix: string }): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "diskswarm-launcher-"));
  const [object, code] = [join(folder, "launcher.o"), join(folder, "launcher.bin")];
  try {
    run([`${prefix}as`, join(REPOSITORY, "tools/standalone", file), "-o", object]);
    run([`${prefix}objcopy`, "-O", "binary", "-j", ".text", object, code]);
    return readFileSync(code);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("the launcher for", () => {
  for (const [machine, source] of Object.entries(SOURCES)) {
    const { prefix } = source;
    test.skipIf(!Bun.which(`${prefix}as`))(machine, () => {
      expect(LAUNCHERS[machine as Machine].toString("hex")).toBe(assemble(source).toString("hex"));
    });
  }
});
