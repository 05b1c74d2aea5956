/** `serve` from each kind of argument, as a node sees it: one URL, and the image arrives. */
import { describe, expect } from "bun:test";
import { copyFileSync, existsSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { fail, type Run, type RunOptions, start, succeed } from "../harness/diskswarm.ts";
import { stampedImage } from "../harness/image.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";

const IMAGE_BYTES = 3 * 1024 * 1024 + 12_345;
const LOCAL = ["--listen", "127.0.0.1", "--http", "0", "--udp", "0", "--port", "0"];

interface Image {
  readonly name: string;
  readonly url: string;
  readonly source: string;
}

interface Serving {
  readonly run: Run;
  readonly images: Image[];
  readonly server: string;
}

async function serve(scope: Scope, words: string[], options: RunOptions = {}): Promise<Serving> {
  const run = start(scope, ["serve", ...words, ...LOCAL], options);
  const event = await run.event("start");
  return { run, images: event.images as Image[], server: String(event.server) };
}

async function deploy(scope: Scope, url: string, target: string, image: string): Promise<void> {
  await succeed(scope, ["deploy", url, target, "--force", "--listen", "127.0.0.1", "--port", "0"]);
  expectSameBytes(target, image, IMAGE_BYTES);
}

describe("serve", () => {
  scopedTest("captures a source, hands out its torrent, and ends with 130 and nothing left", async (scope) => {
    const folder = scope.tempDir();
    const image = stampedImage(join(folder, "lab.raw"), IMAGE_BYTES, 1);
    // Others may serve on this machine: what is left is looked for in a folder of its own.
    const temporary = scope.tempDir();
    const { run, images, server } = await serve(scope, [image], { env: { TMPDIR: temporary } });
    expect(images).toMatchObject([{ name: "lab", source: image, url: `${server}/torrents/lab.torrent` }]);
    await deploy(scope, images[0]!.url, join(folder, "target.raw"), image);
    const torrent = await (await fetch(images[0]!.url)).text();
    // Where the image lies on the server is nobody's business.
    expect(torrent).not.toContain(folder);
    run.child.signal("SIGTERM");
    await run.expectExit(130);
    expect(readdirSync(temporary)).toEqual([]);
  });

  scopedTest("takes torrents: captured here, with a named source, and with the image beside", async (scope) => {
    const folder = scope.tempDir();
    const images = ["a", "b", "c"].map((name, seed) =>
      stampedImage(join(folder, `${name}.raw`), IMAGE_BYTES, seed + 1),
    );
    for (const name of ["a", "b", "c"])
      await succeed(scope, ["capture", join(folder, `${name}.raw`), "-o", join(folder, `${name}.torrent`)]);
    const moved = join(folder, "moved.img");
    renameSync(images[1]!, moved);
    const elsewhere = scope.tempDir();
    copyFileSync(join(folder, "c.torrent"), join(elsewhere, "c.torrent"));
    renameSync(images[2]!, join(elsewhere, "c.img"));
    const served = await serve(scope, [
      join(folder, "a.torrent"),
      `${join(folder, "b.torrent")}=${moved}`,
      join(elsewhere, "c.torrent"),
    ]);
    const sources = [images[0]!, moved, join(elsewhere, "c.img")];
    expect(served.images.map((image) => image.source)).toEqual(sources);
    for (const [index, image] of served.images.entries())
      await deploy(scope, image.url, join(folder, `target-${index}.raw`), sources[index]!);
  });

  scopedTest("says what to type, as text", async (scope) => {
    const folder = scope.tempDir();
    const image = stampedImage(join(folder, "lab.raw"), IMAGE_BYTES, 1);
    const { server } = await serve(scope, [image]);
    expect(await (await fetch(server)).text()).toContain(`diskswarm deploy ${server}/torrents/lab.torrent`);
  });

  scopedTest("refuses what it cannot serve", async (scope) => {
    const folder = scope.tempDir();
    const image = stampedImage(join(folder, "lab.raw"), IMAGE_BYTES, 1);
    await fail(scope, ["serve"], 2, /needs <images>/);
    await fail(scope, ["serve", join(folder, "none.raw")], 1, /no such file/);
    await fail(scope, ["serve", folder], 2, /folder/);
    const torrent = join(folder, "lab.torrent");
    await succeed(scope, ["capture", image, "-o", torrent]);
    renameSync(image, join(folder, "gone"));
    await fail(scope, ["serve", torrent, ...LOCAL], 2, /=SOURCE/);
    await fail(scope, ["serve", `${torrent}=${join(folder, "none.raw")}`, ...LOCAL], 1, /none\.raw/);
    expect(existsSync(torrent)).toBe(true);
    expect(readFileSync(torrent).length).toBeGreaterThan(100);
  });
});
