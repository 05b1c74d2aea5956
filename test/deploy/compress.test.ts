/**
 * Compressed blocks over real links: what crosses them, who forwards what, and what becomes of those who send blocks
 * that do not inflate. Links are shaped in namespaces, because nothing is compressed on fast ones.
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, seed, start, type DoneEvent, type Run } from "../harness/diskswarm.ts";
import { MIB, NODE_HOST, PIECE_BYTES, SEEDER_HOST } from "../harness/fixture.ts";
import { fillHalfEmpty, fillRandom, halfEmptyImage, sparseFile, stampedImage } from "../harness/image.ts";
import { type Machine, Network } from "../harness/network.ts";
import { freePort } from "../harness/ports.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { infoHashOf } from "../harness/torrents.ts";
import { testSeeder } from "../harness/wire-peer.ts";

const MEGABITS = 100;
const PORT = 6881;
const IMAGE_BYTES = 48 * MIB;
/** Frames, TCP and Ethernet headers, requests of the other way round. */
const OVERHEAD = 1.06;
/** Half, and what goes out plain until the switch is thrown. */
const PACKED_SHARE = 0.7;

interface Fleet {
  readonly image: string;
  readonly torrent: string;
  readonly network: Network;
  readonly seeder: Machine;
  readonly peer: string;
  readonly seeding: Run;
}

/** A seeder behind a slow line. */
async function fleet(
  scope: Scope,
  make: (path: string) => string,
  torrentFlags: readonly string[] = [],
): Promise<Fleet> {
  const folder = scope.ramDir();
  const image = make(join(folder, "image.raw"));
  const torrent = await capture(scope, image, join(folder, "image.torrent"), "--piece-size", "1M", ...torrentFlags);
  const network = new Network(scope);
  const seeder = network.machine();
  seeder.shape(MEGABITS);
  const at = { host: seeder.address, port: PORT };
  const { run, peer } = await seed(scope, torrent, image, at, [], { machine: seeder });
  return { image, torrent, network, seeder, peer, seeding: run };
}

function startNode(scope: Scope, { torrent }: Fleet, machine: Machine, peers: readonly string[], flags: string[] = []) {
  const target = join(scope.ramDir(), "target");
  const named = peers.flatMap((peer) => ["--peer", peer]);
  return { target, run: start(scope, ["deploy", torrent, target, "--force", ...named, ...flags], { machine }) };
}

function interfaceBytes(machine: Machine, direction: "rx" | "tx"): number {
  return Number(machine.run("cat", `/sys/class/net/eth0/statistics/${direction}_bytes`));
}

/** One node fetches the image. Returns what it says of it and what crossed its interface. */
async function fetchOnce(scope: Scope, all: Fleet, flags: string[] = []): Promise<{ done: DoneEvent; rx: number }> {
  const machine = all.network.machine();
  const before = interfaceBytes(machine, "rx");
  const { target, run } = startNode(scope, all, machine, [all.peer], flags);
  await run.expectExit(0);
  const done = await run.done();
  expectSameBytes(target, all.image, IMAGE_BYTES);
  expect(Number(done.bytesFetched)).toBe(IMAGE_BYTES);
  return { done, rx: interfaceBytes(machine, "rx") - before };
}

scopedTest("an image that packs to half crosses a slow link as little more than that", async (scope) => {
  const all = await fleet(scope, (path) => halfEmptyImage(path, IMAGE_BYTES, 1));
  const { done, rx } = await fetchOnce(scope, all);
  expect(Number(done.bytesReceived)).toBeLessThan(PACKED_SHARE * IMAGE_BYTES);
  expect(rx).toBeLessThan(PACKED_SHARE * OVERHEAD * IMAGE_BYTES);
  const small = await fetchOnce(scope, all, ["--memory", "16M"]);
  expect(small.rx).toBeLessThan(PACKED_SHARE * OVERHEAD * IMAGE_BYTES);
  const epoll = await fetchOnce(scope, all, ["--io", "epoll"]);
  expect(epoll.rx).toBeLessThan(PACKED_SHARE * OVERHEAD * IMAGE_BYTES);
  const off = await fetchOnce(scope, all, ["--compress", "off"]);
  expect(Number(off.done.bytesReceived)).toBe(IMAGE_BYTES);
  expect(off.rx).toBeGreaterThan(IMAGE_BYTES);
});

