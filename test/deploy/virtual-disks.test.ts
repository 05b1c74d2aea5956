/** Virtual disks of every format go to real ones: shown by qemu, without a copy, or saved as a raw file in the same pass. */
import { describe, expect } from "bun:test";
import { existsSync, readdirSync, renameSync, statSync, truncateSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { start, succeed } from "../harness/diskswarm.ts";
import { type Disk, expectSameDisk, partitionsOf, smallDisk } from "../harness/disks.ts";
import { filesystemOf } from "../harness/filesystems.ts";
import { deploy, loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice, loopPart } from "../harness/loop.ts";
import { mountWith, smallTmpfs } from "../harness/mounts.ts";
import { freePort } from "../harness/ports.ts";
import { commandLineOf, run, until } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { debianDisk } from "../harness/vm-os.ts";
import { expectFailure, ext4Device, FAILED, REFUSED, rowsOf, toolsWith, warningsOf } from "./surveying.ts";

/** How each format keeps the disk's very size and says what it is. */
const FORMATS: Record<string, { words: string[]; format: string }> = {
  qcow2: { words: ["-O", "qcow2"], format: "a qcow2 image" },
  "compressed qcow2": { words: ["-c", "-O", "qcow2"], format: "a qcow2 image" },
  vmdk: { words: ["-O", "vmdk"], format: "a vmdk image" },
  "flat vmdk": { words: ["-O", "vmdk", "-o", "subformat=monolithicFlat"], format: "a vmdk image" },
  vhdx: { words: ["-O", "vhdx"], format: "a vhdx image" },
  vdi: { words: ["-O", "vdi"], format: "a vdi image" },
  vhd: { words: ["-O", "vpc", "-o", "force_size=on"], format: "a vpc image" },
  "fixed vhd": { words: ["-O", "vpc", "-o", "force_size=on,subformat=fixed"], format: "a vpc image" },
};
/** The system is installed on the first call. */
const TIMEOUT_MS = 9 * 60_000;
/** The tools that a virtual disk takes beside those of a survey. */
const QEMU_TOOLS = ["qemu-img", "qemu-storage-daemon", "setpriv"];

function converted(scope: Scope, source: string, name: string): string {
  needTools("qemu-img", "qemu-storage-daemon");
  const path = join(scope.ramDir(), `disk.${name.replace(" ", "-")}`);
  run(["qemu-img", "convert", "-f", "raw", ...FORMATS[name].words, source, path]);
  return path;
}

async function deployFrom(scope: Scope, torrent: string, source: string, disk: Disk): Promise<void> {
  const target = loopDevice(scope, disk.lengthBytes, { dirty: 4 }).path;
  const seeder = await loopbackSeeder(scope, torrent, source);
  await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
  await seeder.run.child.stop();
  await expectSameDisk(target, disk);
}

/** Processes that read a file below that folder. */
function daemonsOf(folder: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    const words = /^\d+$/.test(pid) ? commandLineOf(pid) : "";
    return words.includes("qemu-storage-daemon") && words.includes(folder);
  });
}

