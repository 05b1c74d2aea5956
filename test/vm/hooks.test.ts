/** An initramfs that dracut or Debian's initramfs-tools made with our hook in it images its machine, under a real kernel. */
import { describe } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { programArgv, REPOSITORY } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { debianKernel } from "../harness/kernels.ts";
import { Network } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { inSystemCopy } from "../harness/system-copy.ts";
import { isRoot } from "../harness/tools.ts";
import { plugIn, startBootServer } from "../harness/vm-network.ts";
import { Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 8 * 60_000;
const MIB = 1024 * 1024;
const IMAGE_BYTES = 24 * MIB;
const HOOKS = join(REPOSITORY, "initramfs");
const isBuilt = process.env.DISKSWARM_BINARY !== undefined;

interface Maker {
  readonly packages: readonly string[];
  /** Puts the hook where the README says; $1 is the system's root. */
  readonly prepare: string;
  /** Makes /tmp/initrd for the kernel in $RELEASE. */
  readonly make: string;
  /** Joins the overlay to what was made. */
  readonly withOverlay?: boolean;
  /** Says on the console that it was the maker's own script that brought us there. */
  readonly sign: RegExp;
}

const DRACUT = `cp -r ${HOOKS}/dracut/modules.d/90diskswarm "$1/usr/lib/dracut/modules.d/"`;
const MAKERS: Readonly<Record<string, Maker>> = {
  "initramfs-tools": {
    packages: ["initramfs-tools-core", "lz4"],
    prepare: `cp ${HOOKS}/initramfs-tools/hooks/diskswarm "$1/etc/initramfs-tools/hooks/"
      cp -r ${HOOKS}/initramfs-tools/scripts/. "$1/etc/initramfs-tools/scripts/"`,
    make: "mkinitramfs -c lz4 -o /tmp/initrd $RELEASE",
    sign: /diskswarm: bringing the network up/,
  },
  // Debian's own, which knows nothing of us.
  "initramfs-tools with our overlay behind it": {
    packages: ["initramfs-tools-core", "zstd"],
    prepare: "",
    make: "mkinitramfs -c zstd -o /tmp/initrd $RELEASE",
    withOverlay: true,
    sign: /diskswarm: /,
  },
  "dracut by itself": {
    packages: ["dracut-network", "lz4"],
    prepare: DRACUT,
    make: `dracut --no-hostonly --omit systemd --add "network-legacy diskswarm" --lz4 /tmp/initrd $RELEASE`,
    sign: /dracut/,
  },
  "dracut with systemd and its networkd": {
    packages: ["dracut-network", "systemd", "dbus", "lz4"],
    prepare: DRACUT,
    make: "dracut --no-hostonly --add diskswarm --lz4 /tmp/initrd $RELEASE",
    sign: /systemd\[1\]/,
  },
};

function makeInitrd(scope: Scope, maker: Maker): string {
  const { release, modules, vmlinuz } = debianKernel("cloud-amd64");
  const initrd = join(scope.tempDir(), "initrd.img");
  inSystemCopy(scope, {
    packages: maker.packages,
    prepare: `
      mkdir -p "$1/lib/modules" && cp -r ${modules} "$1/lib/modules/"
      cp ${vmlinuz.replace(`vmlinuz-${release}`, `config-${release}`)} "$1/boot/"
      cp ${programArgv()[0]} "$1/usr/local/bin/diskswarm"
      ${maker.prepare}`,
    inside: `RELEASE=${release}; ${maker.make} 2>&1`,
    result: { from: "/tmp/initrd", to: initrd },
  });
  if (maker.withOverlay) appendOverlay(scope, initrd);
  return initrd;
}

function appendOverlay(scope: Scope, initrd: string): void {
  const folder = scope.tempDir();
  run([programArgv()[0]!, "initramfs", "-o", folder, "--overlay", "--tools", "none"]);
  run(["sh", "-c", `cat ${folder}/overlay.img >> ${initrd}`]);
}

describe.skipIf(!isRoot || !isBuilt)("an initramfs made by", () => {
  for (const [name, maker] of Object.entries(MAKERS)) {
    scopedTest(
      `${name} deploys to its machine's disk and switches it off`,
      async (scope) => {
        const initrd = makeInitrd(scope, maker);
        const network = new Network(scope);
        const server = network.machine();
        const image = stampedImage(join(scope.tempDir(), "classroom.raw"), IMAGE_BYTES, 7);
        const serve = server.spawn(scope, [programArgv()[0]!, "serve", image, "--listen", server.address, "--json"]);
        await serve.waitForLine(/"event":"start"/);
        await startBootServer(scope, server, { scriptUrl: "http://192.0.2.1/none" });
        const disk = join(scope.tempDir(), "disk");
        sparseFile(disk, 2 * IMAGE_BYTES);
        const words = ["console=ttyS0", `diskswarm.server=http://${server.address}:6969`, "diskswarm.after=poweroff"];
        if (maker.withOverlay) words.push("rdinit=/diskswarm/init");
        const vm = await Vm.start(scope, name, {
          memoryMiB: 768,
          cable: plugIn(network, 1),
          disks: [{ path: disk, serial: "lab-1" }],
          kernel: { kernel: debianKernel("cloud-amd64").vmlinuz, initrd, commandLine: words.join(" ") },
        });
        await vm.console.waitFor(maker.sign);
        await vm.console.waitFor(/done and flushed|proven/);
        await vm.waitForPowerOff();
        expectSameBytes(disk, image, IMAGE_BYTES);
      },
      TIMEOUT_MS,
    );
  }
});
