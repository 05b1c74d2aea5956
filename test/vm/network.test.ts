/** Every way to the network that the kernel's command line can name, on machines with cards that lead nowhere. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { start } from "../harness/diskswarm.ts";
import { sparseFile, stampedImage } from "../harness/image.ts";
import { type Machine, Network } from "../harness/network.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { bootBeforehand, bootFolder } from "../harness/vm-boot.ts";
import { plugIn, plugIntoTrunk, startBootServer } from "../harness/vm-network.ts";
import { Vm } from "../harness/vm.ts";

const TIMEOUT_MS = 8 * 60_000;
const MEMORY_MIB = 384;
const IMAGE_BYTES = 16 * 1024 * 1024;
const VLAN = 5;

/**
 * Words of a command line, and what a shell on the node then sees: how the network is written down, addresses, MTUs, routes.
 * eth0 has no link, eth1 a link to nobody but in a VLAN, eth2 the network.
 */
const FORMS: readonly (readonly [string, ...RegExp[]])[] = [
  ["ip=eth2:dhcp:1400", /^METHOD='dhcp'$/m, /^INTERFACE='eth2'$/m, /eth2: .* mtu 1400 /],
  ["ip=::::lab9:eth2:on nameserver=10.1.1.1", /^METHOD='dhcp'$/m, /^HOSTNAME='lab9'$/m, /^nameserver 10\.1\.1\.1$/m],
  ["ip=10.77.0.52/24 BOOTIF=01-52-54-00-D5-00-03", /^ADDRESS='10\.77\.0\.52'$/m, /^INTERFACE='eth2'$/m],
  [
    "ip=10.77.0.53:10.77.0.9:10.77.0.1:255.255.255.128:lab7:eth2:none:9.9.9.9:1.1.1.1:10.77.0.8",
    ...[/^ADDRESS='10\.77\.0\.53'$/m, /^PREFIX='25'$/m, /^ROUTER='10\.77\.0\.1'$/m, /^NEXT_SERVER='10\.77\.0\.9'$/m],
    ...[/^NTP='10\.77\.0\.8'$/m, /^HOSTNAME='lab7'$/m, /nameserver 9\.9\.9\.9\nnameserver 1\.1\.1\.1/],
    /default via 10\.77\.0\.1 dev eth2/,
  ],
  ["ip=10.77.0.54::10.77.0.1:24::eth2:off:1450", /^PREFIX='24'$/m, /eth2: .* mtu 1450 /],
  // An address and no card: not the first that has a link, but the one with the router.
  ["ip=10.77.0.55::10.77.0.1:255.255.255.0", /^INTERFACE='eth2'$/m],
  ["ip=[fd00:77::7]::[fd00:77::1]:64::eth2:none", /^ADDRESS='fd00:77::7'$/m, /default via fd00:77::1 dev eth2/],
  ["ip=eth2:auto6", /^ADDRESS='fd00:77:/m, /^PREFIX='64'$/m],
  ["vlan=vlan0005:eth1 ip=10.77.0.56::10.77.0.1:255.255.255.0::vlan0005:none", /^INTERFACE='vlan0005'$/m],
  ["ip=off", /the network stays down \(ip=off\)/, /^from here: no$/m],
];
/** The server, in its network and in that of the VLAN. */
const SERVERS = "10.77.0.1 fd00:77::1";

/** What the shell of `rd.break` learns to do: to forget all of a network, and to set it up as words of a command line say. */
const SHELL_WORDS = [
  "PS1='ready> '",
  ". /lib/diskswarm/common.sh; . /lib/diskswarm/network.sh; export CMDLINE=; coldplug",
  "forget() { ip link del vlan0005; for i in eth0 eth1 eth2; do ip addr flush dev $i; ip link set $i mtu 1500 down; done; rm -f $NET_ENV; }",
  `reach() { for to in ${SERVERS}; do ! ping -c 1 -W 5 $to > /dev/null || { echo from here: $to; return; }; done; echo from here: no; }`,
  "form() { forget 2> /dev/null; CMDLINE=$*; network_up; cat $NET_ENV $(dirname $NET_ENV)/resolv.conf; ip link; ip route; ip -6 route; reach; }",
];

function serveImage(scope: Scope, machine: Machine, ...words: string[]) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 51);
  const serve = start(scope, ["serve", image, "--listen", machine.address, "--after", "poweroff", ...words], {
    machine,
  });
  return { image, started: serve.event("start") };
}

