/** `diskswarm initramfs` by its command line: what it writes, and how it fails. A small program stands in for the executable. */
import { beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, start, succeed } from "../../harness/diskswarm.ts";
import { debianKernel, type TestKernel } from "../../harness/kernels.ts";
import { run } from "../../harness/process.ts";
import { type Scope, scopedTest } from "../../harness/scope.ts";
import { isRoot, needTools } from "../../harness/tools.ts";

const hasApt = Bun.which("apt-get") !== null && Bun.which("dpkg-deb") !== null && Bun.which("depmod") !== null;

describe.skipIf(!hasApt)("initramfs", () => {
  let kernel: TestKernel;
  beforeAll(() => {
    needTools("mksquashfs", "busybox");
    kernel = debianKernel(process.arch === "x64" ? "cloud-amd64" : "cloud-arm64");
  }, 120_000);

  const words = (folder: string, ...more: string[]) => [
    ...["initramfs", "-o", folder, "--kernel", kernel.vmlinuz, "--modules", kernel.modules],
    ...["--drivers", "minimal", "--compress", "lz4", "--tools", "none", "--binary", "/bin/ls", ...more],
  ];

  scopedTest("one stage: kernel and archive, the same bytes each time", async (scope) => {
    const [one, two] = [scope.tempDir(), scope.tempDir()];
    const done = await (await succeed(scope, words(one))).event("done");
    await succeed(scope, words(two));
    expect(readdirSync(one).sort()).toEqual(["initrd.img", "vmlinuz"]);
    expect(readFileSync(join(one, "vmlinuz"))).toEqual(readFileSync(kernel.vmlinuz));
    expect(readFileSync(join(one, "initrd.img"))).toEqual(readFileSync(join(two, "initrd.img")));
    expect(done.release).toBe(kernel.release);
    expect(done.files).toHaveLength(2);
  });

  scopedTest("two stages: a small archive that knows the hash of the image", async (scope) => {
    const folder = scope.tempDir();
    await succeed(scope, words(folder, "--two-stage"));
    const image = join(folder, "root.squashfs");
    const hash = new Bun.CryptoHasher("sha256").update(readFileSync(image)).digest("hex");
    const root = unpackArchive(scope, join(folder, "initrd.img"));
    expect(readFileSync(join(root, "lib/diskswarm/root.sha256"), "utf8").trim()).toBe(hash);
    expect(existsSync(join(root, `lib/modules/${kernel.release}/modules.dep`))).toBe(true);
    // What an image that has no room in memory is read by.
    const module = "kernel/drivers/nvme/host/nvme-tcp.ko";
    expect(existsSync(join(root, "lib/modules", kernel.release, module))).toBe(true);
    const listed = run(["unsquashfs", "-l", "-d", "", image]);
    expect(listed).not.toContain(module);
    for (const path of ["/usr/bin/diskswarm", "/lib/diskswarm/boot.sh", "/bin/busybox", "/bin/sh", "/sbin/modprobe"])
      expect(listed.split("\n")).toContain(path);
    // Built in one stage again, the image of the earlier build is not left beside it.
    await succeed(scope, words(folder));
    expect(readdirSync(folder).sort()).toEqual(["initrd.img", "vmlinuz"]);
  });

  scopedTest(
    "programs of others come with their libraries; what is missing is told with its package",
    async (scope) => {
      const folder = scope.tempDir();
      const sysroot = scope.tempDir();
      // A system with busybox and one of the programs alone.
      for (const path of ["/bin/busybox", "/usr/sbin/sfdisk", "/bin/ls", "/usr/bin/env"])
        copyWithLibraries(path, sysroot);
      const argv = words(folder, "--two-stage", "--sysroot", sysroot, "--extra", "/usr/bin/env");
      const ended = await succeed(scope, replaced(argv, "--tools", "all"));
      const listed = run(["unsquashfs", "-l", "-d", "", join(folder, "root.squashfs")]).split("\n");
      expect(listed).toContain("/usr/bin/sfdisk");
      expect(listed).toContain("/usr/bin/env");
      expect(listed.some((path) => path.endsWith("/libfdisk.so.1"))).toBe(true);
      expect(ended.child.stderr).toContain("left out: resize2fs, which nodes need to grow ext4 (package e2fsprogs)");
    },
  );

  scopedTest("what is wrong is one line, and what was there stays", async (scope) => {
    const folder = scope.tempDir();
    writeFileSync(join(folder, "vmlinuz"), "old");
    const cases: [string[], number, RegExp][] = [
      [["initramfs"], 2, /needs -o DIR/],
      [words(folder, "--kernel", "/none"), 2, /--kernel is given 2 times/],
      [replaced(words(folder), "--kernel", "/none"), 1, /\/none does not exist: name a kernel with --kernel/],
      [replaced(words(folder), "--kernel", "/bin/ls"), 1, /\/bin\/ls is no kernel that says its version/],
      [replaced(words(folder), "--modules", "/none"), 1, /\/none does not exist: give the modules of kernel/],
      [replaced(words(folder), "--modules", "/tmp"), 1, /\/tmp has no modules\.dep/],
      [replaced(words(folder), "--binary", "/none"), 1, /\/none does not exist/],
      [words(folder, "--extra", "/none"), 1, /\/none does not exist/],
      [words(folder, "--sysroot", "/none"), 1, /busybox is not installed: install the package busybox-static/],
      [replaced(words(folder), "-o", "/proc/none"), 1, /cannot write to the folder \/proc\/none/],
    ];
    for (const [argv, code, message] of cases) {
      const ended = await fail(scope, argv, code, message);
      expect(ended.stderr.trim().split("\n")).toHaveLength(1);
    }
    expect(readdirSync(folder)).toEqual(["vmlinuz"]);
    expect(readFileSync(join(folder, "vmlinuz"), "utf8")).toBe("old");
  });

  scopedTest("a dynamic busybox is refused, and a missing mksquashfs told", async (scope) => {
    const [folder, sysroot, empty] = [scope.tempDir(), scope.tempDir(), scope.tempDir()];
    mkdirSync(join(sysroot, "bin"));
    run(["cp", "/bin/ls", join(sysroot, "bin/busybox")]);
    await fail(
      scope,
      words(folder, "--sysroot", sysroot),
      1,
      /not a static program: install the package busybox-static/,
    );
    await fail(scope, words(folder), 1, /mksquashfs is not installed: install the package squashfs-tools/, {
      env: { PATH: empty },
    });
  });

  scopedTest("an interrupted build leaves nothing", async (scope) => {
    const folder = scope.tempDir();
    const build = start(scope, replaced(replaced(words(folder), "--compress", "xz"), "--binary", process.execPath));
    await build.event("start");
    while (build.child.running && !readdirSync(folder).some((name) => name.startsWith(".diskswarm")))
      await Bun.sleep(5);
    build.child.signal("SIGTERM");
    await build.expectExit(130);
    expect(readdirSync(folder)).toEqual([]);
  });

  if (isRoot)
    scopedTest("a full disk is one line, and nothing half-written", async (scope) => {
      const folder = scope.tempDir();
      run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]);
      scope.defer(() => void run(["umount", folder]));
      const ended = await fail(scope, words(folder), 1, /the disk is full|is there room for \d+ MB/);
      expect(ended.stderr.trim().split("\n")).toHaveLength(1);
      expect(readdirSync(folder)).toEqual([]);
    });
});

/** The words with another value of an option. */
function replaced(argv: string[], option: string, value: string): string[] {
  return argv.map((word, i) => (argv[i - 1] === option ? value : word));
}

function unpackArchive(scope: Scope, archive: string): string {
  const root = scope.tempDir();
  const packer = readFileSync(archive)[0] === 0x1f ? "gunzip" : "zstd -dc";
  run(["sh", "-c", `cd ${root} && ${packer} < ${archive} | cpio -id --quiet`]);
  return root;
}

function copyWithLibraries(path: string, sysroot: string): void {
  const said = Bun.spawnSync(["ldd", path]).stdout.toString();
  const libraries = [...said.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  for (const one of [path, ...libraries]) run(["cp", "--parents", "-L", one, sysroot]);
}
