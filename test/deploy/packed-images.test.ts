/** Images of partclone, plain, compressed and split, and compressed raw images: unpacked into the file of --save, or refused. */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { copyFileSync, existsSync, readdirSync, statSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSame, expectSameBytes } from "../harness/compare.ts";
import { filesLike, partcloneTo } from "../harness/clonezilla.ts";
import { fail, start, succeed } from "../harness/diskswarm.ts";
import { digestsOf, filesystemOf, partcloneRuns, testFiles } from "../harness/filesystems.ts";
import { deploy, loopbackSeeder } from "../harness/fixture.ts";
import { loopDevice } from "../harness/loop.ts";
import { smallTmpfs } from "../harness/mounts.ts";
import { run, until } from "../harness/process.ts";
import { Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { expectFailure, FAILED, MIB, overwrite, rowsOf, toolsWith } from "./surveying.ts";

const FILES = testFiles(12, 0.2 * MIB);
/** What packed images take beside the tools of a survey. */
const TOOLS = ["partclone.restore", "head", "mkfifo", "gzip", "dd"];

/** A filled filesystem and partclone's image of it. */
async function imaged(scope: Scope, type: string, ...flags: string[]): Promise<{ device: string; image: string }> {
  const filesystem = filesystemOf(type);
  const { path: device } = loopDevice(scope, filesystem.lengthBytes, { dirty: 5 });
  filesystem.make(device);
  await filesystem.fill(device, FILES);
  const image = join(scope.ramDir(), "part.img");
  run([...partcloneTo(image, filesystem.partclone, device).split(" "), ...flags]);
  return { device, image };
}

function compressed(image: string, ...words: string[]): string {
  needTools(words[0]);
  run([...words, image]);
  return filesLike(join(image, ".."), "part.img.").at(-1)!;
}

async function captureTo(
  scope: Scope,
  image: string,
): Promise<{ torrent: string; raw: string; done: Record<string, unknown> }> {
  const folder = scope.ramDir();
  const [torrent, raw] = [join(folder, "x.torrent"), join(folder, "x.raw")];
  const words = ["capture", image, "-o", torrent, "--save", raw, "--name", "part"];
  const done = await (await succeed(scope, words)).done();
  expect(readdirSync(folder).sort()).toEqual(["x.raw", "x.torrent"]);
  return { torrent, raw, done: { ...done } };
}

describe.skipIf(!isRoot)("an image of partclone", () => {
  for (const type of ["ext4", "ntfs", "btrfs"]) {
    scopedTest(`of ${type} is deployed, and its unused blocks are left alone`, async (scope) => {
      const filesystem = filesystemOf(type);
      const { device, image } = await imaged(scope, type);
      const { torrent, raw, done } = await captureTo(scope, image);
      const { runs, usedBytes } = partcloneRuns(filesystem, device);
      expect(done).toMatchObject({ diskBytes: filesystem.lengthBytes, sourcePath: image, savedPath: raw });
      expect(done.sourceFormat).toMatch(/^an image of partclone \(\w+\)$/);
      const [row] = rowsOf(done as never);
      expect(row).toMatchObject({ filesystem: type, why: "used blocks, by partclone" });
      // What is neither sent nor zeroed: all that the map calls unused, but for the partition's head and filled gaps.
      expect(row.unusedBytes).toBeGreaterThan(filesystem.lengthBytes - usedBytes - 3 * MIB);
      expect(row.unusedBytes).toBeLessThanOrEqual(filesystem.lengthBytes - usedBytes);
      const target = loopDevice(scope, filesystem.lengthBytes, { dirty: 9 }).path;
      const seeder = await loopbackSeeder(scope, torrent, raw);
      await deploy(scope, torrent, target, [seeder.peer], ["--verify"]);
      for (const path of [raw, target]) expectSame(path, device, runs);
      filesystem.check(target);
      expect(await filesystem.digests(target)).toEqual(digestsOf(FILES));
    });
  }

  scopedTest("gives the same torrent however it is compressed, split or checked", async (scope) => {
    const { image } = await imaged(scope, "ext4");
    const hashes = new Set([(await captureTo(scope, image)).done.infoHash]);
    const packers = [
      ["gzip", "-kf1"],
      ["zstd", "-kq1"],
      ["xz", "-k0"],
      ["bzip2", "-k1"],
      ["lz4", "-kqm1"],
    ];
    for (const words of packers) {
      const path = compressed(image, ...words);
      const { done } = await captureTo(scope, path);
      expect(done.sourceFormat).toMatch(/^an image of partclone \(EXTFS\), compressed \((gz|zst|xz|bz2|lz4)\)$/);
      hashes.add(done.infoHash);
      unlinkSync(path);
    }
    run(["split", "-a", "3", "-b", "1M", image, `${image}.`]);
    hashes.add((await captureTo(scope, `${image}.aaa`)).done.infoHash);
    expect(hashes.size).toBe(1);
  });

  scopedTest("without checksums is one as well, and a compressed raw image is a raw image", async (scope) => {
    const { device, image } = await imaged(scope, "ext4", "-a", "0");
    expect((await captureTo(scope, image)).done.sourceFormat).toBe("an image of partclone (EXTFS)");
    const packed = join(scope.ramDir(), "disk.raw.zst");
    run(["bash", "-c", `zstd -q1 < ${device} > ${packed}`]);
    run(["split", "-b", "50M", device, `${packed}.parts.`]);
    for (const [path, sourceFormat] of [
      [packed, "a raw image, compressed (zst)"],
      [`${packed}.parts.aa`, "a raw image"],
    ]) {
      const { raw, done } = await captureTo(scope, path);
      expect(done).toMatchObject({ sourceFormat, unusedBytes: 0 });
      expectSameBytes(raw, device, Number(done.diskBytes));
    }
  });
});

describe.skipIf(!isRoot)("an image of partclone is refused in one line:", () => {
  const shared = new Scope();
  let saved = "";
  beforeAll(async () => {
    saved = (await imaged(shared, "ext4")).image;
  }, 60_000);
  afterAll(() => shared.close());

  function copied(scope: Scope): string {
    const image = join(scope.ramDir(), "part.img");
    copyFileSync(saved, image);
    return image;
  }

  const DAMAGE: Record<string, { message: RegExp; spoil(image: string): void }> = {
    "cut off in its blocks": {
      message: /cannot unpack .*part\.img: partclone\.restore says: read ERROR/,
      spoil: (image) => truncateSync(image, Math.floor(statSync(image).size / 2)),
    },
    "cut off in its bitmap": {
      message: /cannot unpack .*part\.img: the image is cut off in its bitmap/,
      spoil: (image) => truncateSync(image, 2000),
    },
    "cut off in its head": {
      message: /cannot unpack .*part\.img: the image is cut off in its head/,
      spoil: (image) => truncateSync(image, 100),
    },
    "with a wrong block": {
      message: /cannot unpack .*part\.img: partclone\.restore says: (?:CRC|checksum) error/,
      spoil: (image) => overwrite(image, 2 * MIB, (bytes) => bytes.fill(bytes[0] ^ 1)),
    },
    "with a wrong bitmap": {
      message: /the image has a damaged bitmap: its checksum is wrong/,
      spoil: (image) => overwrite(image, 300, (bytes) => bytes.fill(0x55), 16),
    },
    "with a wrong head": {
      message: /the image has a damaged head: its checksum is wrong/,
      spoil: (image) => overwrite(image, 60, (bytes) => bytes.fill(0x55), 4),
    },
  };
  for (const [name, { message, spoil }] of Object.entries(DAMAGE)) {
    scopedTest(name, async (scope) => {
      const image = copied(scope);
      spoil(image);
      await expectFailure(scope, image, FAILED, message);
    });
  }

  scopedTest("compressed and cut off, of a format that cannot be read, a part that is missing", async (scope) => {
    const image = copied(scope);
    const packed = compressed(image, "gzip", "-k1");
    run(["split", "-b", "1M", packed, `${packed}.`]);
    truncateSync(packed, Math.floor(statSync(packed).size / 2));
    await expectFailure(scope, packed, FAILED, /part\.img\.gz: gzip says: .*unexpected end of file/);
    unlinkSync(`${packed}.ab`);
    await expectFailure(scope, `${packed}.aa`, FAILED, /part\.img\.gz\.ab is missing/);
    const part = `${packed}.ac`;
    await expectFailure(
      scope,
      part,
      FAILED,
      /\.ac is a part of an image that was split: name its first file, .*\.aa$/m,
    );
    const first = `${packed}.aa`;
    writeFileSync(`${packed}.ab`, "");
    const torrent = join(scope.ramDir(), "x.torrent");
    await fail(scope, ["capture", first, "-o", torrent, "--save", part], FAILED, /the source itself consists of it/);
    const nested = join(scope.ramDir(), "disk.qcow2");
    run(["qemu-img", "create", "-q", "-f", "qcow2", nested, "1M"]);
    run(["gzip", nested]);
    await expectFailure(scope, `${nested}.gz`, FAILED, /disk\.qcow2\.gz holds a qcow2 image: unpack it/);
    overwrite(image, 0, (bytes) => void bytes.write("PaRtImAgE-VoLuMe"));
    await expectFailure(scope, image, FAILED, /is an image of partimage, which cannot be opened/);
  });

  scopedTest("tools that are missing or too old, no room", async (scope) => {
    const image = copied(scope);
    const packed = compressed(image, "gzip", "-k1");
    const without = (replaced: Record<string, string | null>) => toolsWith(scope, replaced, TOOLS);
    const missing = /gzip is not installed: install the package gzip$/m;
    await expectFailure(scope, packed, FAILED, missing, [], without({ gzip: null }));
    const noPartclone = /partclone\.restore is not installed: install the package partclone$/m;
    await expectFailure(scope, image, FAILED, noPartclone, [], without({ "partclone.restore": null }));
    const old = without({ "partclone.restore": `echo "Unknown option '-E'." >&2; exit 1` });
    await expectFailure(scope, image, FAILED, /install a newer package partclone$/m, [], old);
    const full = smallTmpfs(scope, 2 * MIB);
    const torrent = join(scope.ramDir(), "x.torrent");
    const capture = start(scope, ["capture", image, "-o", torrent, "--save", join(full, "x.raw")]);
    const { stderr } = await capture.expectExit(FAILED);
    expect(stderr).toMatch(/cannot save to .*x\.raw: it takes up to .* and its filesystem has 2\.00 MiB free/);
    expect([readdirSync(full), existsSync(torrent)]).toEqual([[], false]);
  });

  scopedTest("with its own program's word also where SIGPIPE is ignored, as services have it", async (scope) => {
    const image = copied(scope);
    const packed = compressed(image, "zstd", "-kq1");
    const ignoring = { prefix: ["bash", "-c", 'trap \'\' PIPE; exec "$0" "$@"'] };
    const folder = scope.ramDir();
    const words = ["capture", packed, "-o", join(folder, "x.torrent"), "--save", join(folder, "x.raw")];
    await succeed(scope, words, ignoring);
    overwrite(image, 1 * MIB, (bytes) => bytes.fill(bytes[0] ^ 1));
    run(["zstd", "-kfq1", image]);
    await fail(scope, words, FAILED, /partclone\.restore says: (?:CRC|checksum) error/, ignoring);
  });

  scopedTest("interrupted while it is unpacked: its programs end and nothing is left", async (scope) => {
    const image = copied(scope);
    const packed = compressed(image, "gzip", "-k1");
    const [folder, temporary, started] = [scope.ramDir(), scope.ramDir(), join(scope.ramDir(), "pid")];
    const slow = `case "$*" in *-O*) echo $$ > ${started}; exec sleep 1000;; esac`;
    const env = { ...toolsWith(scope, { "partclone.restore": slow }, TOOLS), TMPDIR: temporary };
    const words = ["capture", packed, "-o", join(folder, "x.torrent"), "--save", join(folder, "x.raw")];
    const capture = start(scope, words, { env });
    await until("it is unpacked", () => existsSync(started) && statSync(started).size > 0);
    const pid = (await Bun.file(started).text()).trim();
    capture.child.signal("SIGINT");
    await capture.expectExit(130);
    expect([existsSync(`/proc/${pid}`), readdirSync(folder), readdirSync(temporary)]).toEqual([false, [], []]);
  });
});
