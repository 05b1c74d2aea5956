/**
 * Our peer with each stock client, one machine (network namespace) per peer: they seed to us, we seed to
 * them, and all of them in one swarm under opentracker and under our own tracker.
 */
import { describe, expect } from "bun:test";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import {
  CLIENT_PORT,
  STOCK_CLIENTS,
  libtorrentMake,
  seedersKnown,
  startClient,
  startOpentracker,
  trackerUrl,
  type StockClient,
} from "../harness/clients.ts";
import { expectSame, expectSameBytes } from "../harness/compare.ts";
import { capture, seed, start, type Run } from "../harness/diskswarm.ts";
import { scatteredExtents, stampedImage } from "../harness/image.ts";
import { Network, type Machine } from "../harness/network.ts";
import { run } from "../harness/process.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { infoHashOf } from "../harness/torrents.ts";

const MIB = 1024 * 1024;
/** An odd number of bytes: the last piece, block and sector are short. */
const IMAGE_BYTES = 24 * MIB + 4321;
const PIECE_BYTES = 256 * 1024;

interface Swarm {
  readonly folder: string;
  readonly image: string;
  readonly torrent: string;
  readonly infoHash: Uint8Array;
  readonly trackerMachine: Machine;
}

/** An ordinary file and its torrent, made by libtorrent, that names the tracker of `trackerMachine`. */
function singleFileSwarm(scope: Scope, network: Network): Swarm {
  const trackerMachine = network.machine();
  const folder = scope.ramDir();
  const image = stampedImage(join(folder, "image.raw"), IMAGE_BYTES, 51);
  const torrent = libtorrentMake(image, join(folder, "image.torrent"), PIECE_BYTES, trackerUrl(trackerMachine));
  return { folder, image, torrent, infoHash: infoHashOf(torrent), trackerMachine };
}

function deployOn(scope: Scope, machine: Machine, torrent: string, target: string, flags: readonly string[] = []): Run {
  const at = ["--listen", machine.address, "--port", String(CLIENT_PORT)];
  return start(scope, ["deploy", torrent, target, "--force", ...at, ...flags], { machine });
}

async function expectProof(deployment: Run, target: string, image: string, lengthBytes: number): Promise<void> {
  const done = await deployment.done();
  expect(done.flushed).toBe(true);
  expectSameBytes(target, image, lengthBytes);
}

/** The client's own folder for a download. */
function folderFor(swarm: Swarm, name: string): string {
  const folder = join(swarm.folder, name);
  mkdirSync(folder);
  return folder;
}

describe.skipIf(!isRoot)("one stock client and us", () => {
  for (const kind of STOCK_CLIENTS) {
    for (const encryption of [false, true]) {
      const name = `${kind}${encryption ? ", which prefers encryption," : ""}`;

      scopedTest(`${name} seeds to us`, async (scope) => {
        const network = new Network(scope);
        const swarm = singleFileSwarm(scope, network);
        const tracker = await startOpentracker(scope, swarm.trackerMachine, swarm.infoHash);
        const client = startClient(scope, kind, network.machine(), { ...swarm, seeds: true, encryption });
        await client.complete();
        await seedersKnown(swarm.trackerMachine, tracker.url, swarm.infoHash, 1);
        const target = join(swarm.folder, "target");
        const deployment = deployOn(scope, network.machine(), swarm.torrent, target);
        await deployment.expectExit(0);
        await expectProof(deployment, target, swarm.image, IMAGE_BYTES);
        expect(Bun.file(target).size).toBe(IMAGE_BYTES);
      });

      scopedTest(`we seed to ${name}`, async (scope) => {
        const network = new Network(scope);
        const swarm = singleFileSwarm(scope, network);
        const tracker = await startOpentracker(scope, swarm.trackerMachine, swarm.infoHash);
        const machine = network.machine();
        await seed(scope, swarm.torrent, swarm.image, { host: machine.address, port: CLIENT_PORT }, [], { machine });
        await seedersKnown(swarm.trackerMachine, tracker.url, swarm.infoHash, 1);
        const folder = folderFor(swarm, "theirs");
        const client = startClient(scope, kind, network.machine(), {
          torrent: swarm.torrent,
          folder,
          seeds: false,
          encryption,
        });
        await client.complete();
        expectSameBytes(join(folder, "image.raw"), swarm.image, IMAGE_BYTES);
      });
    }
  }

  for (const kind of STOCK_CLIENTS) {
    scopedTest(`${kind} downloads the extents of our capture from us, and seeds them to a disk`, async (scope) => {
      const network = new Network(scope);
      const trackerMachine = network.machine();
      const folder = scope.ramDir();
      const extents = scatteredExtents(30, 32 * MIB, [4096], 61);
      const image = stampedImage(join(folder, "image.raw"), 32 * MIB, 61, extents);
      const torrent = await capture(
        scope,
        image,
        join(folder, "image.torrent"),
        "--tracker",
        trackerUrl(trackerMachine),
        "--merge-gap",
        "0",
      );
      const infoHash = infoHashOf(torrent);
      const tracker = await startOpentracker(scope, trackerMachine, infoHash);
      const machine = network.machine();
      const seeder = await seed(scope, torrent, image, { host: machine.address, port: CLIENT_PORT }, [], { machine });
      await seedersKnown(trackerMachine, tracker.url, infoHash, 1);
      const theirs = join(folder, "theirs");
      mkdirSync(theirs);
      const client = startClient(scope, kind, network.machine(), { torrent, folder: theirs, seeds: false });
      await client.complete();
      expectExtentFiles(theirs, image);
      await seeder.run.child.stop();
      const target = join(folder, "target");
      const deployment = deployOn(scope, network.machine(), torrent, target);
      await deployment.expectExit(0);
      await expectProof(deployment, target, image, 32 * MIB);
    });
  }
});

