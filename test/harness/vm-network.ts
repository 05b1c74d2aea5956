/**
 * The network that machines boot from: cables (tap devices) into the bridge of a test network, and dnsmasq as the
 * site's DHCP and TFTP server, set up as its manual says to load iPXE and to hand it a script over HTTP.
 */
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Machine, Network } from "./network.ts";
import type { Child } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";

const BIOS_SCRIPT = "start.ipxe";

/** The card's ROM in QEMU is iPXE as well: as a card of another make would, it loads the iPXE of the site first. */
const biosScript = (scriptUrl: string) => `#!ipxe
iseq \${netX/chip} undionly && chain ${scriptUrl} || chain ${LOADERS.bios}
`;

/** One machine's way into the network. */
export interface Cable {
  readonly tap: string;
  readonly mac: string;
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
}

const IPXE = "/usr/lib/ipxe";
const LOADERS = { bios: "undionly.kpxe", uefi: "snponly.efi" } as const;
/** Client architectures of RFC 4578 and its registry: x64 UEFI under both numbers that firmware sends. */
const UEFI_ARCHITECTURES = [7, 9];

/** The `index`th machine's cable, 0 to 255. */
export function plugIn(network: Network, index: number): Cable {
  return { ...network.tap(), mac: macOfCable(index) };
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
    ...["--enable-tftp", `--tftp-root=${folder}`, "--dhcp-match=set:ipxe,175"],
    ...UEFI_ARCHITECTURES.map((number) => `--dhcp-match=set:uefi,option:client-arch,${number}`),
    `--dhcp-boot=tag:!ipxe,tag:uefi,${Object.keys(uefi)[0]}`,
    `--dhcp-boot=tag:!ipxe,tag:!uefi,${LOADERS.bios}`,
    `--dhcp-boot=tag:ipxe,tag:uefi,${options.scriptUrl}`,
    `--dhcp-boot=tag:ipxe,tag:!uefi,${BIOS_SCRIPT}`,
  ]);
  await server.waitForLine(/DHCP, IP range/);
  return server;
}
