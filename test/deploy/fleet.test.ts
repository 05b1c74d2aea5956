/** A room of nodes imaged from one command of the admin's. */
import { expect } from "bun:test";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { start } from "../harness/diskswarm.ts";
import { MIB, NODE_HOST, capturedImage } from "../harness/fixture.ts";
import { scatteredExtents } from "../harness/image.ts";
import { freePort } from "../harness/ports.ts";
import { scopedTest } from "../harness/scope.ts";
import { infoHashOf } from "../harness/torrents.ts";

const NODES = 10;
const DISK_BYTES = 64 * MIB;

scopedTest(`${NODES} nodes from one serve, each told nothing but a URL`, async (scope) => {
  const image = await capturedImage(scope, DISK_BYTES, { extents: scatteredExtents(100, DISK_BYTES, [4096], 41) });
  const httpPort = await freePort(NODE_HOST);
  const serving = start(scope, [
    "serve",
    image.path,
    "--listen",
    NODE_HOST,
    "--http",
    String(httpPort),
    "--port",
    String(await freePort(NODE_HOST)),
  ]);
  await serving.event("start");
  const url = `http://${NODE_HOST}:${httpPort}/torrents/image.torrent`;
  const nodes = await Promise.all(
    Array.from({ length: NODES }, async () => {
      const target = join(scope.ramDir(), "target");
      const at = ["--listen", NODE_HOST, "--port", String(await freePort(NODE_HOST))];
      return {
        target,
        run: start(scope, ["deploy", url, target, "--force", "--memory", "16M", "--linger", "swarm", ...at]),
      };
    }),
  );
  for (const { run, target } of nodes) {
    await run.expectExit(0);
    expect((await run.done()).flushed).toBe(true);
    expectSameBytes(target, image.path, DISK_BYTES);
  }
});

scopedTest("the tracker answers for what it was given and nothing else", async (scope) => {
  const image = await capturedImage(scope, MIB);
  const port = await freePort();
  const tracker = start(scope, [
    "track",
    "--listen",
    "127.0.0.1",
    "--http",
    String(port),
    "--udp",
    String(port),
    "--allow",
    image.torrent,
  ]);
  await tracker.event("start");
  const announce = async (infoHash: Uint8Array) => {
    const escaped = [...infoHash].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
    const query = `info_hash=${escaped}&peer_id=-XX0001-abcdefghijkl&port=6881&uploaded=0&downloaded=0&left=1&compact=1`;
    return (await fetch(`http://127.0.0.1:${port}/announce?${query}`)).text();
  };
  expect(await announce(infoHashOf(image.torrent))).toContain("8:interval");
  const refusal = await announce(new Uint8Array(20).fill(0xab));
  expect(refusal).toContain("14:failure reason");
  expect(refusal).not.toContain("8:interval");
});
