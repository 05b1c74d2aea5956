/**
 * Which packages hold firmware that drivers name. Those of Debian 12 (component non-free-firmware), by how names begin;
 * Fedora, SUSE and Arch have nearly all of it in linux-firmware. What stands in no line is in no package of today.
 */
const PACKAGES: readonly (readonly [string, RegExp])[] = [
  ["firmware-realtek", /^rtl_nic\//],
  ["firmware-bnx2", /^bnx2\//],
  ["firmware-bnx2x", /^bnx2x\//],
  ["firmware-qlogic", /^(qed|qlogic)\/|^ql2\d|^(cb|ct|ct2)fw-/],
  ["firmware-netronome", /^netronome\//],
  ["firmware-cavium", /^liquidio\//],
  ["firmware-misc-nonfree", /^(3com|advansys|cxgb[34]|e100|ene-ub6250|intel|kaweth|tehuti|tigon)\//],
];

/** The packages that would have some of these files. */
export function firmwarePackages(names: readonly string[]): string[] {
  return PACKAGES.filter(([, pattern]) => names.some((name) => pattern.test(name))).map(([name]) => name);
}
