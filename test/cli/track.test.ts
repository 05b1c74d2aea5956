/** `track` through its command line. */
import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { track } from "../../src/cli/track.ts";
import { Run } from "../harness/diskswarm.ts";
import { until } from "../harness/process.ts";
import { scopedTest } from "../harness/scope.ts";
import { announceQuery } from "../tracker/helpers.ts";
import { runWith } from "./helpers.ts";

/** A torrent of one piece and its info hash. */
function torrent(name: string): { bytes: string; infoHash: string } {
  const info = `d6:lengthi16384e4:name${name.length}:${name}12:piece lengthi16384e6:pieces20:${"x".repeat(20)}e`;
  return { bytes: `d4:info${info}e`, infoHash: new Bun.CryptoHasher("sha1").update(info).digest("hex") };
}

function escaped(infoHash: string): string {
  return infoHash.replace(/../g, "%$&");
}

async function answer(port: unknown, infoHash: string): Promise<string> {
  const query = announceQuery(1, { info_hash: escaped(infoHash) });
  return await (await fetch(`http://127.0.0.1:${port}/announce?${query}`)).text();
}

describe("refusals", () => {
  test("neither --allow nor --open", async () => {
    const ran = await runWith([track], ["track"]);
    expect([ran.code, ran.out]).toEqual([2, ""]);
    expect(ran.err).toContain("--allow TORRENT|DIR, or --open");
  });

  test("a torrent that is missing or is none", async () => {
    expect(await runWith([track], ["track", "--allow", "/nonexistent.torrent"])).toMatchObject({
      code: 1,
      err: expect.stringContaining("/nonexistent.torrent: no such file"),
    });
    expect(await runWith([track], ["track", "--allow", import.meta.path])).toMatchObject({
      code: 1,
      err: expect.stringContaining("track.test.ts"),
    });
  });
});

scopedTest("a folder's torrents are tracked, also those that come and go", async (scope) => {
  const folder = scope.tempDir();
  const [first, second] = [torrent("first"), torrent("second")];
  writeFileSync(join(folder, "first.torrent"), first.bytes);
  writeFileSync(join(folder, "broken.torrent"), "d4:info");
  const run = new Run(scope, ["track", "--allow", folder, "--http", "0", "--udp", "0", "--listen", "127.0.0.1"]);
  const start = await run.event("start");
  expect(start).toMatchObject({ command: "track", torrents: 1, open: false });
  expect(run.events.filter((event) => event.event === "warning")).toMatchObject([
    { message: expect.stringContaining("broken.torrent") },
  ]);
  expect(await answer(start.httpPort, first.infoHash)).toContain("5:peers");
  expect(await answer(start.httpPort, second.infoHash)).toContain("does not serve");
  writeFileSync(join(folder, "second.torrent"), second.bytes);
  await until("the new torrent is tracked", async () =>
    (await answer(start.httpPort, second.infoHash)).includes("5:peers"),
  );
  rmSync(join(folder, "first.torrent"));
  await until("the removed torrent is not", async () =>
    (await answer(start.httpPort, first.infoHash)).includes("does not serve"),
  );
  run.child.signal("SIGINT");
  await run.expectExit(130);
});

scopedTest("--open tracks anything; a second tracker on its port is told what to do", async (scope) => {
  const run = new Run(scope, ["track", "--open", "--http", "0", "--udp", "0"]);
  const start = await run.event("start");
  expect(await answer(start.httpPort, "ab".repeat(20))).toContain("5:peers");
  const other = new Run(scope, ["track", "--open", "--http", String(start.httpPort), "--udp", "0"]);
  const ended = await other.expectExit(1);
  expect(ended.stderr).toContain("--http PORT");
});
