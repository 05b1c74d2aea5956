/**
 * What makes an installed Linux the one machine that it is: its name, its machine ID, its random seed and its SSH host
 * keys. A clone gets a name of its own, and makes the others anew at its first boot.
 *
 * machine-id(5) asks for an empty file in images; systemd's "Building Images Safely" names the random seed.
 */
import type { Rooted } from "./rooted.ts";

export type SshHostKeys =
  /** The image had none. */
  | "none"
  /** Removed; the image makes new ones by itself, or by a unit that was added. */
  | "removed"
  /** Nothing in the image would make new ones. */
  | "kept";

/** Gives the system under `root` its name. Throws Failure or an error of the file system. */
export function giveIdentity(root: Rooted, hostname: string): SshHostKeys {
  root.write("etc/hostname", `${hostname}\n`);
  root.write("etc/hosts", hostsWith(root.read("etc/hosts") ?? "127.0.0.1\tlocalhost\n", hostname));
  if (root.exists("etc/machine-id")) root.write("etc/machine-id", "", 0o444);
  // Usually a link to the other; as a file it would keep the image's ID, and an empty one is an error to D-Bus.
  if (root.isPlainFile("var/lib/dbus/machine-id")) root.remove("var/lib/dbus/machine-id");
  root.remove("var/lib/systemd/random-seed");
  return renewHostKeys(root);
}

/** The text of /etc/hosts with the line by which Debian's installer names the machine. */
export function hostsWith(text: string, hostname: string): string {
  const short = hostname.split(".")[0];
  const line = `127.0.1.1\t${hostname}${short === hostname ? "" : ` ${short}`}`;
  const isOwn = (one: string) => /^\s*127\.0\.1\.1(\s|$)/.test(one);
  const lines = `${text.trimEnd()}\n`.split("\n");
  const at = lines.findIndex(isOwn);
  if (at >= 0) return lines.flatMap((one, i) => (i === at ? [line] : isOwn(one) ? [] : [one])).join("\n");
  const local = lines.findIndex((one) => /^\s*127\.0\.0\.1\s/.test(one));
  return [...lines.slice(0, local + 1), line, ...lines.slice(local + 1)].join("\n");
}

const SSH_FOLDER = "etc/ssh";
const HOST_KEY = /^ssh_host_.*_key(\.pub|-cert\.pub)?$/;
const UNIT = "diskswarm-ssh-host-keys.service";
const UNIT_FOLDER = "etc/systemd/system";
const SYSTEM_UNIT_FOLDERS = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/** sshd itself is started only when there are keys: Debian's unit tests its configuration first. */
const UNIT_TEXT = `[Unit]
Description=New SSH host keys for a machine that was cloned
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service sshd.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
`;

/** Keys go only where new ones are sure to come: a machine in another room must stay reachable. */
function renewHostKeys(root: Rooted): SshHostKeys {
  const keys = root.list(SSH_FOLDER).filter((name) => HOST_KEY.test(name));
  if (keys.length === 0) return "none";
  if (!makesOwnKeys(root) && !addUnit(root)) return "kept";
  for (const name of keys) root.remove(`${SSH_FOLDER}/${name}`);
  return "removed";
}

/** Fedora, Arch and openSUSE by what their sshd's unit asks for; Alpine and Gentoo by sshd's init script. */
function makesOwnKeys(root: Rooted): boolean {
  const units = SYSTEM_UNIT_FOLDERS.flatMap((folder) => [`${folder}/sshd.service`, `${folder}/ssh.service`]);
  const texts = isSystemd(root) ? units.map((path) => root.read(path)) : [root.read("etc/init.d/sshd")];
  return texts.some((text) => text !== null && /keygen|genkeys|gen-keys/i.test(text));
}

/** Debian and its kin make keys when the package is configured, and never again. False where that cannot be done. */
function addUnit(root: Rooted): boolean {
  if (!isSystemd(root) || !root.exists("usr/bin/ssh-keygen") || !root.isFolder(UNIT_FOLDER)) return false;
  const wants = `${UNIT_FOLDER}/multi-user.target.wants`;
  root.makeFolder(wants);
  root.write(`${UNIT_FOLDER}/${UNIT}`, UNIT_TEXT);
  root.link(`${wants}/${UNIT}`, `/${UNIT_FOLDER}/${UNIT}`);
  return true;
}

function isSystemd(root: Rooted): boolean {
  return ["usr/lib/systemd/systemd", "lib/systemd/systemd"].some((path) => root.exists(path));
}
