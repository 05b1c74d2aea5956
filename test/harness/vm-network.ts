/**
 * The network that machines boot from: cables (tap devices) into the bridge of a test network, and dnsmasq as the
 * site's DHCP and TFTP server, set up as its manual says to load iPXE and to hand it a script over HTTP.
 */
import { copyFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import type { Machine, Network } from "./network.ts";
import type { Child } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";

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
  /** Names that are given to machines, by MAC address. */
  readonly names?: Readonly<Record<string, string>>;
}

const IPXE = "/usr/lib/ipxe";
const LOADERS = { bios: "undionly.kpxe", uefi: "snponly.efi" } as const;
/** Client architectures of RFC 4578 and its registry: x64 UEFI under both numbers that firmware sends. */
const UEFI_ARCHITECTURES = [7, 9];

/** The `index`th machine's cable, 0 to 255. */
export function plugIn(network: Network, index: number): Cable {
  const tap = network.tap();
  const mac = `52:54:00:d5:00:${index.toString(16).padStart(2, "0")}`;
  return { ...tap, mac };
}

/** DHCP and TFTP on a machine of the network. */
export async function startBootServer(scope: Scope, machine: Machine, options: BootServerOptions): Promise<Child> {
  needTools("dnsmasq");
  const folder = scope.tempDir();
  for (const loader of Object.values(LOADERS)) {
    const path = join(IPXE, loader);
    if (!existsSync(path)) throw new Error(`${path} is not there: apt-get install ipxe`);
    copyFileSync(path, join(folder, loader));
  }
  const net = machine.address.replace(/\.\d+$/, "");
  const names = Object.entries(options.names ?? {}).map(([mac, name]) => `--dhcp-host=${mac},${name}`);
  const server = machine.spawn(scope, [
    ...["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0"],
    ...["--log-facility=-", "--log-dhcp", `--dhcp-leasefile=${join(folder, "leases")}`, "--interface=eth0"],
    ...["--dhcp-authoritative", "--no-ping", `--dhcp-range=${net}.100,${net}.199,1h`, ...names],
    ...["--enable-tftp", `--tftp-root=${folder}`, "--dhcp-match=set:ipxe,175"],
    ...UEFI_ARCHITECTURES.map((number) => `--dhcp-match=set:uefi,option:client-arch,${number}`),
    `--dhcp-boot=tag:!ipxe,tag:uefi,${LOADERS.uefi}`,
    `--dhcp-boot=tag:!ipxe,tag:!uefi,${LOADERS.bios}`,
    `--dhcp-boot=tag:ipxe,${options.scriptUrl}`,
  ]);
  await server.waitForLine(/DHCP, IP range/);
  return server;
}
