/** Module dependencies and driver sets, on the module folder of a real kernel and beside what kmod says of it. */
import { beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { chooseDrivers } from "../../../src/boot/initramfs/drivers.ts";
import { FileTree } from "../../../src/boot/initramfs/file-tree.ts";
import { firmwarePackages } from "../../../src/boot/initramfs/firmware-packages.ts";
import { kernelFacts } from "../../../src/boot/initramfs/kernel-image.ts";
import { ModuleFiles } from "../../../src/boot/initramfs/module-files.ts";
import { ModuleTree, moduleName } from "../../../src/boot/initramfs/module-tree.ts";
import { debianKernel, type TestKernel } from "../../harness/kernels.ts";
import { run } from "../../harness/process.ts";
import { type Scope, scopedTest } from "../../harness/scope.ts";
import { needTools } from "../../harness/tools.ts";

const hasApt = Bun.which("apt-get") !== null && Bun.which("dpkg-deb") !== null && Bun.which("depmod") !== null;
const signal = new AbortController().signal;

test("firmware that is missing is in packages, where it is in any", () => {
  const names = [
    "rtl_nic/rtl8168g-2.fw",
    "ql2500_fw.bin",
    "qed/qed_init_values_zipped-8.42.2.0.bin",
    "sun/cassini.bin",
  ];
  expect(firmwarePackages(names)).toEqual(["firmware-realtek", "firmware-qlogic"]);
  expect(firmwarePackages(["sun/cassini.bin", "bnx2x/x.fw"])).toEqual(["firmware-bnx2x"]);
});

describe.skipIf(!hasApt)("Debian's cloud kernel", () => {
  let kernel: TestKernel;
  let tree: ModuleTree;
  beforeAll(() => {
    kernel = debianKernel(process.arch === "x64" ? "cloud-amd64" : "cloud-arm64");
    tree = new ModuleTree(kernel.modules);
  }, 120_000);

  test("its file says the release of its folder", () => {
    expect(kernelFacts(readFileSync(kernel.vmlinuz))?.release).toBe(kernel.release);
  });

  for (const name of ["virtio_net", "virtio-blk", "sd_mod", "btrfs", "8021q", "ena"])
    test(`${name} comes with what kmod would load`, () => {
      needTools("modprobe");
      const root = kernel.modules.replace(/\/lib\/modules\/[^/]+$/, "");
      const said = run(["modprobe", "-d", root, "-S", kernel.release, "--show-depends", name]);
      const wanted = [...said.matchAll(/^insmod (\S+)/gm)].map((match) => moduleName(match[1]!));
      const found = new Set(tree.withDependencies([name]).map(moduleName));
      expect(wanted.filter((one) => !found.has(one))).toEqual([]);
      expect(found.has(moduleName(name))).toBe(true);
    });

  test("hardware finds its driver by the patterns of modules.alias", () => {
    expect(tree.modulesFor("virtio:d00000001v00001AF4")).toEqual(["virtio_net"]);
    expect(tree.modulesFor("pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00")).toContain("virtio_pci");
    expect(tree.modulesFor("acpi:NOSUCH00:")).toEqual([]);
  });

  test("what is built in is no module", () => {
    expect([tree.isBuiltin("nvme"), tree.isBuiltin("nvme-core"), tree.has("nvme")]).toEqual([true, true, false]);
    expect(tree.withDependencies(["nvme", "no_such_module"])).toEqual([]);
  });

  test("the sets grow from minimal to all, and the first of two stages has no disks", () => {
    const minimal = chooseDrivers(tree, "minimal");
    const all = chooseDrivers(tree, "all");
    const has = (paths: readonly string[], name: string) => paths.some((path) => moduleName(path) === name);
    expect(minimal.paths.filter((path) => !all.paths.includes(path))).toEqual([]);
    for (const name of ["virtio_blk", "virtio_net", "squashfs", "loop", "8021q"])
      expect([name, has(minimal.paths, name)]).toEqual([name, true]);
    for (const name of ["ena", "mlx5_core", "megaraid_sas", "mpt3sas", "hv_storvsc", "xfs"].filter((one) =>
      tree.has(one),
    ))
      expect([name, has(all.paths, name), has(minimal.paths, name)]).toEqual([name, true, false]);
    expect(has(all.firstStagePaths, "ena")).toBe(true);
    expect(has(minimal.firstStagePaths, "virtio_blk")).toBe(false);
    expect(has(all.firstStagePaths, "mpt3sas")).toBe(false);
  });

  scopedTest("a host's set has the drivers of its devices and not those of others", async (scope) => {
    const sys = scope.tempDir();
    const devices = {
      "pci0/net": "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00",
      "pci0/net/virtio0": "virtio:d00000001v00001AF4",
      "pci0/disk/virtio1": "virtio:d00000008v00001AF4",
    };
    for (const [name, modalias] of Object.entries(devices)) {
      mkdirSync(join(sys, "devices", name), { recursive: true });
      writeFileSync(join(sys, "devices", name, "modalias"), `${modalias}\n`);
    }
    const host = chooseDrivers(tree, "host", sys).paths.map(moduleName);
    for (const name of ["virtio_net", "virtio_pci", "sd_mod", "virtio_scsi"]) expect(host).toContain(name);
    for (const name of ["ena", "mpt3sas"]) expect(host).not.toContain(name);
  });

  scopedTest("lists in the image name the modules that are in it, and no others", async () => {
    const files = new ModuleFiles(tree, kernel.release, "/nowhere", signal);
    const { paths } = chooseDrivers(tree, "minimal");
    await files.load(paths);
    const root = new FileTree();
    files.addTo(root, paths);
    const names = new Set(root.entries().map(([path]) => path));
    const list = textOf(root, `lib/modules/${kernel.release}/modules.dep`);
    expect(list.trim().split("\n")).toHaveLength(paths.length);
    for (const path of list.split(/[:\s]+/).filter(Boolean))
      expect(names.has(`lib/modules/${kernel.release}/${path}`)).toBe(true);
    const aliases = textOf(root, `lib/modules/${kernel.release}/modules.alias`);
    expect(aliases).toContain("virtio_net");
    expect(aliases).not.toContain(" ena\n");
  });

  scopedTest("modules packed by xz, zstd and gzip come unpacked", async (scope) => {
    for (const [suffix, pack] of [
      ["xz", ["xz", "--check=crc32"]],
      ["zst", ["zstd", "-q", "--rm"]],
      ["gz", ["gzip"]],
    ] as const) {
      const folder = smallTree(scope, kernel);
      const path = join(folder, tree.pathOf("loop")!);
      const plain = readFileSync(path);
      run([...pack, path]);
      const listed = readFileSync(join(folder, "modules.dep"), "utf8").replaceAll(".ko", `.ko.${suffix}`);
      writeFileSync(join(folder, "modules.dep"), listed);
      const packed = new ModuleTree(folder);
      const files = new ModuleFiles(packed, kernel.release, "/nowhere", signal);
      await files.load([packed.pathOf("loop")!]);
      const root = new FileTree();
      files.addTo(root, [packed.pathOf("loop")!]);
      const node = root.entries().find(([name]) => name.endsWith("/loop.ko"))![1];
      expect(node.type === "file" && "bytes" in node.content && Buffer.compare(node.content.bytes, plain)).toBe(0);
    }
  });

  scopedTest("a module that is missing, damaged or of another kernel is told by its path", async (scope) => {
    const folder = smallTree(scope, kernel);
    const small = new ModuleTree(folder);
    const loop = small.pathOf("loop")!;
    const load = () => new ModuleFiles(small, kernel.release, "/nowhere", signal).load([loop]);
    const other = new ModuleFiles(small, "6.1.0-1-other", "/nowhere", signal);
    await expect(other.load([loop])).rejects.toThrow(/loop\.ko is for kernel .* but the kernel is 6\.1\.0-1-other/);
    const bytes = readFileSync(join(folder, loop));
    writeFileSync(join(folder, loop), bytes.subarray(0, 1000));
    await expect(load()).rejects.toThrow(/loop\.ko is no kernel module: it is cut short/);
    rmSync(join(folder, loop));
    await expect(load()).rejects.toThrow(/loop\.ko is in modules\.dep but not there/);
    rmSync(join(folder, "modules.dep"));
    expect(() => new ModuleTree(folder)).toThrow(/has no modules\.dep/);
  });
});

/** A module folder with loop and squashfs alone. */
function smallTree(scope: Scope, kernel: TestKernel): string {
  const folder = join(scope.tempDir(), kernel.release);
  const tree = new ModuleTree(kernel.modules);
  const paths = tree.withDependencies(["loop", "squashfs"]);
  for (const path of paths) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(kernel.modules, path), join(folder, path));
  }
  writeFileSync(join(folder, "modules.dep"), paths.map((path) => `${path}:\n`).join(""));
  for (const name of ["modules.builtin", "modules.alias"])
    if (existsSync(join(kernel.modules, name))) cpSync(join(kernel.modules, name), join(folder, name));
  return folder;
}

function textOf(root: FileTree, path: string): string {
  const node = root.entries().find(([name]) => name === path)?.[1];
  if (node?.type !== "file" || !("bytes" in node.content)) throw new Error(`no file ${path}`);
  return new TextDecoder().decode(node.content.bytes);
}