function emptyDisk(scope: Scope): string {
  const path = join(scope.tempDir(), "disk");
  sparseFile(path, 2 * IMAGE_BYTES);
  return path;
}

function kernelOf(folder: string, ...words: string[]) {
  const commandLine = ["console=ttyS0", "quiet", "diskswarm.debug", "diskswarm.linger=0", ...words].join(" ");
  return { kernel: join(folder, "vmlinuz"), initrd: join(folder, "initrd.img"), commandLine };
}

bootBeforehand(["one-stage", "two-stage"]);

describe.skipIf(!isRoot)("a machine with three network cards", () => {
  scopedTest(
    "takes every form of ip=, BOOTIF= and vlan=; and without any goes on by itself to the card whose DHCP names the server",
    async (scope) => {
      const [network, vlan] = [new Network(scope), new Network(scope)];
      const [server, dhcp] = [network.machine(), network.machine()];
      expect(vlan.machine().address).toBe(server.address);
      for (const [i, machine] of [server, dhcp].entries())
        machine.run("ip", "-6", "addr", "add", `fd00:77::${i + 1}/64`, "dev", "eth0", "nodad");
      const dhcpOptions = { scriptUrl: "http://127.0.0.1:1/", nextServer: server.address, prefix6: "fd00:77::" };
      await startBootServer(scope, dhcp, dhcpOptions);
      const folder = bootFolder("two-stage");
      const { image, started } = serveImage(scope, server, "--boot", folder);
      await started;
      const disk = emptyDisk(scope);
      const vm = await Vm.start(scope, "three cards", {
        memoryMiB: MEMORY_MIB,
        cable: { ...plugIn(network, 1), isOut: true },
        moreCables: [await plugIntoTrunk(scope, vlan, VLAN, 2), plugIn(network, 3)],
        disks: [{ path: disk, serial: "D1" }],
        kernel: kernelOf(folder, "rd.break"),
      });
      await vm.console.waitFor(/a shell for you; leave it by 'exit' to go on/);
      await vm.console.waitFor(/# /);
      for (const line of SHELL_WORDS) {
        vm.console.type(`${line}\n`);
        await vm.console.waitFor(/^ready> /m);
      }
      for (const [words, ...signs] of FORMS) {
        vm.console.type(`(form '${words}')\n`);
        const [shown] = await vm.console.waitFor(/[\s\S]*^ready> /m);
        for (const sign of words === "ip=off" ? signs : [...signs, /^from here: [1f]/m])
          if (!sign.test(shown)) throw new Error(`${words} does not lead to ${sign}, but to\n${shown}`);
      }
      vm.console.type("forget 2> /dev/null; exit\n");
      await vm.console.waitFor(/trying dhcp on eth1/);
      await vm.console.waitFor(/eth2 has 10\.77\.0\.1\d\d\/24/);
      await vm.console.waitFor(new RegExp(`fetching http://${server.address}:6969/boot/root.squashfs`));
      await vm.waitForPowerOff();
      expectSameBytes(disk, image, IMAGE_BYTES);
      expect(vm.console.text).not.toContain("trying dhcp on eth0");
    },
    TIMEOUT_MS,
  );

  scopedTest(
    "gets an address in a VLAN, and finds a server there that nobody has named",
    async (scope) => {
      const [network, vlan] = [new Network(scope), new Network(scope)];
      const [server, dhcp] = [vlan.machine(), vlan.machine()];
      await startBootServer(scope, dhcp, { scriptUrl: "http://127.0.0.1:1/" });
      const { image, started } = serveImage(scope, server);
      await started;
      const disk = emptyDisk(scope);
      const vm = await Vm.start(scope, "in a VLAN", {
        memoryMiB: MEMORY_MIB,
        cable: plugIn(network, 1),
        moreCables: [await plugIntoTrunk(scope, vlan, VLAN, 2)],
        disks: [{ path: disk, serial: "D1" }],
        kernel: kernelOf(bootFolder("one-stage"), `vlan=eth1.${VLAN}:eth1`, `ip=eth1.${VLAN}:dhcp`),
      });
      await vm.console.waitFor(/eth1\.5 has 10\.77\.0\.1\d\d\/24/);
      await vm.console.waitFor(new RegExp(`http://${server.address}:6969 has a plan`));
      await vm.waitForPowerOff();
      expectSameBytes(disk, image, IMAGE_BYTES);
    },
    TIMEOUT_MS,
  );
});