describe.skipIf(!isRoot)("a virtual disk is deployed", () => {
  scopedTest("from the qcow2 file itself, by its used blocks", async (scope) => {
    const disk = await smallDisk(scope);
    const image = converted(scope, disk.path, "qcow2");
    const temporary = scope.tempDir();
    const torrent = join(scope.ramDir(), "disk.torrent");
    const env = { TMPDIR: temporary };
    const done = await (await succeed(scope, ["capture", image, "-o", torrent], { env })).done();
    expect(done).toMatchObject({ sourcePath: image, sourceFormat: "a qcow2 image", diskBytes: disk.lengthBytes });
    expect(rowsOf(done).map(({ filesystem, why }) => `${filesystem}: ${why}`)).toEqual([
      ": boot code and partition table",
      "vfat: used blocks, by partclone",
      "ext4: used blocks, by partclone",
      ": no partition: everything but zeros",
    ]);
    expect([readdirSync(temporary), daemonsOf(image)]).toEqual([[], []]);
    const inspected = (await succeed(scope, ["inspect", torrent])).events.find(({ event }) => event === "torrent");
    expect(inspected).toMatchObject({ sourcePath: image, sourceFormat: "a qcow2 image" });
    await deployFrom(scope, torrent, image, disk);
  });

  scopedTest("of every format alike, and from the raw file that is saved in the same pass", async (scope) => {
    const disk = await smallDisk(scope);
    const output = scope.ramDir();
    const [torrent, raw] = [join(output, "disk.torrent"), join(output, "disk.raw")];
    const hashes = new Set<unknown>();
    for (const [name, { format }] of Object.entries(FORMATS)) {
      const image = converted(scope, disk.path, name);
      const words = ["capture", image, "-o", torrent, "--save", raw, "--name", "disk"];
      const done = await (await succeed(scope, words)).done();
      expect({ name, format: done.sourceFormat }).toEqual({ name, format });
      await succeed(scope, ["verify", torrent, raw]);
      hashes.add(done.infoHash);
    }
    expect(hashes.size).toBe(1);
    expect(statSync(raw).blocks * 512).toBeLessThan(disk.lengthBytes / 2);
    await deployFrom(scope, torrent, raw, disk);
  });

  scopedTest(
    "and is a whole system, whose every file is on a disk that was full of other bytes",
    async (scope) => {
      const golden = debianDisk();
      const { size } = statSync(golden);
      const image = converted(scope, golden, "qcow2");
      const torrent = join(scope.ramDir(), "debian.torrent");
      await succeed(scope, ["capture", image, "-o", torrent]);
      const target = loopDevice(scope, size, { dirty: 5 }).path;
      const seeder = await loopbackSeeder(scope, torrent, image);
      const deployed = await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
      expect((await deployed.done()).bytesTotal).toBeLessThan(size / 2);
      const root = partitionsOf(golden).at(-1)!;
      const device = loopPart(scope, target, root);
      filesystemOf("ext4").check(device);
      const original = loopPart(scope, golden, root);
      const folders = [device, original].map((path) => mountWith(scope, ["mount", "-o", "ro,noload", path]));
      run(["diff", "--recursive", "--no-dereference", ...folders]);
    },
    TIMEOUT_MS,
  );

  scopedTest("by serve, until it is interrupted; then no view is left", async (scope) => {
    const { path, backingPath } = ext4Device(scope);
    const image = converted(scope, path, "qcow2");
    const env = { TMPDIR: scope.tempDir() };
    const ports = ["--http", String(await freePort("127.0.0.1")), "--udp", String(await freePort("127.0.0.1"))];
    const serve = start(scope, ["serve", image, "--listen", "127.0.0.1", ...ports], { env });
    const { images } = (await serve.event("start")) as unknown as { images: { url: string }[] };
    const target = loopDevice(scope, statSync(backingPath).size, { dirty: 4 }).path;
    await deploy(scope, images[0].url, target, [], ["--verify"]);
    filesystemOf("ext4").check(target);
    expect(daemonsOf(image)).toHaveLength(1);
    serve.child.signal("SIGINT");
    await serve.expectExit(130);
    expect([daemonsOf(image), readdirSync(env.TMPDIR)]).toEqual([[], []]);
  });

  scopedTest("with what it builds on; its own bytes if they are asked for", async (scope) => {
    const { path, backingPath } = ext4Device(scope);
    const base = converted(scope, path, "qcow2");
    const folder = scope.ramDir();
    const [overlay, torrent, raw] = ["overlay", "x.torrent", "x.raw"].map((name) => join(folder, name));
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay]);
    await succeed(scope, ["capture", overlay, "-o", torrent, "--save", raw, "--extents", "data"]);
    expectSameBytes(raw, backingPath, statSync(backingPath).size);
    const words = ["capture", overlay, "-o", torrent, "--format", "raw"];
    expect(await (await succeed(scope, words)).done()).toMatchObject({
      diskBytes: statSync(overlay).size,
      sourceFormat: null,
    });
    const seeder = await loopbackSeeder(scope, torrent, overlay);
    const target = join(folder, "copy");
    await deploy(scope, torrent, target, [seeder.peer], []);
    expectSameBytes(target, overlay, statSync(overlay).size);
    const { exitCode, stderr } = await start(scope, ["capture", overlay, "-o", torrent, "--save", base]).ended;
    expect([exitCode, stderr]).toEqual([FAILED, expect.stringContaining("the source itself consists of it")]);
  });

  scopedTest("without its daemon by a converted copy, without partclone by what is not zero", async (scope) => {
    const { path, backingPath } = ext4Device(scope);
    const image = converted(scope, path, "vhdx");
    const folder = scope.ramDir();
    const [torrent, raw] = [join(folder, "x.torrent"), join(folder, "x.raw")];
    const words = ["capture", image, "-o", torrent, "--save", raw];
    const noView = toolsWith(scope, { "qemu-storage-daemon": null }, ["qemu-img", "setpriv"]);
    const converting = await succeed(scope, words, { env: noView });
    expect(warningsOf(converting)).toEqual(["no-view"]);
    expect((await converting.done()).unusedBytes).toBeGreaterThan(16 * 1024 * 1024);
    expectSameBytes(raw, backingPath, statSync(backingPath).size);
    const noMaps = toolsWith(scope, { "partclone.ext4": null }, QEMU_TOOLS);
    const reading = await succeed(scope, words, { env: noMaps });
    expect(warningsOf(reading)).toEqual(["tool-missing"]);
    expect((await reading.done()).unusedBytes).toBe(0);
    expect(readdirSync(folder).sort()).toEqual(["x.raw", "x.torrent"]);
  });
});

