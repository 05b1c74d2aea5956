/** What is appended to another's initramfs: nothing of it lies where something of theirs could. */
import { describe, expect } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, succeed } from "../harness/diskswarm.ts";
import { run } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { needTools } from "../harness/tools.ts";

/** Any program will do in place of the executable. */
const BINARY = ["--binary", "/bin/sh"];

describe("an overlay", () => {
  scopedTest(
    "is one packed archive of a complete root below /diskswarm, whose end another may follow",
    async (scope) => {
      needTools("busybox", "cpio", "gzip");
      const folder = scope.tempDir();
      await succeed(scope, ["initramfs", "--overlay", "-o", folder, "--tools", "none", ...BINARY]);
      const path = join(folder, "overlay.img");
      expect(readFileSync(path).length % 512).toBe(0);
      const names = run(["sh", "-c", `gzip -dcq ${path} | cpio -t --quiet`])
        .trim()
        .split("\n");
      expect(names.filter((name) => !/^diskswarm(\/|$)/.test(name))).toEqual([]);
      for (const name of [
        "init",
        "root/usr/bin/diskswarm",
        "root/bin/busybox",
        "root/lib/diskswarm/boot.sh",
        "root/proc",
      ])
        expect(names).toContain(`diskswarm/${name}`);
      expect(names.some((name) => /\/libc\.so\.6$/.test(name))).toBe(true);
    },
  );

  scopedTest("is refused with options that say something of a kernel, and leaves nothing behind", async (scope) => {
    const folder = scope.tempDir();
    const words = ["initramfs", "--overlay", "-o", folder, ...BINARY];
    await fail(scope, [...words, "--two-stage"], 2, /--overlay is for any kernel: leave out --two-stage/);
    await fail(scope, [...words, "--drivers", "host"], 2, /leave out --drivers/);
    expect(existsSync(join(folder, "overlay.img"))).toBe(false);
  });

  scopedTest("of a binary that is none ends with one line that names it", async (scope) => {
    const folder = scope.tempDir();
    const script = join(folder, "script");
    writeFileSync(script, "#!/bin/sh\n");
    await fail(scope, ["initramfs", "--overlay", "-o", folder, "--binary", script], 1, /script .*ELF/);
    await fail(scope, ["initramfs", "--overlay", "-o", folder, "--binary", join(folder, "none")], 1, /none/);
  });
});
