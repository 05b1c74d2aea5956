/** `deploy --personalize`: a clone becomes a machine of its own; everything else in it stays, and nothing outside of it is touched. */
import { describe, expect } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type Event, fail, succeed } from "../harness/diskswarm.ts";
import { type Disk, type DiskPartition, expectSamePartition, makeDisk } from "../harness/disks.ts";
import { filesystemOf } from "../harness/filesystems.ts";
import { loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { extentsAt, makeVolumes } from "../harness/lvm.ts";
import { mountWith } from "../harness/mounts.ts";
import { run } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { captureDisk, deployTo, expectSoundGpt } from "./whole-disks.ts";

const MIB = 1024 * 1024;
const NAME = "pc07.room3.example";

/** What an installed Debian has of itself, with links as merged-usr systems have them. */
const FILES: Readonly<Record<string, string>> = {
  "usr/lib/os-release": "ID=debian\n",
  "etc/hostname": "golden\n",
  "etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tgolden.example golden\n\n::1 localhost\n",
  "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
  "etc/fstab": "# made by the installer\n",
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
  "etc/ssh/ssh_host_ed25519_key": "secret\n",
  "etc/ssh/ssh_host_ed25519_key.pub": "public\n",
  "etc/ssh/sshd_config": "# mine\n",
  "etc/systemd/system/mine.service": "[Unit]\n",
  "usr/bin/ssh-keygen": "program\n",
  "usr/lib/systemd/systemd": "program\n",
  "usr/lib/systemd/system/ssh.service": "[Service]\nExecStartPre=/usr/sbin/sshd -t\nExecStart=/usr/sbin/sshd -D\n",
  "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
  "var/lib/systemd/random-seed": "seed\n",
};
const LINKS: Readonly<Record<string, string>> = { "etc/os-release": "../usr/lib/os-release", lib: "usr/lib" };

interface Tree {
  readonly files?: Readonly<Record<string, string | null>>;
  readonly links?: Readonly<Record<string, string>>;
}

function plant(folder: string, { files = {}, links = {} }: Tree): void {
  for (const [path, text] of Object.entries({ ...FILES, ...files })) {
    if (text === null) continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  for (const [path, text] of Object.entries({ ...LINKS, ...links })) symlinkSync(text, join(folder, path));
}

/** Uses the filesystem in a part of a disk while it is mounted. */
async function inPart<T>(
  path: string,
  part: Pick<DiskPartition, "offsetBytes" | "lengthBytes">,
  words: readonly string[],
  use: (folder: string) => T,
): Promise<T> {
  const scope = new Scope();
  try {
    return use(mountWith(scope, ["mount", ...words, loopPart(scope, path, part)]));
  } finally {
    await scope.close();
  }
}

/** All paths below a folder with what they are and hold. */
function contentOf(folder: string): Record<string, string> {
  const content: Record<string, string> = {};
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const found = run(["stat", "-c", "%F %a %u:%g", join(folder, path)]).trim();
    const isFile = found.startsWith("regular");
    content[path] = found.startsWith("symbolic")
      ? `-> ${readlinkSync(join(folder, path))}`
      : isFile
        ? `${found} ${readFileSync(join(folder, path), "utf8")}`
        : found;
  }
  return content;
}

/** This machine's address as a table has it; a machine without network gets an interface for as long as the test. */
function ownMac(scope: Scope): string {
  const own = () =>
    readdirSync("/sys/class/net").filter((name) => existsSync(`/sys/class/net/${name}/address`) && name !== "lo");
  if (own().length === 0) {
    run(["ip", "link", "add", "dstest0", "type", "veth", "peer", "name", "dstest1"]);
    scope.defer(() => void run(["ip", "link", "delete", "dstest0"]));
  }
  return readFileSync(`/sys/class/net/${own()[0]}/address`, "utf8").trim().toUpperCase();
}

function table(scope: Scope, text?: string): string {
  const path = join(scope.tempDir(), "machines.csv");
  const row = () => `"${NAME}";;${ownMac(scope)};"3; left"`;
  writeFileSync(path, text ?? `hostname;serial;mac;room\r\n${row()}\r\npc08;XYZ-1;;4\r\n`);
  return path;
}

function personalizedOf(events: readonly Event[]): Event {
  const found = events.filter(({ event }) => event === "personalized");
  expect(found).toHaveLength(1);
  return found[0];
}

/** The program's own temporary folder, to see that nothing is left in it. */
function ownTmp(scope: Scope): { TMPDIR: string } {
  return { TMPDIR: scope.tempDir() };
}

function expectNothingLeft(target: string, env: { TMPDIR: string }): void {
  expect(readdirSync(env.TMPDIR)).toEqual([]);
  expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(env.TMPDIR);
  expect(run(["losetup", "--associated", target]).trim()).toBe("");
}

/** What a clone has instead of the image's own. */
function expectedContent(before: Record<string, string>, hosts: string): Record<string, string> {
  const after = { ...before };
  after["etc/hostname"] = `regular file 644 0:0 ${NAME}\n`;
  after["etc/hosts"] = `regular file 640 0:5 ${hosts}`;
  after["etc/machine-id"] = "regular empty file 444 0:0 ";
  for (const gone of ["etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub", "var/lib/dbus/machine-id"])
    delete after[gone];
  delete after["var/lib/systemd/random-seed"];
  return after;
}

const HOSTS = `127.0.0.1\tlocalhost\n127.0.1.1\t${NAME} pc07\n\n::1 localhost\n`;
const UNIT = "etc/systemd/system/diskswarm-ssh-host-keys.service";
const WANTS = "etc/systemd/system/multi-user.target.wants";

describe.skipIf(!isRoot)("--personalize", () => {
  for (const type of ["ext4", "xfs"]) {
    scopedTest(`gives a clone on ${type} its name and takes the image's identity away`, async (scope) => {
      const size = filesystemOf(type).lengthBytes;
      const script = ["label: gpt", "size=64M, type=U", `size=${size / MIB}M, type=L`, "size=64M, type=L"];
      const disk = await makeDisk(scope, size + 140 * MIB, script, ["vfat", type, "ext4"]);
      const root = disk.partitions[1];
      const before = await inPart(disk.path, root, [], (folder) => {
        plant(folder, {});
        chmodSync(join(folder, "etc/hosts"), 0o640);
        chownSync(join(folder, "etc/hosts"), 0, 5);
        chmodSync(join(folder, "etc/machine-id"), 0o444);
        return contentOf(folder);
      });
      const { torrent } = await captureDisk(scope, disk);
      const flags = ["--personalize", table(scope), "--grow"];
      const env = ownTmp(scope);
      const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes + 16 * MIB, { flags, env });
      expect(personalizedOf(events)).toMatchObject({ place: "partition 2", hostname: NAME, sshHostKeys: "removed" });
      expectNothingLeft(target, env);
      expectSoundGpt(target);
      const check = new Scope();
      filesystemOf(type).check(loopPart(check, target, root));
      await check.close();
      const after = await inPart(target, root, ["-o", "ro"], contentOf);
      expect(after[UNIT]).toMatch(/^regular file 644 0:0 .*ExecStart=\/usr\/bin\/ssh-keygen -A\n/s);
      expect(after[`${WANTS}/diskswarm-ssh-host-keys.service`]).toBe(`-> /${UNIT}`);
      for (const added of [UNIT, WANTS, `${WANTS}/diskswarm-ssh-host-keys.service`]) delete after[added];
      expect(after).toEqual(expectedContent(before, HOSTS));
    });
  }

  scopedTest("follows links of the image inside the image alone", async (scope) => {
    const outside = scope.tempDir();
    const outsideFiles = { "hostname.txt": "host's", "hosts.txt": "host's", id: "host's" };
    for (const [name, text] of Object.entries(outsideFiles)) writeFileSync(join(outside, name), text);
    const disk = await makeDisk(scope, 140 * MIB, ["label: gpt", "size=128M"], ["ext4"]);
    const [root] = disk.partitions;
    const up = "../".repeat(30);
    await inPart(disk.path, root, [], (folder) => {
      mkdirSync(join(folder, outside), { recursive: true });
      writeFileSync(join(folder, outside, "hosts.txt"), "127.0.0.1 localhost\n");
      const files = { "etc/hostname": null, "etc/hosts": null, "etc/machine-id": null };
      plant(folder, {
        files,
        links: {
          "etc/hostname": `${up}${outside.slice(1)}/hostname.txt`,
          "etc/hosts": `${outside}/hosts.txt`,
          "etc/machine-id": `${outside}/id`,
          "etc/ssh/ssh_host_rsa_key": `${outside}/id`,
        },
      });
    });
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes, {
      flags: ["--personalize", table(scope)],
    });
    personalizedOf(events);
    for (const [name, text] of Object.entries(outsideFiles))
      expect(readFileSync(join(outside, name), "utf8")).toBe(text);
    await inPart(target, root, [], (folder) => {
      expect(readFileSync(join(folder, outside, "hostname.txt"), "utf8")).toBe(`${NAME}\n`);
      expect(readFileSync(join(folder, outside, "hosts.txt"), "utf8")).toBe(
        `127.0.0.1 localhost\n127.0.1.1\t${NAME} pc07\n`,
      );
      expect(existsSync(join(folder, outside, "id"))).toBe(false);
      expect(readdirSync(join(folder, "etc/ssh"))).toEqual(["sshd_config"]);
    });
  });

  scopedTest("finds the root in a Btrfs: in subvolume @, and in the default one", async () => {
    needTools("btrfs");
    for (const kind of ["@", "default"] as const) {
      const making = new Scope();
      const disk = await makeDisk(making, 260 * MIB, ["label: gpt", "size=256M"], ["btrfs"]);
      const [root] = disk.partitions;
      await inPart(disk.path, root, [], (folder) => {
        run(["btrfs", "subvolume", "create", join(folder, kind)]);
        plant(join(folder, kind), {});
        if (kind === "default") run(["btrfs", "subvolume", "set-default", join(folder, kind)]);
      });
      const { torrent } = await captureDisk(making, disk);
      const flags = ["--personalize", table(making)];
      const env = ownTmp(making);
      const { target, events } = await deployTo(making, torrent, disk, disk.lengthBytes, { flags, env });
      const place = kind === "@" ? "partition 1, subvolume @" : "partition 1";
      expect(personalizedOf(events)).toMatchObject({ place, sshHostKeys: "removed" });
      expectNothingLeft(target, env);
      const part = loopPart(making, target, root);
      filesystemOf("btrfs").check(part);
      await inPart(target, root, ["-o", "subvolid=5"], (folder) => {
        expect(readFileSync(join(folder, kind, "etc/hostname"), "utf8")).toBe(`${NAME}\n`);
        expect(readFileSync(join(folder, kind, "etc/machine-id"), "utf8")).toBe("");
      });
      await making.close();
    }
  });

  scopedTest("finds the root in a logical volume", async (scope) => {
    needTools("pvs", "sgdisk");
    const lengthBytes = 320 * MIB;
    const { path } = loopDevice(scope, lengthBytes, { dirty: 3 });
    run(["sgdisk", "--new", "1:2048:0", path]);
    const pv = { offsetBytes: MIB, lengthBytes: lengthBytes - 2 * MIB };
    const making = new Scope();
    makeVolumes(making, loopPart(making, path, pv), [{ name: "root", runs: [{ at: 0, count: 35 }] }]);
    const inside = extentsAt(0, 35);
    const root = { offsetBytes: pv.offsetBytes + inside.offsetBytes, lengthBytes: inside.lengthBytes };
    filesystemOf("ext4").make(loopPart(making, path, root));
    await making.close();
    await inPart(path, root, [], (folder) => plant(folder, {}));
    const disk: Disk = { path, lengthBytes, partitions: [{ number: 1, ...pv, type: "LVM2_member" }], files: [] };
    const { torrent } = await captureDisk(scope, disk);
    const { target, events } = await deployTo(scope, torrent, disk, lengthBytes, {
      flags: ["--personalize", table(scope)],
    });
    expect(personalizedOf(events)).toMatchObject({ place: "partition 1, volume root" });
    await inPart(target, root, ["-o", "ro"], (folder) => {
      expect(readFileSync(join(folder, "etc/hostname"), "utf8")).toBe(`${NAME}\n`);
    });
  });

  scopedTest("takes the root that names itself in its fstab; two that do, or none, are a failure", async (scope) => {
    const script = ["label: gpt", "size=64M", "size=64M"];
    const disk = await makeDisk(scope, 132 * MIB, script, ["ext4", "ext4"]);
    const [first, second] = disk.partitions;
    const uuid = ({ offsetBytes, lengthBytes }: DiskPartition) =>
      run([
        "blkid",
        "-p",
        "-o",
        "value",
        "-s",
        "UUID",
        "-O",
        String(offsetBytes),
        "-S",
        String(lengthBytes),
        disk.path,
      ]).trim();
    // What a backup of the root would look like: its fstab names the other one.
    const fstab = { "etc/fstab": `proc /proc proc defaults 0 0\nUUID=${uuid(second)} / ext4 defaults 0 1\n` };
    for (const part of [first, second]) await inPart(disk.path, part, [], (folder) => plant(folder, { files: fstab }));
    const { torrent } = await captureDisk(scope, disk);
    const flags = ["--personalize", table(scope)];
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes, { flags });
    expect(personalizedOf(events)).toMatchObject({ place: "partition 2" });
    const nameIn = (path: string, part: DiskPartition) =>
      inPart(path, part, ["-o", "ro"], (folder) => readFileSync(join(folder, "etc/hostname"), "utf8"));
    expect(await nameIn(target, first)).toBe("golden\n");
    expect(await nameIn(target, second)).toBe(`${NAME}\n`);

    await inPart(disk.path, first, [], (folder) => writeFileSync(join(folder, "etc/fstab"), ""));
    await inPart(disk.path, second, [], (folder) => writeFileSync(join(folder, "etc/fstab"), ""));
    const other = await captureDisk(scope, disk);
    const seeder = await loopbackSeeder(scope, other.torrent, disk.path);
    const at = ["--port", "0", "--peer", seeder.peer];
    const message = /proven, but it was not personalized: partition 1 and partition 2 each hold an installed system/;
    await fail(scope, ["deploy", other.torrent, target, ...at, ...flags], 1, message);
    expect(await nameIn(target, first)).toBe("golden\n");
  });

  scopedTest("leaves Windows alone, and says so", async (scope) => {
    const disk = await makeDisk(scope, 132 * MIB, ["label: gpt", "size=128M"], ["ntfs"]);
    const { torrent } = await captureDisk(scope, disk);
    const target = loopDevice(scope, disk.lengthBytes, { dirty: 4 }).path;
    const seeder = await loopbackSeeder(scope, torrent, disk.path);
    const flags = ["--port", "0", "--peer", seeder.peer, "--personalize", table(scope)];
    const message = /no installed Linux was found on \S+; partition 1 holds NTFS: Windows is left alone\n$/;
    await fail(scope, ["deploy", torrent, target, ...flags], 1, message);
    await expectSamePartition(target, disk, disk.partitions[0]);
  });

  scopedTest("keeps SSH host keys where nothing would make new ones, with a warning", async (scope) => {
    const disk = await makeDisk(scope, 132 * MIB, ["label: gpt", "size=128M"], ["ext4"]);
    const [root] = disk.partitions;
    await inPart(disk.path, root, [], (folder) => plant(folder, { files: { "usr/bin/ssh-keygen": null } }));
    const { torrent } = await captureDisk(scope, disk);
    const flags = ["--personalize", table(scope)];
    const { target, events } = await deployTo(scope, torrent, disk, disk.lengthBytes, { flags });
    expect(personalizedOf(events)).toMatchObject({ sshHostKeys: "kept" });
    expect(events.find(({ event }) => event === "warning")).toMatchObject({ code: "personalize-ssh" });
    await inPart(target, root, ["-o", "ro"], (folder) =>
      expect(statSync(join(folder, "etc/ssh/ssh_host_ed25519_key")).size).toBe(7),
    );
  });
});