/** Each file of the one folder in `folder` is named by its disk offset and holds what the image has there. */
function expectExtentFiles(folder: string, image: string): void {
  const inner = join(folder, readdirSync(folder, { withFileTypes: true }).find((entry) => entry.isDirectory())!.name);
  const names = readdirSync(inner);
  expect(names.length).toBeGreaterThan(1);
  for (const name of names) {
    const offsetBytes = Number.parseInt(name, 16);
    const lengthBytes = Bun.file(join(inner, name)).size;
    const part = join(folder, "part");
    run([
      "dd",
      `if=${image}`,
      `of=${part}`,
      "bs=4096",
      `skip=${offsetBytes / 4096}`,
      `count=${lengthBytes / 4096}`,
      "status=none",
    ]);
    expectSame(join(inner, name), part, [{ offsetBytes: 0, lengthBytes }]);
  }
}

/** One of each stock client and two of our nodes download from one seeder of ours; then every result is compared. */
async function mixedSwarm(scope: Scope, network: Network, swarm: Swarm, url: string): Promise<void> {
  const machine = network.machine();
  machine.shape(200);
  await seed(scope, swarm.torrent, swarm.image, { host: machine.address, port: CLIENT_PORT }, [], { machine });
  await seedersKnown(swarm.trackerMachine, url, swarm.infoHash, 1);
  const theirs = STOCK_CLIENTS.map((kind: StockClient) => {
    const folder = folderFor(swarm, kind);
    return {
      folder,
      client: startClient(scope, kind, network.machine(), { torrent: swarm.torrent, folder, seeds: false }),
    };
  });
  const ours = ["a", "b"].map((name) => {
    const target = join(swarm.folder, name);
    return { target, deployment: deployOn(scope, network.machine(), swarm.torrent, target, ["--linger", "swarm"]) };
  });
  await Promise.all(ours.map(({ deployment, target }) => expectProof(deployment, target, swarm.image, IMAGE_BYTES)));
  for (const { client, folder } of theirs) {
    await client.complete();
    expectSameBytes(join(folder, "image.raw"), swarm.image, IMAGE_BYTES);
  }
}

describe.skipIf(!isRoot)("a swarm of aria2, libtorrent, transmission and us", () => {
  scopedTest("with opentracker", async (scope) => {
    const network = new Network(scope);
    const swarm = singleFileSwarm(scope, network);
    const tracker = await startOpentracker(scope, swarm.trackerMachine, swarm.infoHash);
    await mixedSwarm(scope, network, swarm, tracker.url);
  });

  scopedTest("with our tracker", async (scope) => {
    const network = new Network(scope);
    const swarm = singleFileSwarm(scope, network);
    const machine = swarm.trackerMachine;
    const tracker = start(scope, ["track", "--listen", machine.address, "--allow", swarm.torrent], { machine });
    await tracker.event("start");
    await mixedSwarm(scope, network, swarm, trackerUrl(machine));
  });
});
