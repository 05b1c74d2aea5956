/** The hooks for other makers' initramfs: valid for their shells, and without our words on the command line they do nothing. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "../harness/diskswarm.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";

const HOOKS = join(REPOSITORY, "initramfs");
const DRACUT = join(HOOKS, "dracut/modules.d/90diskswarm");
const FOLDERS = ["dracut", "initramfs-tools", "mkinitcpio"];

function scripts(): string[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(join(HOOKS, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name)),
  );
}

/** Reads dracut's command line script in a shell that has what it uses of dracut's; what it set and wrote. */
function parse(scope: Scope, commandLine: string) {
  const folder = scope.tempDir();
  for (const name of ["settled", "timeout", "finished"])
    mkdirSync(join(folder, "initqueue", name), { recursive: true });
  mkdirSync(join(folder, "cmdline.d"));
  mkdirSync(join(folder, "network"));
  const script = readFileSync(join(DRACUT, "parse-diskswarm.sh"), "utf8")
    .replaceAll("/etc/cmdline.d", join(folder, "cmdline.d"))
    .replaceAll("/run/systemd/network", join(folder, "network"));
  const getarg = `getarg() {
    for word in ${commandLine} $(cat ${folder}/cmdline.d/*.conf 2> /dev/null); do
      case $word in "$1"*) echo "\${word#"$1"}"; return 0 ;; esac
    done
    return 1
  }`;
  const answer = run(["sh", "-euc", `${getarg}\nroot= netroot= hookdir=${folder}\n${script}\necho "$root $netroot"`]);
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  return { answer: answer.trim(), files: files.sort() };
}

describe("hooks", () => {
  for (const path of scripts()) {
    const shell = readFileSync(path, "utf8").startsWith("#!/bin/bash") ? "bash" : "sh";
    test(`${path.slice(HOOKS.length + 1)} is right for ${shell}`, () => {
      run([shell, "-n", path]);
    });
  }

  test("initramfs-tools' script has prerequisites, and leaves a machine alone that was not meant", () => {
    const script = join(HOOKS, "initramfs-tools/scripts/init-premount/diskswarm");
    expect(run([script, "prereqs"])).toBe("udev\n");
    expect(readFileSync("/proc/cmdline", "utf8")).not.toContain("diskswarm");
    expect(run([script])).toBe("");
    expect(existsSync("/run/diskswarm/initramfs")).toBe(false);
  });

  scopedTest("dracut's script leaves a machine alone that was not meant", async (scope) => {
    expect(parse(scope, "root=/dev/sda1 quiet ip=dhcp")).toEqual({ answer: "", files: [] });
  });

  scopedTest(
    "dracut's script asks for the network, and for DHCP where the command line says nothing of it",
    async (scope) => {
      const hooks = ["finished", "settled", "timeout"].map((name) => `initqueue/${name}/diskswarm.sh`);
      expect(parse(scope, "root=/dev/sda1 diskswarm.server=http://10.0.0.1:6969")).toEqual({
        answer: "diskswarm diskswarm",
        files: ["cmdline.d/90-diskswarm.conf", "cmdline.d/91-diskswarm.conf", ...hooks, "network/99-diskswarm.network"],
      });
      expect(parse(scope, "ip=10.0.0.7::10.0.0.254:24::eth0:none diskswarm.torrent=http://10.0.0.1/x")).toEqual({
        answer: "diskswarm diskswarm",
        files: ["cmdline.d/90-diskswarm.conf", ...hooks],
      });
    },
  );
});
