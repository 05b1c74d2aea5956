/**
 * The network that machines boot from: cables (tap devices) into the bridge of a test network, and dnsmasq as the
 * site's DHCP and TFTP server, set up as its manual says to load iPXE and to hand it a script over HTTP.
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Machine, Network } from "./network.ts";
import { Child } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools, PYTHON } from "./tools.ts";

const BIOS_SCRIPT = "start.ipxe";

/** The card's ROM in QEMU is iPXE as well: as a card of another make would, it loads the iPXE of the site first. */
const biosScript = (scriptUrl: string) => `#!ipxe
iseq \${netX/chip} undionly && chain ${scriptUrl} || chain ${LOADERS.bios}
`;

/** One machine's way into the network, and the card that it is in. */
export interface Cable {
  /** What it leads to, as QEMU's -netdev has it. */
  readonly netdev: string;
  readonly mac: string;
  /** QEMU's name of the card; without one it is virtio's. */
  readonly card?: "e1000e";
  /** Not plugged in when the machine is switched on. */
  readonly isOut?: boolean;
  /** Starts a command where the device is. */
  readonly prefix: readonly string[];
}

export interface BootServerOptions {
  /** What iPXE is to run. */
  readonly scriptUrl: string;
  /** What UEFI firmware loads instead of iPXE: the first of these files, named as the server shall name them. */
  readonly uefiLoaders?: Readonly<Record<string, string>>;
  /** Names that are given to machines, by MAC address. */
  readonly names?: Readonly<Record<string, string>>;
  /** The machine that DHCP says to boot from; without it the DHCP server itself. */
  readonly nextServer?: string;
  /** Of IPv6: an address of this network is advertised to all, who make their own of it. */
  readonly prefix6?: string;
}

const IPXE = "/usr/lib/ipxe";
const LOADERS = { bios: "undionly.kpxe", uefi: "snponly.efi" } as const;
/** Client architectures of RFC 4578 and its registry: x64 UEFI under both numbers that firmware sends. */
const UEFI_ARCHITECTURES = [7, 9];

/** The `index`th cable, 0 to 255. */
export function plugIn(network: Network, index: number): Cable {
  const { tap, prefix } = network.tap();
  return { netdev: `tap,ifname=${tap},script=no,downscript=no`, prefix, mac: macOfCable(index) };
}

/** A cable to a port where a network is only in a VLAN. Without its tag there is a link, and nobody. */
export async function plugIntoTrunk(scope: Scope, network: Network, vlan: number, index: number): Promise<Cable> {
  const folder = scope.tempDir();
  const [port, machine] = [join(folder, "port"), join(folder, "machine")];
  const { tap, prefix } = network.tap();
  const argv = [PYTHON, join(import.meta.dir, "trunk-port.py"), String(vlan), tap, port, machine];
  await new Child(scope, argv, { prefix }).waitForLine(/ready/);
  const ends = [`local.type=unix,local.path=${machine}`, `remote.type=unix,remote.path=${port}`];
  return { netdev: `dgram,${ends.join(",")}`, prefix, mac: macOfCable(index) };
}

export function macOfCable(index: number): string {
  return `52:54:00:d5:00:${index.toString(16).padStart(2, "0")}`;
}

/** DHCP and TFTP on a machine of the network. */
export async function startBootServer(scope: Scope, machine: Machine, options: BootServerOptions): Promise<Child> {
  needTools("dnsmasq");
  const folder = scope.tempDir();
  const uefi = options.uefiLoaders ?? { [LOADERS.uefi]: join(IPXE, LOADERS.uefi) };
  for (const [name, path] of Object.entries({ [LOADERS.bios]: join(IPXE, LOADERS.bios), ...uefi })) {
    if (!existsSync(path)) throw new Error(`${path} is not there: a package of test/packages.txt is missing`);
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    copyFileSync(path, join(folder, name));
  }
  writeFileSync(join(folder, BIOS_SCRIPT), biosScript(options.scriptUrl));
  const net = machine.address.replace(/\.\d+$/, "");
  const names = Object.entries(options.names ?? {}).map(([mac, name]) => `--dhcp-host=${mac},${name}`);
  const server = machine.spawn(scope, [
    ...["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0"],
    ...["--log-facility=-", "--log-dhcp", `--dhcp-leasefile=${join(folder, "leases")}`, "--interface=eth0"],
    ...["--dhcp-authoritative", "--no-ping", `--dhcp-range=${net}.100,${net}.199,1h`, ...names],
    ...(options.prefix6 ? ["--enable-ra", `--dhcp-range=${options.prefix6},ra-only`] : []),
    ...["--enable-tftp", `--tftp-root=${folder}`, "--dhcp-match=set:ipxe,175"],
    ...UEFI_ARCHITECTURES.map((number) => `--dhcp-match=set:uefi,option:client-arch,${number}`),
    `--dhcp-boot=tag:!ipxe,tag:uefi,${Object.keys(uefi)[0]}`,
    `--dhcp-boot=tag:!ipxe,tag:!uefi,${LOADERS.bios}${options.nextServer ? `,,${options.nextServer}` : ""}`,
    `--dhcp-boot=tag:ipxe,tag:uefi,${options.scriptUrl}`,
    `--dhcp-boot=tag:ipxe,tag:!uefi,${BIOS_SCRIPT}`,
  ]);
  await server.waitForLine(/DHCP, IP range/);
  return server;
}