describe("--personalize before anything is written", () => {
  scopedTest("ends where the table does not help, with one line", async (scope) => {
    const source = join(scope.ramDir(), "image.raw");
    writeFileSync(source, "image".repeat(1000));
    const torrent = join(scope.tempDir(), "image.torrent");
    await succeed(scope, ["capture", source, "-o", torrent]);
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ url }) =>
        url.endsWith("/big")
          ? new Response("x".repeat(5 * MIB))
          : new Response("mac,hostname\n00:00:5e:00:53:01,pc01\n"),
    });
    scope.defer(() => server.stop(true));
    const text = (content: string) => table(scope, content);
    // Whatever is asked of a file that is made: there is no disk to do it to.
    const file = join(scope.tempDir(), "new");
    await fail(scope, ["deploy", torrent, file, "--force", "--grow"], 2, /--grow needs a disk or partition as target/);
    const cases: [string, number, RegExp][] = [
      [
        text("mac,hostname\n00:00:5e:00:53:01,pc01\n"),
        1,
        /no row is for this machine: .*nothing was written, mend the table/,
      ],
      [`${server.url}table.csv`, 1, /table\.csv: no row is for this machine/],
      [`${server.url}big`, 5, /cannot fetch the table .*more than a table can have \(4.00 MiB\)/],
      ["http://127.0.0.1:9/x", 5, /cannot fetch the table/],
      ["/no/such/table", 1, /cannot read the table \/no\/such\/table: no such file/],
      [scope.tempDir(), 1, /it is not a file/],
      [text(""), 1, /it is empty/],
      [text("mac,hostname\n00:00:5e:00:53:01,bad_name\n"), 1, /line 2 has the hostname "bad_name"/],
    ];
    for (const [path, exitCode, message] of cases) {
      const target = join(scope.tempDir(), "target");
      const flags = ["--force", "--timeout", "1s", "--peer", "127.0.0.9:9", "--personalize", path];
      const { stderr } = await fail(scope, ["deploy", torrent, target, ...flags], exitCode, message);
      expect(stderr.trim().split("\n")).toHaveLength(1);
      expect(existsSync(target)).toBe(false);
    }
  });
});
