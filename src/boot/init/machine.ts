/**
 * What a node knows of itself before it has asked anybody: its MAC address and serial, and what DHCP said.
 *
 * DHCP's words are in files of `KEY='value'` lines: ours (/run/diskswarm/network.env) or klibc's, which the
 * initramfs of Debian and Ubuntu leaves (/run/net-eth0.conf).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { macOfBootif } from "./command-line.ts";

export interface Machine {
  /** By which its server knows it: the MAC address, else the serial, else the machine id. */
  readonly id: string;
  readonly mac: string | null;
  readonly serial: string | null;
  readonly product: string | null;
  readonly address: string | null;
  /** The server that DHCP named (siaddr, or option 66 where it is an address). */
  readonly nextServer: string | null;
  /** The boot file that DHCP named; of HTTP boot a URL. */
  readonly bootFile: string | null;
}

const LEASE_BYTES_MAX = 64 * 1024;

/** Reads what is there; what is not is null. `bootMac` is the command line's BOOTIF. `root` is put before every path. */
export function readMachine(bootMac: string | null, root = ""): Machine {
  const lease = readLease(root);
  const interfaceName = lease.get("INTERFACE") ?? lease.get("DEVICE") ?? null;
  const mac = bootMac ?? macOfBootif(lease.get("MAC") ?? "") ?? macOf(root, interfaceName);
  const serial = firmwareText(root, "class/dmi/id/product_serial") ?? deviceTreeText(root, "serial-number");
  return {
    id: mac ?? idOf(serial) ?? idOf(text(`${root}/etc/machine-id`)) ?? "unknown",
    mac,
    serial,
    product: productOf(root),
    address: lease.get("ADDRESS") ?? lease.get("IPV4ADDR") ?? null,
    nextServer: serverOf(lease.get("NEXT_SERVER") ?? lease.get("ROOTSERVER")),
    bootFile: lease.get("BOOT_FILE") ?? lease.get("filename") ?? null,
  };
}

/** `KEY='value'` lines as a shell would read them, without running anything. Lines that are none are skipped. */
export function parseEnvironmentFile(content: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of content.split("\n")) {
    const match = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line.trim());
    if (match === null) continue;
    const value = unquote(match[2]!);
    if (value !== null) values.set(match[1]!, value);
  }
  return values;
}

/** A shell word of single- and double-quoted and bare stretches; null where it is no single word. */
function unquote(word: string): string | null {
  let result = "";
  for (let rest = word; rest !== ""; ) {
    const stretch = /^(?:'([^']*)'|"((?:[^"\\$`]|\\.)*)"|\\(.)|([^\s'"\\$`;&|<>()]+))/.exec(rest);
    if (stretch === null) return null;
    result += stretch[1] ?? stretch[2]?.replaceAll(/\\(.)/g, "$1") ?? stretch[3] ?? stretch[4]!;
    rest = rest.slice(stretch[0].length);
  }
  return result;
}

function readLease(root: string): Map<string, string> {
  const paths = [
    `${root}/run/diskswarm/network.env`,
    ...names(`${root}/run`)
      .filter((name) => /^net-.+\.conf$/.test(name) && name !== "net-lo.conf")
      .map((name) => `${root}/run/${name}`),
  ];
  const values = new Map<string, string>();
  for (const path of paths)
    for (const [key, value] of parseEnvironmentFile(text(path) ?? "")) {
      if (!values.has(key) && value !== "" && !/[\x00-\x1f\x7f]/.test(value)) values.set(key, value);
    }
  return values;
}

/** DHCP puts 0.0.0.0 where there is no next server. */
function serverOf(value: string | undefined): string | null {
  return value === undefined || !/^[0-9A-Za-z.:-]+$/.test(value) || /^(0\.0\.0\.0|::)$/.test(value) ? null : value;
}

/** Of the interface with the lease, else of the first that is hardware and up, else of the first that is hardware. */
function macOf(root: string, interfaceName: string | null): string | null {
  const folder = `${root}/sys/class/net`;
  const found = interfaceName === null ? [] : [interfaceName];
  const hardware = names(folder).filter((name) => name !== "lo" && text(join(folder, name, "type")) === "1");
  const up = hardware.filter((name) => text(join(folder, name, "operstate")) === "up");
  for (const name of [...found, ...up, ...hardware]) {
    const mac = macOfBootif(text(join(folder, name, "address")) ?? "");
    if (mac !== null && mac !== "00:00:00:00:00:00") return mac;
  }
  return null;
}

function productOf(root: string): string | null {
  const parts = ["sys_vendor", "product_name"].map((name) => firmwareText(root, `class/dmi/id/${name}`));
  return parts.filter((part) => part !== null).join(" ") || deviceTreeText(root, "model");
}

/** What vendors write where they write nothing is nothing. */
function firmwareText(root: string, path: string): string | null {
  const found = text(`${root}/sys/${path}`);
  return found === null ||
    /^(to be filled|default string|not specified|system (serial|product)|none|0+$|unknown)/i.test(found)
    ? null
    : found;
}

function deviceTreeText(root: string, name: string): string | null {
  return text(`${root}/proc/device-tree/${name}`)?.replaceAll("\0", "").trim() || null;
}

function idOf(found: string | null): string | null {
  const plain = found?.replaceAll(/[^A-Za-z0-9:._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "") ?? "";
  return plain === "" ? null : plain.slice(0, 64).toLowerCase();
}

/** A short text file without blanks at its ends; null where it is missing, empty or long. */
function text(path: string): string | null {
  try {
    const content = readFileSync(path, "latin1");
    return content.length > LEASE_BYTES_MAX ? null : content.trim() || null;
  } catch {
    // Not every machine tells everything, and some only to root.
    return null;
  }
}

function names(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    // The same for folders.
    return [];
  }
}
