/** Resident memory of a node depends neither on the image's size nor on what the kernel caches for it. */
import { expect } from "bun:test";
import { join } from "node:path";
import { expectSame } from "../harness/compare.ts";
import { capture } from "../harness/diskswarm.ts";
import { MIB, deploy, loopbackSeeder } from "../harness/fixture.ts";
import { stampedImage, type Extent } from "../harness/image.ts";
import { Scope, scopedTest } from "../harness/scope.ts";

const GIB = 1024 * MIB;
const PEAK_RSS_BYTES_MAX = 128_000_000;
const STAMP_BYTES = 4096;

/** One stamped page in every MiB: cheap to keep in memory, and a piece at a wrong place shows. */
function* stampedPages(lengthBytes: number): Generator<Extent> {
  for (let offsetBytes = 0; offsetBytes < lengthBytes; offsetBytes += MIB)
    yield { offsetBytes, lengthBytes: STAMP_BYTES };
}

/** Deploys an image all of whose bytes are sent; returns the node's peak resident memory in bytes. */
async function peakRssOfDeployment(lengthBytes: number): Promise<number> {
  const scope = new Scope();
  try {
    const folder = scope.ramDir();
    const image = stampedImage(join(folder, "image.raw"), lengthBytes, 31, stampedPages(lengthBytes));
    const torrent = await capture(scope, image, join(folder, "image.torrent"), "--extents", "all");
    const seeder = await loopbackSeeder(scope, torrent, image);
    const target = join(folder, "target");
    const flags = ["--memory", "32M", "--delta", "never"];
    const run = await deploy(scope, torrent, target, [seeder.peer], flags, { watchMemory: true });
    const done = await run.done();
    expect(done.bytesFetched).toBeGreaterThanOrEqual(lengthBytes);
    expectSame(target, image, stampedPages(lengthBytes));
    return Math.max(run.child.peakRssBytes, done.peakRssBytes);
  } finally {
    await scope.close();
  }
}

scopedTest(
  "deploy --memory 32M of 8 GiB stays under 128 MB, as with 1 GiB",
  async () => {
    const small = await peakRssOfDeployment(GIB);
    const large = await peakRssOfDeployment(8 * GIB);
    const figures = `1 GiB: ${small} bytes, 8 GiB: ${large} bytes`;
    expect(large, figures).toBeLessThan(PEAK_RSS_BYTES_MAX);
    expect(Math.abs(large - small), figures).toBeLessThan(small / 10);
  },
  400_000,
);