describe.skipIf(!isRoot)("a virtual disk is refused in one line:", () => {
  for (const name of ["qcow2", "vmdk", "vhdx", "vdi", "vhd"]) {
    scopedTest(`${name} that was cut off`, async (scope) => {
      const image = converted(scope, ext4Device(scope).path, name);
      truncateSync(image, Math.floor(statSync(image).size / 2));
      await expectFailure(scope, image, FAILED, /disk\.\w+ .*(damaged or cut off|truncated|Invalid argument)/);
    });
  }

  scopedTest("without the file that it builds on", async (scope) => {
    const base = converted(scope, ext4Device(scope).path, "qcow2");
    const overlay = join(scope.ramDir(), "overlay.qcow2");
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay]);
    renameSync(base, `${base}.gone`);
    await expectFailure(scope, overlay, FAILED, /cannot open .*overlay\.qcow2 as qcow2: .*disk\.qcow2.*No such file/);
  });

  scopedTest("encrypted", async (scope) => {
    needTools("qemu-img");
    const image = join(scope.ramDir(), "secret.qcow2");
    const key = ["--object", "secret,id=key,data=secret"];
    const how = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    const create = ["qemu-img", "create", "-q", "-f", "qcow2", ...key, "-o", how, image, "16M"];
    // On a busy machine it cannot tell how many rounds its key takes ("Unable to get accurate CPU usage"), and gives up.
    await until("qemu-img has made it", () => Bun.spawnSync(create, { stderr: "ignore" }).exitCode === 0);
    await expectFailure(scope, image, FAILED, /secret\.qcow2 is encrypted: decrypt it first/);
  });

  scopedTest("without qemu-img, and without a view where nothing is saved", async (scope) => {
    const image = converted(scope, ext4Device(scope).path, "qcow2");
    const message = /qemu-img is not installed: install the package qemu-utils$/m;
    await expectFailure(scope, image, FAILED, message, [], toolsWith(scope, {}));
    const env = toolsWith(scope, { "qemu-storage-daemon": null }, ["qemu-img"]);
    const folder = scope.ramDir();
    const capture = await start(scope, ["capture", image, "-o", join(folder, "x.torrent")], { env }).ended;
    expect(capture.exitCode).toBe(FAILED);
    expect(capture.stderr).toMatch(/cannot be shown as a disk here .*qemu-storage-daemon.* with --save FILE/);
    expect(readdirSync(folder)).toEqual([]);
  });

  scopedTest("that a machine is running from, and with a filesystem that was not left in order", async (scope) => {
    const { path } = ext4Device(scope);
    run(["debugfs", "-w", "-R", "feature needs_recovery", path]);
    const image = converted(scope, path, "qcow2");
    await expectFailure(scope, image, REFUSED, /ext4 filesystem of .*disk\.qcow2 has changes in its journal .*--force/);
    const socket = join(scope.ramDir(), "socket");
    const writer = Bun.spawn([
      "qemu-storage-daemon",
      "--blockdev",
      `qcow2,node-name=d,file.driver=file,file.filename=${image}`,
      "--export",
      `vhost-user-blk,id=e,node-name=d,writable=on,addr.type=unix,addr.path=${socket}`,
    ]);
    scope.defer(async () => {
      writer.kill();
      await writer.exited;
    });
    // Its socket is made after it took its lock; asking qemu-img would hold one of its own, which ends the writer.
    await until("it is locked", () => existsSync(socket));
    await expectFailure(scope, image, FAILED, /disk\.qcow2 is being written to: end the virtual machine/, ["--force"]);
  });

  scopedTest("whose raw copy does not fit, before it is written", async (scope) => {
    const disk = await smallDisk(scope);
    const image = converted(scope, disk.path, "qcow2");
    const full = smallTmpfs(scope, 4 * 1024 * 1024);
    const torrent = join(scope.ramDir(), "x.torrent");
    const capture = await start(scope, ["capture", image, "-o", torrent, "--save", join(full, "x.raw")]).ended;
    expect(capture.exitCode).toBe(FAILED);
    expect(capture.stderr).toMatch(/cannot save to .*x\.raw: it takes up to .* and its filesystem has 4\.00 MiB free/);
    expect([readdirSync(full), existsSync(torrent)]).toEqual([[], false]);
  });

  scopedTest("that is written to while it is seeded", async (scope) => {
    const image = converted(scope, ext4Device(scope).path, "qcow2");
    const torrent = join(scope.ramDir(), "x.torrent");
    await succeed(scope, ["capture", image, "-o", torrent]);
    const seeder = await loopbackSeeder(scope, torrent, image);
    utimesSync(image, 1, 1);
    const { exitCode, stderr } = await seeder.run.ended;
    expect([exitCode, stderr]).toEqual([3, expect.stringMatching(/disk\.qcow2 was written to while it was seeded/)]);
  });

  scopedTest("interrupted at a terminal, where Ctrl-C goes to all programs of the group", async (scope) => {
    const image = converted(scope, ext4Device(scope).path, "qcow2");
    const [folder, temporary, started] = [scope.ramDir(), scope.ramDir(), join(scope.ramDir(), "started")];
    const env = toolsWith(scope, { "partclone.ext4": `echo $$ > ${started}; exec sleep 1000` }, QEMU_TOOLS);
    const words = ["capture", image, "-o", join(folder, "x.torrent"), "--save", join(folder, "x.raw")];
    const capture = start(scope, words, { env: { ...env, TMPDIR: temporary }, prefix: [Bun.which("setsid")!] });
    await until("partclone runs", () => existsSync(started));
    process.kill(-capture.child.pid, "SIGINT");
    await capture.expectExit(130);
    expect([readdirSync(folder), readdirSync(temporary), daemonsOf(image)]).toEqual([[], [], []]);
  });

  scopedTest("and a capture that is killed takes its view with it", async (scope) => {
    const image = converted(scope, ext4Device(scope).path, "qcow2");
    const started = join(scope.ramDir(), "started");
    const slow = { "partclone.ext4": `echo $$ > ${started}; exec sleep 2` };
    const env = toolsWith(scope, slow, QEMU_TOOLS);
    const capture = start(scope, ["capture", image, "-o", join(scope.ramDir(), "x.torrent")], {
      env: { ...env, TMPDIR: scope.tempDir() },
    });
    await until("partclone runs", () => existsSync(started));
    expect(daemonsOf(image)).toHaveLength(1);
    await capture.child.kill();
    await until("the daemon is gone", () => daemonsOf(image).length === 0);
  });
});