scopedTest("an image that nothing packs crosses a slow link as it is", async (scope) => {
  const all = await fleet(scope, (path) => stampedImage(path, IMAGE_BYTES, 2));
  const { done, rx } = await fetchOnce(scope, all);
  expect(Number(done.bytesReceived)).toBeWithin(0.98 * IMAGE_BYTES, IMAGE_BYTES + 1);
  expect(rx).toBeWithin(IMAGE_BYTES * 0.98, IMAGE_BYTES * OVERHEAD);
});

scopedTest("of a mixed image the parts that pack are packed", async (scope) => {
  const part = 4 * MIB;
  const all = await fleet(scope, (path) => {
    sparseFile(path, IMAGE_BYTES);
    fillRandom(path, IMAGE_BYTES, 3);
    const halves = Array.from({ length: IMAGE_BYTES / part / 2 }, (_, i) => ({
      offsetBytes: 2 * i * part,
      lengthBytes: part,
    }));
    fillHalfEmpty(path, halves, 4);
    return path;
  });
  const { done, rx } = await fetchOnce(scope, all);
  // Half of it packs to half: three quarters, and what was passed over or sent before the switch was thrown.
  expect(Number(done.bytesReceived)).toBeWithin(0.74 * IMAGE_BYTES, 0.93 * IMAGE_BYTES);
  expect(rx).toBeLessThan(0.93 * OVERHEAD * IMAGE_BYTES);
});

scopedTest(
  "a node passes on packed blocks as they came, over a link on which it packs nothing itself",
  async (scope) => {
    const all = await fleet(scope, (path) => halfEmptyImage(path, IMAGE_BYTES, 5));
    const [first, second] = [all.network.machine(), all.network.machine()];
    for (const [here, there] of [
      [second, all.seeder],
      [all.seeder, second],
    ] as const)
      here.run("ip", "route", "add", "blackhole", `${there.address}/32`);
    const one = startNode(scope, all, first, [all.peer], ["--port", String(PORT), "--linger", "swarm"]);
    const two = startNode(scope, all, second, [`${first.address}:${PORT}`]);
    await two.run.expectExit(0);
    await one.run.expectExit(0);
    for (const { target } of [one, two]) expectSameBytes(target, all.image, IMAGE_BYTES);
    const done = await two.run.done();
    expect(Number(done.bytesFetched)).toBe(IMAGE_BYTES);
    expect(Number(done.bytesReceived)).toBeLessThan(0.8 * IMAGE_BYTES);
  },
);

scopedTest("a fleet of three behind slow links", async (scope) => {
  const all = await fleet(scope, (path) => halfEmptyImage(path, IMAGE_BYTES, 6));
  const machines = [0, 1, 2].map(() => all.network.machine());
  for (const machine of machines) machine.shape(MEGABITS);
  const before = interfaceBytes(all.seeder, "tx");
  const at = machines.map(({ address }) => `${address}:${PORT}`);
  const nodes = machines.map((machine) =>
    startNode(scope, all, machine, [all.peer, ...at], ["--port", String(PORT), "--linger", "swarm"]),
  );
  for (const { run, target } of nodes) {
    await run.expectExit(0);
    expectSameBytes(target, all.image, IMAGE_BYTES);
  }
  expect(interfaceBytes(all.seeder, "tx") - before).toBeLessThan(1.5 * IMAGE_BYTES);
  const received = await Promise.all(nodes.map(async ({ run }) => Number((await run.done()).bytesReceived)));
  expect(received.reduce((a, b) => a + b)).toBeLessThan(0.85 * 3 * IMAGE_BYTES);
});

type Packed = { length: number; payload: Uint8Array };

