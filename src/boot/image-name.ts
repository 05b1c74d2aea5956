/**
 * How a node's image is called where it is read from the server (two stages, little memory): a subsystem of NVMe whose
 * name has the image's SHA-256, so that none is taken for another. initramfs/attach.sh has the same words.
 */

const PREFIX = "nqn.2026-11.diskswarm:image:";

export function subsystemOfImage(sha256: string): string {
  return `${PREFIX}${sha256}`;
}

/** The SHA-256 (64 hex digits) of the image that a subsystem's name means; null for a name that is none of ours. */
export function imageOfSubsystem(name: string): string | null {
  const sha256 = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : "";
  return /^[0-9a-f]{64}$/.test(sha256) ? sha256 : null;
}
