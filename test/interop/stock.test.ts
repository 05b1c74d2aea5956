/**
 * The stock clients among themselves, without our program: shows that the namespaces, the tracker and the
 * clients' settings work, so that a failure of the other tests of this folder is the program's.
 */
import { describe } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  STOCK_CLIENTS,
  libtorrentMake,
  seedersKnown,
  startClient,
  startOpentracker,
  trackerUrl,
} from "../harness/clients.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { stampedImage } from "../harness/image.ts";
import { Network } from "../harness/network.ts";
import { scopedTest } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";
import { infoHashOf } from "../harness/torrents.ts";

const IMAGE_BYTES = 8 * 1024 * 1024 + 4321;

describe.skipIf(!isRoot)("stock clients", () => {
  for (const seeder of STOCK_CLIENTS) {
    scopedTest(`${seeder} seeds to the others through opentracker`, async (scope) => {
      const network = new Network(scope);
      const trackerMachine = network.machine();
      const folder = scope.ramDir();
      const image = stampedImage(join(folder, "image.raw"), IMAGE_BYTES, 1);
      const torrent = libtorrentMake(image, join(folder, "image.torrent"), 256 * 1024, trackerUrl(trackerMachine));
      const infoHash = infoHashOf(torrent);
      const tracker = await startOpentracker(scope, trackerMachine, infoHash);
      const client = startClient(scope, seeder, network.machine(), { torrent, folder, seeds: true });
      await client.complete();
      await seedersKnown(trackerMachine, tracker.url, infoHash, 1);
      await Promise.all(
        STOCK_CLIENTS.filter((kind) => kind !== seeder).map(async (kind) => {
          const target = join(folder, kind);
          mkdirSync(target);
          await startClient(scope, kind, network.machine(), { torrent, folder: target, seeds: false }).complete();
          expectSameBytes(join(target, "image.raw"), image, IMAGE_BYTES);
        }),
      );
    });
  }
});