/** What a peer sends in place of a packed block, each a reason to end the connection. */
const LIES: Record<string, (block: Buffer) => Packed> = {
  "a frame that is cut off": (block) => ({ length: block.length, payload: packed(block).subarray(0, -1) }),
  "no zstd frame": (block) => ({ length: block.length, payload: Buffer.alloc(100, 0x55) }),
  "a frame whose content is longer": (block) => ({
    length: block.length,
    payload: packed(Buffer.concat([block, Buffer.alloc(1)])),
  }),
  "a frame whose content is shorter": (block) => ({ length: block.length, payload: packed(block.subarray(1)) }),
  "two frames": (block) => ({
    length: block.length,
    payload: Buffer.concat([packed(block.subarray(0, 100)), packed(block.subarray(100))]),
  }),
  "a frame that inflates past the length it names": (block) => ({ length: block.length, payload: bomb(block.length) }),
  "a frame that is corrupt inside": (block) => {
    const payload = Buffer.from(packed(block));
    payload.fill(0xff, 12, 24);
    return { length: block.length, payload };
  },
  "a frame that is longer than the block": (block) => ({
    length: block.length,
    payload: Buffer.concat([packed(block), Buffer.alloc(block.length)]),
  }),
  "another block": (block) => {
    const other = Buffer.from(block);
    other[100]! ^= 1;
    return { length: block.length, payload: packed(other) };
  },
};

function packed(block: Uint8Array): Uint8Array {
  return Bun.zstdCompressSync(block, { level: 1 });
}

/** A single segment of `length` bytes, with blocks that repeat a byte 128 KiB times, far more than that. */
function bomb(length: number): Buffer {
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0]);
  head.writeUInt32LE(length, 5);
  const block = (last: number) => Buffer.from([0x02 | last, 0x00, 0x10, 7]);
  return Buffer.concat([head, ...Array.from({ length: 1000 }, () => block(0)), block(1)]);
}

scopedTest(
  "packed blocks that are none end the connection, and the deployment completes without them",
  async (scope) => {
    const bytes = 32 * MIB;
    const folder = scope.ramDir();
    const image = halfEmptyImage(join(folder, "image.raw"), bytes, 7);
    const torrent = await capture(scope, image, join(folder, "image.torrent"), "--piece-size", "256K");
    const liars = await Promise.all(
      Object.values(LIES).map((pack, index) =>
        testSeeder(scope, {
          host: `127.0.0.${10 + index}`,
          infoHash: infoHashOf(torrent),
          source: image,
          extents: [{ offsetBytes: 0, lengthBytes: bytes }],
          pieceBytes: PIECE_BYTES,
          pack: (_piece, _begin, block) => pack(block),
        }),
      ),
    );
    const honestPeer = `${SEEDER_HOST}:${await freePort(SEEDER_HOST)}`;
    const target = join(scope.ramDir(), "target");
    const at = ["--listen", NODE_HOST, "--port", String(await freePort(NODE_HOST)), "--timeout", "60s"];
    const peers = [...liars.map(({ peer }) => peer), honestPeer].flatMap((peer) => ["--peer", peer]);
    const run = start(scope, ["deploy", torrent, target, "--force", ...at, ...peers]);
    // Nobody else is there yet: each of them is asked, and found out.
    for (const { peer } of liars) await run.event("warning", ({ message }) => String(message).includes(peer));
    const [host, port] = honestPeer.split(":") as [string, string];
    await seed(scope, torrent, image, { host, port: Number(port) });
    await run.expectExit(0);
    expectSameBytes(target, image, bytes);
    for (const liar of liars) expect(liar.requests()).toBeLessThanOrEqual(256);
  },
);

scopedTest("a peer that packs as it should is believed", async (scope) => {
  const bytes = 8 * MIB;
  const folder = scope.ramDir();
  const image = halfEmptyImage(join(folder, "image.raw"), bytes, 8);
  const torrent = await capture(scope, image, join(folder, "image.torrent"), "--piece-size", "256K");
  const { peer } = await testSeeder(scope, {
    host: "127.0.0.9",
    infoHash: infoHashOf(torrent),
    source: image,
    extents: [{ offsetBytes: 0, lengthBytes: bytes }],
    pieceBytes: PIECE_BYTES,
    pack: (_piece, _begin, block) => ({ length: block.length, payload: packed(block) }),
  });
  const target = join(scope.ramDir(), "target");
  const at = ["--listen", NODE_HOST, "--port", String(await freePort(NODE_HOST))];
  const run = start(scope, ["deploy", torrent, target, "--force", "--peer", peer, ...at]);
  await run.expectExit(0);
  expectSameBytes(target, image, bytes);
  expect(Number((await run.done()).bytesReceived)).toBeLessThan(0.6 * bytes);
});
