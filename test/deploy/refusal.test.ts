/** Bad torrents and bad targets are refused with a reason, before the first write. */
import { describe, expect } from "bun:test";
import { mkdirSync, openSync, closeSync, constants, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { fail, start } from "../harness/diskswarm.ts";
import { MIB, PIECE_BYTES, capturedImage } from "../harness/fixture.ts";
import { encode } from "../harness/bencode.ts";
import { fillRandom, sparseFile, stampedImage } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { mountDevice } from "../harness/mounts.ts";
import { run } from "../harness/process.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { extentPath, extentTorrent, singleTorrent, writeTorrent, type TorrentFields } from "../harness/torrents.ts";

const TARGET_BYTES = 8 * MIB;
const REFUSED = 4;
/** Nobody listens there: what is refused must be refused before anyone is asked for data. */
const NOBODY = ["--peer", "127.0.0.9:9"];

/** A file of random bytes and a copy to compare it with. */
function dirtyFile(scope: Scope): { target: string; untouched: string } {
  const folder = scope.ramDir();
  const [target, untouched] = [join(folder, "target"), join(folder, "untouched")];
  for (const path of [target, untouched]) {
    sparseFile(path, TARGET_BYTES);
    fillRandom(path, TARGET_BYTES);
  }
  return { target, untouched };
}

/** The program must end with an error of one line, neither done nor with a stack, and the target as it was. */
async function expectRefusedTorrent(scope: Scope, torrent: string): Promise<void> {
  const { target, untouched } = dirtyFile(scope);
  const deployment = start(scope, ["deploy", torrent, target, "--force", "--timeout", "2s", ...NOBODY]);
  const { exitCode, stderr } = await deployment.ended;
  expect([1, 2, 3, REFUSED]).toContain(exitCode);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect(deployment.events.some(({ event }) => event === "done")).toBe(false);
  expectSameBytes(target, untouched, TARGET_BYTES);
}

const BROKEN: Record<string, (right: TorrentFields) => TorrentFields> = {
  "names that leave the folder": (right) => ({
    ...right,
    files: [{ path: ["..", "..", "etc", "passwd"], length: 4 * MIB }],
  }),
  "names that are no offsets": (right) => ({
    ...right,
    files: [
      { path: ["disk.img"], length: 2 * MIB },
      { path: ["readme"], length: 2 * MIB },
    ],
  }),
  "an offset beyond 2^53": (right) => ({ ...right, files: [{ path: ["f".repeat(32)], length: 4 * MIB }] }),
  "overlapping extents": (right) => ({
    ...right,
    files: [
      { path: [extentPath(0)], length: 2 * MIB },
      { path: [extentPath(MIB)], length: 2 * MIB },
    ],
  }),
  "extents out of order": (right) => ({
    ...right,
    files: [
      { path: [extentPath(6 * MIB)], length: 2 * MIB },
      { path: [extentPath(0)], length: 2 * MIB },
    ],
  }),
  "a piece too few": (right) => ({ ...right, pieces: right.pieces.subarray(20) }),
  "a piece too many": (right) => ({ ...right, pieces: Buffer.concat([right.pieces, Buffer.alloc(20)]) }),
  "half a hash": (right) => ({ ...right, pieces: right.pieces.subarray(0, right.pieces.length - 10) }),
  "a piece length of zero": (right) => ({ ...right, pieceBytes: 0 }),
  "a negative length": (right) => ({ ...right, files: [{ path: [extentPath(0)], length: -4 * MIB }] }),
  "no files": (right) => ({ ...right, files: [] }),
};

describe("a torrent with", () => {
  for (const [name, breakIt] of Object.entries(BROKEN)) {
    scopedTest(name, async (scope) => {
      const folder = scope.ramDir();
      const image = stampedImage(join(folder, "image.raw"), 4 * MIB, 1);
      const right = extentTorrent(image, [{ offsetBytes: 0, lengthBytes: 4 * MIB }], PIECE_BYTES);
      await expectRefusedTorrent(scope, writeTorrent(join(folder, "bad.torrent"), breakIt(right)).path);
    });
  }
});

scopedTest("a torrent cut short anywhere is refused", async (scope) => {
  const folder = scope.ramDir();
  const image = stampedImage(join(folder, "image.raw"), 4 * MIB, 1);
  const whole = readFileSync(writeTorrent(join(folder, "t.torrent"), singleTorrent(image, 4 * MIB, PIECE_BYTES)).path);
  for (const lengthBytes of [0, 1, 20, whole.length - 21, whole.length - 1]) {
    const torrent = join(folder, `cut-${lengthBytes}.torrent`);
    writeFileSync(torrent, whole.subarray(0, lengthBytes));
    await expectRefusedTorrent(scope, torrent);
  }
});

scopedTest("something that is no torrent is refused", async (scope) => {
  const folder = scope.ramDir();
  for (const bytes of [
    Buffer.from("<html>404</html>"),
    encode(["a", "list"]),
    Buffer.from(`${"l".repeat(5000)}${"e".repeat(5000)}`),
  ]) {
    const torrent = join(folder, "bad.torrent");
    writeFileSync(torrent, bytes);
    await expectRefusedTorrent(scope, torrent);
  }
});

describe("a target that is", () => {
  scopedTest("a directory", async (scope) => {
    const image = await capturedImage(scope, MIB);
    const folder = join(scope.ramDir(), "folder");
    mkdirSync(folder);
    await fail(scope, ["deploy", image.torrent, folder, "--force", ...NOBODY], REFUSED, /folder/);
  });

  scopedTest("missing", async (scope) => {
    const image = await capturedImage(scope, MIB);
    const path = join(scope.ramDir(), "no-such-disk");
    await fail(scope, ["deploy", image.torrent, path, ...NOBODY], REFUSED, /no-such-disk/);
    expect(await Bun.file(path).exists()).toBe(false);
  });

  scopedTest("an ordinary file, without --force", async (scope) => {
    const image = await capturedImage(scope, MIB);
    const { target, untouched } = dirtyFile(scope);
    await fail(scope, ["deploy", image.torrent, target, ...NOBODY], REFUSED, /--force/);
    expectSameBytes(target, untouched, TARGET_BYTES);
  });
});

describe.skipIf(!isRoot)("a device that is", () => {
  scopedTest("mounted", async (scope) => {
    const image = await capturedImage(scope, TARGET_BYTES);
    const device = loopDevice(scope, TARGET_BYTES);
    run(["mkfs.ext4", "-q", device.path]);
    const folder = mountDevice(scope, device.path);
    writeFileSync(join(folder, "precious"), "data");
    run(["sync", "-f", folder]);
    const before = readFileSync(device.backingPath);
    await fail(scope, ["deploy", image.torrent, device.path, ...NOBODY], REFUSED, /mounted/);
    await fail(scope, ["deploy", image.torrent, device.path, "--force", ...NOBODY], REFUSED, /mounted/);
    expect(readFileSync(device.backingPath).equals(before)).toBe(true);
  });

  scopedTest("held exclusively by another process", async (scope) => {
    const image = await capturedImage(scope, TARGET_BYTES);
    const device = loopDevice(scope, TARGET_BYTES, { dirty: true });
    const fd = openSync(device.path, constants.O_RDWR | constants.O_EXCL);
    scope.defer(() => closeSync(fd));
    const before = readFileSync(device.backingPath);
    await fail(scope, ["deploy", image.torrent, device.path, ...NOBODY], REFUSED, new RegExp(device.path));
    expect(readFileSync(device.backingPath).equals(before)).toBe(true);
  });

  scopedTest("too small", async (scope) => {
    const image = await capturedImage(scope, TARGET_BYTES);
    const device = loopDevice(scope, TARGET_BYTES - 4096, { dirty: true });
    const before = readFileSync(device.backingPath);
    await fail(scope, ["deploy", image.torrent, device.path, ...NOBODY], REFUSED, new RegExp(device.path));
    expect(readFileSync(device.backingPath).equals(before)).toBe(true);
  });

  scopedTest("read-only", async (scope) => {
    const image = await capturedImage(scope, TARGET_BYTES);
    const device = loopDevice(scope, TARGET_BYTES, { dirty: true, readOnly: true });
    await fail(scope, ["deploy", image.torrent, device.path, ...NOBODY], REFUSED, /read-only/i);
  });
});
