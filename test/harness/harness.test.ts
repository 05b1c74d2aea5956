/** Shows that the harness itself can be believed, with stock tools in the place of the program. */
import { describe, expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { libtorrent } from "./clients.ts";
import { expectSame, expectSameBytes, gapsBetween } from "./compare.ts";
import { fillRandom, scatteredExtents, stampedImage, writeStamped } from "./image.ts";
import { loopDevice } from "./loop.ts";
import { freePort } from "./ports.ts";
import { Child, run } from "./process.ts";
import { type Scope, scopedTest } from "./scope.ts";
import { isRoot, PYTHON } from "./tools.ts";
import { infoHashOf, singleTorrent, writeTorrent } from "./torrents.ts";
import { denyUring } from "./diskswarm.ts";
import { Message, TestClient, frame, handshake, testSeeder } from "./wire-peer.ts";

const MIB = 1024 * 1024;

scopedTest("a sector at a wrong place is named by what it says about itself", async (scope) => {
  const folder = scope.tempDir();
  const right = stampedImage(join(folder, "right"), MIB, 5);
  const wrong = stampedImage(join(folder, "wrong"), MIB, 5);
  run(["dd", `if=${right}`, `of=${wrong}`, "bs=512", "skip=7", "seek=100", "count=1", "conv=notrunc", "status=none"]);
  expect(() => expectSameBytes(wrong, right, MIB)).toThrow(
    /first at byte 51205 .*found the sector of byte 3584, seed 5; expected the sector of byte 51200, seed 5/,
  );
  expectSame(wrong, right, gapsBetween([{ offsetBytes: 51200, lengthBytes: 512 }], MIB));
});

test("scattered extents are disjoint, aligned and of odd lengths", () => {
  const extents = scatteredExtents(5000, 128 * MIB, [512, 1024, 4096], 1);
  let end = 0;
  for (const { offsetBytes, lengthBytes } of extents) {
    expect(offsetBytes).toBeGreaterThan(end - 1);
    expect(lengthBytes % 512).toBe(0);
    expect(lengthBytes).toBeGreaterThan(0);
    end = offsetBytes + lengthBytes;
  }
  expect(end).toBeLessThanOrEqual(128 * MIB);
  expect(extents.some(({ lengthBytes }) => lengthBytes % 4096 !== 0)).toBe(true);
});

scopedTest("the hand-written seeder serves libtorrent, and libtorrent refuses its lies", async (scope) => {
  const folder = scope.tempDir();
  const source = stampedImage(join(folder, "image.raw"), 3 * MIB + 700, 2);
  const { path, infoHash } = writeTorrent(join(folder, "t.torrent"), singleTorrent(source, 3 * MIB + 700, 256 * 1024));
  expect(infoHashOf(path)).toEqual(infoHash);
  const options = {
    infoHash,
    source,
    extents: [{ offsetBytes: 0, lengthBytes: 3 * MIB + 700 }],
    pieceBytes: 256 * 1024,
  };
  const honest = await testSeeder(scope, { ...options, host: "127.0.0.2" });
  const liar = await testSeeder(scope, {
    ...options,
    host: "127.0.0.3",
    corrupt: (_piece, _begin, block) => {
      block[0]! ^= 1;
    },
  });
  for (const name of ["honest", "liar"]) mkdirSync(join(folder, name));
  const at = { address: "127.0.0.1", port: await freePort() };
  const good = libtorrent(
    scope,
    { torrent: path, folder: join(folder, "honest"), seeds: false, peers: [honest.peer] },
    at,
  );
  await good.waitForLine(/^finished/);
  expectSameBytes(join(folder, "honest", "image.raw"), source, 3 * MIB + 700);
  const bad = libtorrent(
    scope,
    { torrent: path, folder: join(folder, "liar"), seeds: false, peers: [liar.peer] },
    { ...at, port: await freePort() },
  );
  await bad.waitForLine(/^hash-failed/);
});

/** libtorrent now and then closes a connection that comes in the moment it begins to seed; the next one is served. */
async function unchokedClient(
  scope: Scope,
  at: { host: string; port: number },
  infoHash: Uint8Array,
): Promise<TestClient> {
  for (let attempt = 1; ; attempt++) {
    const client = await TestClient.connect(scope, at);
    client.send(handshake(infoHash), frame(Message.interested));
    try {
      await client.received(Message.unchoke);
      return client;
    } catch (error) {
      if (attempt === 5) throw error;
      await Bun.sleep(200);
    }
  }
}

scopedTest("the hand-written client is served by libtorrent", async (scope) => {
  const folder = scope.tempDir();
  const source = stampedImage(join(folder, "image.raw"), MIB, 3);
  const { path, infoHash } = writeTorrent(join(folder, "t.torrent"), singleTorrent(source, MIB, 256 * 1024));
  const at = { address: "127.0.0.1", port: await freePort() };
  await libtorrent(scope, { torrent: path, folder, seeds: true }, at).waitForLine(/^seeding/);
  const client = await unchokedClient(scope, { host: at.address, port: at.port }, infoHash);
  client.send(frame(Message.request, 2, 16384, 16384));
  const block = await client.received(Message.piece);
  expect(
    block.subarray(8).equals(
      Buffer.from(
        await Bun.file(source)
          .slice(2 * 256 * 1024 + 16384, 2 * 256 * 1024 + 32768)
          .arrayBuffer(),
      ),
    ),
  ).toBe(true);
});

test("io_uring is denied to what the launcher starts", () => {
  const probe = "import ctypes,os; l=ctypes.CDLL(None,use_errno=True); l.syscall(425,4,0); print(ctypes.get_errno())";
  expect(run([...denyUring("EPERM"), PYTHON, "-c", probe]).trim()).toBe("1");
  expect(run([...denyUring("ENOSYS"), PYTHON, "-c", probe]).trim()).toBe("38");
});

scopedTest("a line that never comes fails with the end of the process", async (scope) => {
  const child = new Child(scope, ["sh", "-c", "echo one; exit 3"]);
  expect(await child.waitForLine(/one/)).toBe("one");
  await expect(child.waitForLine(/two/)).rejects.toThrow("ended without");
  expect((await child.ended).exitCode).toBe(3);
});

describe.skipIf(!isRoot)("as root", () => {
  scopedTest("a loop device is dirty, has the sector size asked for, and is detached at the end", async (scope) => {
    const device = loopDevice(scope, 4 * MIB, { sectorBytes: 4096, dirty: true });
    expect(run(["blockdev", "--getss", device.path]).trim()).toBe("4096");
    const expected = join(scope.tempDir(), "expected");
    await Bun.write(expected, new Uint8Array(4 * MIB));
    fillRandom(expected, 4 * MIB);
    expectSameBytes(device.path, expected, 4 * MIB);
    writeStamped(device.path, [{ offsetBytes: 8192, lengthBytes: 4096 }], 9);
    expect(() => expectSameBytes(device.path, expected, 4 * MIB)).toThrow(/sector of byte 8192, seed 9/);
  });
});
