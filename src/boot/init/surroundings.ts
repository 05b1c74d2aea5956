/**
 * Where `init` runs. In an initramfs the machine is its own to reboot and to set the clock of; anywhere else it is
 * somebody's computer, and is left alone unless its user says otherwise.
 */
import { existsSync } from "node:fs";

/** systemd and dracut make the first in their initramfs, ours and the hooks the second. */
const MARKERS = ["/etc/initrd-release", "/run/diskswarm/initramfs"];

export function isInitramfs(root = ""): boolean {
  return MARKERS.some((path) => existsSync(`${root}${path}`));
}

/** Whether the firmware is UEFI. */
export function isUefi(sys = "/sys"): boolean {
  return existsSync(`${sys}/firmware/efi`);
}
