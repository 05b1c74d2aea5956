/** Peers that lie and peers that misbehave: the deployment completes from honest ones, or fails and says so. */
import { expect } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import {
  MIB,
  PIECE_BYTES,
  SEEDER_HOST,
  capturedImage,
  deploy,
  loopbackSeeder,
  startDeploy,
  type Image,
} from "../harness/fixture.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { infoHashOf } from "../harness/torrents.ts";
import {
  Message,
  TestClient,
  frame,
  handshake,
  testSeeder,
  type SeederOptions,
  type TestSeeder,
} from "../harness/wire-peer.ts";

const IMAGE_BYTES = 64 * MIB;
const LIAR_HOST = "127.0.0.3";
const MUTE_HOST = "127.0.0.4";

function seederOf(scope: Scope, image: Image, host: string, manners: Partial<SeederOptions>): Promise<TestSeeder> {
  return testSeeder(scope, {
    host,
    infoHash: infoHashOf(image.torrent),
    source: image.path,
    extents: [{ offsetBytes: 0, lengthBytes: image.lengthBytes }],
    pieceBytes: PIECE_BYTES,
    ...manners,
  });
}

function flipOneBit(_piece: number, _beginBytes: number, block: Buffer): void {
  block[block.length - 1]! ^= 0x10;
}

scopedTest("a peer that sends wrong data is banned by name and the deployment completes", async (scope) => {
  const image = await capturedImage(scope, IMAGE_BYTES);
  const liar = await seederOf(scope, image, LIAR_HOST, { corrupt: flipOneBit });
  const honest = await loopbackSeeder(scope, image.torrent, image.path);
  const target = join(scope.ramDir(), "target");
  const run = await startDeploy(scope, image.torrent, target, [liar.peer, honest.peer]);
  const warning = await run.event("warning", ({ message }) => String(message).includes(LIAR_HOST));
  expect(String(warning.message)).toContain(liar.peer);
  await run.expectExit(0);
  expectSameBytes(target, image.path, IMAGE_BYTES);
  // Once it was caught, nothing more was asked of it: until then the pieces that were begun, and those whose hashes
  // were still to come, which are more where hashing is slow.
  expect(liar.requests()).toBeLessThan(IMAGE_BYTES / 16384 / 4);
});

scopedTest("a peer whose lie is in one block alone is found", async (scope) => {
  const image = await capturedImage(scope, 8 * MIB);
  const liar = await seederOf(scope, image, LIAR_HOST, {
    corrupt: (piece, beginBytes, block) => {
      if (piece === 5 && beginBytes === 16384) block.fill(0);
    },
  });
  const target = join(scope.ramDir(), "target");
  const run = await startDeploy(scope, image.torrent, target, [liar.peer], ["--timeout", "5s"]);
  const { stderr } = await run.expectExit(3);
  expect(stderr).toContain(LIAR_HOST);
});

scopedTest("wrong data from the only seeder: exit 3, never done", async (scope) => {
  const image = await capturedImage(scope, 8 * MIB);
  const liar = await seederOf(scope, image, LIAR_HOST, { corrupt: flipOneBit });
  const run = await startDeploy(scope, image.torrent, join(scope.ramDir(), "target"), [liar.peer], ["--timeout", "5s"]);
  const { stderr } = await run.expectExit(3);
  expect(stderr).toContain(LIAR_HOST);
  expect(run.events.some(({ event }) => event === "done")).toBe(false);
});

scopedTest("a peer that never answers holds nothing up for ever", async (scope) => {
  const image = await capturedImage(scope, 16 * MIB);
  const mute = await seederOf(scope, image, MUTE_HOST, { mute: true });
  const honest = await loopbackSeeder(scope, image.torrent, image.path);
  const target = join(scope.ramDir(), "target");
  await deploy(scope, image.torrent, target, [mute.peer, honest.peer]);
  expectSameBytes(target, image.path, image.lengthBytes);
});

const OVERSIZE = 64 * MIB;

/** What a client says after the handshake, each a reason to be dropped. */
const OFFENCES: Record<string, (pieceCount: number) => Buffer[]> = {
  "a frame longer than the limit": () => [Buffer.from([OVERSIZE >>> 24, (OVERSIZE >> 16) & 255, 0, 0, 20])],
  "a request beyond the end of a piece": () => [
    frame(Message.interested),
    frame(Message.request, 0, PIECE_BYTES - 1024, 16384),
  ],
  "a request of a piece that does not exist": (pieceCount) => [
    frame(Message.interested),
    frame(Message.request, pieceCount, 0, 16384),
  ],
  "a request of 4 GiB": () => [frame(Message.interested), frame(Message.request, 0, 0, 0xffffffff)],
  "a have of a piece that does not exist": (pieceCount) => [frame(Message.have, pieceCount)],
  "a bitfield of the wrong length": (pieceCount) => [
    frame(Message.bitfield, Buffer.alloc(Math.ceil(pieceCount / 8) + 1)),
  ],
  "a block that nobody asked for, a thousand times": () =>
    Array.from({ length: 1000 }, () => frame(Message.piece, 0, 0, Buffer.alloc(16384))),
};

scopedTest("clients that break the protocol are dropped, and all others are served", async (scope) => {
  const image = await capturedImage(scope, 32 * MIB);
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  const at = { host: SEEDER_HOST, port: seeder.port };
  const infoHash = infoHashOf(image.torrent);
  const greet = async () => {
    const client = await TestClient.connect(scope, at);
    client.send(handshake(infoHash));
    await client.greeted();
    return client;
  };
  const patient = await greet();
  for (const offence of Object.values(OFFENCES)) {
    const client = await greet();
    client.send(...offence(image.lengthBytes / PIECE_BYTES));
    await client.dropped;
  }
  const stranger = await TestClient.connect(scope, at);
  stranger.send(Buffer.from("GET / HTTP/1.1\r\n\r\n".padEnd(200)));
  await stranger.dropped;
  const wrongTorrent = await TestClient.connect(scope, at);
  wrongTorrent.send(handshake(new Uint8Array(20)));
  await wrongTorrent.dropped;
  patient.send(frame(Message.interested));
  await patient.received(Message.unchoke);
  patient.send(frame(Message.request, 3, 0, 16384));
  expect((await patient.received(Message.piece)).readUInt32BE(0)).toBe(3);
  const target = join(scope.ramDir(), "target");
  await deploy(scope, image.torrent, target, [seeder.peer]);
  expectSameBytes(target, image.path, image.lengthBytes);
});

scopedTest("connections that say nothing do not keep a node out", async (scope) => {
  const image = await capturedImage(scope, 8 * MIB);
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  for (let i = 0; i < 100; i++) await TestClient.connect(scope, { host: SEEDER_HOST, port: seeder.port });
  const target = join(scope.ramDir(), "target");
  await deploy(scope, image.torrent, target, [seeder.peer]);
  expectSameBytes(target, image.path, image.lengthBytes);
});
