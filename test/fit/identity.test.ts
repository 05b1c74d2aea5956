/** Paths inside an image, and what of a system's identity is changed, for the ways in which distributions have it. */
import { describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { rootDeviceOf } from "../../src/fit/find-root.ts";
import { giveIdentity, hostsWith } from "../../src/fit/identity.ts";
import { Rooted } from "../../src/fit/rooted.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";

/** A folder with files, and links where the text begins with an arrow. */
function tree(scope: Scope, content: Readonly<Record<string, string>>): string {
  const folder = join(scope.tempDir(), "root");
  mkdirSync(folder);
  for (const [path, text] of Object.entries(content)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    if (text.startsWith("-> ")) symlinkSync(text.slice(3), join(folder, path));
    else writeFileSync(join(folder, path), text);
  }
  return folder;
}

describe("paths of an image", () => {
  scopedTest("are resolved inside it", async (scope) => {
    const folder = tree(scope, {
      "etc/name": "inside",
      "etc/absolute": "-> /etc/name",
      "etc/up": "-> ../../../../../../etc/name",
      "etc/chain": "-> ./absolute",
      "etc/loop": "-> loop",
      "etc/dangling": "-> /new/file",
      "link-to-root": "-> /",
      "to-etc": "-> etc",
      "new/keep": "",
    });
    writeFileSync(join(folder, "..", "secret"), "outside");
    const root = new Rooted(folder);
    for (const path of [
      "etc/name",
      "etc/absolute",
      "etc/up",
      "etc/chain",
      "to-etc/name",
      "link-to-root/etc/up",
      "/etc//./name",
    ])
      expect([path, root.read(path)]).toEqual([path, "inside"]);
    for (const path of [
      "../secret",
      "etc/../../secret",
      "link-to-root/../secret",
      "etc/name/x",
      "etc/dangling",
      "nothing/x",
    ])
      expect([path, root.read(path)]).toEqual([path, null]);
    expect(() => root.read("etc/loop")).toThrow("loop of symbolic links");
    root.write("etc/dangling", "made");
    expect(readFileSync(join(folder, "new/file"), "utf8")).toBe("made");
    expect(root.isPlainFile("etc/absolute")).toBe(false);
    root.remove("etc/absolute");
    expect(root.read("etc/name")).toBe("inside");
    root.remove("nothing/at/all");
    root.link("etc/new-link", "/etc/name");
    root.link("etc/new-link", "/etc/name");
    expect(root.read("etc/new-link")).toBe("inside");
    expect(readFileSync(join(folder, "..", "secret"), "utf8")).toBe("outside");
  });

  scopedTest("that are no ordinary files are not written to", async (scope) => {
    const folder = tree(scope, { "etc/folder/x": "", "etc/to-folder": "-> folder" });
    execFileSync("mkfifo", [join(folder, "etc/pipe")]);
    const root = new Rooted(folder);
    for (const path of ["etc/folder", "etc/to-folder", "etc/pipe", "none/x"])
      expect(() => root.write(path, "x")).toThrow(`/${path} of the image is not an ordinary file`);
    expect(root.read("etc/pipe")).toBeNull();
  });
});

describe("/etc/hosts", () => {
  const CASES: [string, string, string][] = [
    ["127.0.0.1 localhost\n", "pc01", "127.0.0.1 localhost\n127.0.1.1\tpc01\n"],
    ["127.0.0.1 localhost", "pc01.lan", "127.0.0.1 localhost\n127.0.1.1\tpc01.lan pc01\n"],
    ["a\n127.0.1.1 old\nb\n 127.0.1.1\tolder\n", "pc01", "a\n127.0.1.1\tpc01\nb\n"],
    ["127.0.1.10 other\n", "pc01", "127.0.1.1\tpc01\n127.0.1.10 other\n"],
    ["::1 localhost\n", "pc01", "127.0.1.1\tpc01\n::1 localhost\n"],
  ];
  for (const [before, name, after] of CASES)
    test(`${JSON.stringify(before)} for ${name}`, () => {
      expect(hostsWith(before, name)).toBe(after);
      expect(hostsWith(after, name)).toBe(after);
    });
});

describe("SSH host keys", () => {
  const KEYS = { "etc/ssh/ssh_host_rsa_key": "k", "etc/ssh/ssh_host_rsa_key.pub": "p", "etc/ssh/ssh_config": "" };
  const SYSTEMD = { "usr/lib/systemd/systemd": "", "etc/systemd/system/x": "" };
  const KEYGEN = { "usr/bin/ssh-keygen": "" };
  const unit = (text: string) => ({ "usr/lib/systemd/system/sshd.service": text });
  const CASES: [string, Record<string, string>, "none" | "removed" | "kept", boolean][] = [
    ["none are there", { ...SYSTEMD }, "none", false],
    ["Debian", { ...KEYS, ...SYSTEMD, ...KEYGEN, ...unit("ExecStartPre=/usr/sbin/sshd -t") }, "removed", true],
    ["Fedora", { ...KEYS, ...SYSTEMD, ...unit("Wants=sshd-keygen.target") }, "removed", false],
    ["Arch", { ...KEYS, ...SYSTEMD, ...unit("Wants=sshdgenkeys.service") }, "removed", false],
    ["openSUSE", { ...KEYS, ...SYSTEMD, ...unit("ExecStartPre=/usr/sbin/sshd-gen-keys-start") }, "removed", false],
    ["Alpine", { ...KEYS, "etc/init.d/sshd": "ssh-keygen -A || return 1" }, "removed", false],
    ["Debian with sysvinit", { ...KEYS, ...KEYGEN, "etc/init.d/ssh": "start-stop-daemon" }, "kept", false],
    ["systemd without ssh-keygen", { ...KEYS, ...SYSTEMD }, "kept", false],
  ];
  for (const [name, content, expected, hasUnit] of CASES)
    scopedTest(`${name}: ${expected}`, async (scope) => {
      const folder = tree(scope, { ...content, "etc/hostname": "old" });
      expect(giveIdentity(new Rooted(folder), "pc01")).toBe(expected);
      const left = existsSync(join(folder, "etc/ssh")) ? readdirSync(join(folder, "etc/ssh")) : [];
      expect(left.filter((file) => file.includes("host"))).toHaveLength(expected === "kept" ? 2 : 0);
      const added = join(folder, "etc/systemd/system/diskswarm-ssh-host-keys.service");
      expect(existsSync(added)).toBe(hasUnit);
      if (hasUnit) expect(statSync(added).mode & 0o777).toBe(0o644);
      expect(existsSync(join(folder, "etc/machine-id"))).toBe(false);
    });
});

test("fstab tells what the root is", () => {
  expect(rootDeviceOf("# / x\n\nUUID=1 /home ext4\n  UUID=2\t/ ext4 rw 0 1\n/dev/sda3 / ext4")).toBe("UUID=2");
  expect(rootDeviceOf('PARTLABEL="root" / ext4')).toBe("PARTLABEL=root");
  expect(rootDeviceOf("")).toBeNull();
});
