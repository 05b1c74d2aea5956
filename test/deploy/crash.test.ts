/** Nodes, the tracker and the seeder are killed in the middle: what can go on goes on, and nothing is done twice. */
import { describe, expect } from "bun:test";
import { join } from "node:path";
import { trackerUrl } from "../harness/clients.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { seed, start, type Run, type Seeder } from "../harness/diskswarm.ts";
import { MIB, PIECE_BYTES, capturedImage, type Image } from "../harness/fixture.ts";
import { loopDevice } from "../harness/loop.ts";
import { Network, type Machine } from "../harness/network.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";
import { isRoot } from "../harness/tools.ts";

const IMAGE_BYTES = 48 * MIB;
const PORT = 6881;
/** At this rate the image takes 8 seconds, so that its half is a moment that a test can meet. */
const MEGABITS = 50;
/** Pieces that a killed node may lose: those in flight (DESIGN 8), the one of the disk's head, one at the mark. */
const PIECES_LOST_MAX = 10;

async function seedOn(scope: Scope, machine: Machine, image: Image, flags: readonly string[] = []): Promise<Seeder> {
  return seed(scope, image.torrent, image.path, { host: machine.address, port: PORT }, flags, { machine });
}

function deployOn(scope: Scope, machine: Machine, image: Image, target: string, flags: readonly string[] = []): Run {
  return start(
    scope,
    ["deploy", image.torrent, target, "--listen", machine.address, "--port", String(PORT), ...flags],
    { machine },
  );
}

async function expectProof(run: Run, target: string, image: Image): Promise<void> {
  await run.expectExit(0);
  expect((await run.done()).flushed).toBe(true);
  expectSameBytes(target, image.path, image.lengthBytes);
}

/** Stops a slow node at its half in the given way, starts it again, and counts what it fetched. */
async function interruptAndContinue(scope: Scope, stop: (run: Run) => Promise<void>): Promise<void> {
  const network = new Network(scope);
  const [seederMachine, nodeMachine] = [network.machine(), network.machine()];
  const image = await capturedImage(scope, IMAGE_BYTES);
  const seeder = await seedOn(scope, seederMachine, image);
  const target = loopDevice(scope, IMAGE_BYTES, { dirty: true }).path;
  nodeMachine.shape(MEGABITS);
  const first = deployOn(scope, nodeMachine, image, target, ["--peer", seeder.peer]);
  await first.progressed(0.5);
  await stop(first);
  const before = first.events.filter(({ event }) => event === "progress").at(-1)!;
  expect(Number(before.bytesDone)).toBeLessThan(IMAGE_BYTES);
  nodeMachine.unshape();
  const second = deployOn(scope, nodeMachine, image, target, ["--peer", seeder.peer]);
  await expectProof(second, target, image);
  const done = await second.done();
  expect(done.bytesFetched).toBeLessThanOrEqual(IMAGE_BYTES - Number(before.bytesDone) + PIECES_LOST_MAX * PIECE_BYTES);
  expect(done.bytesReused + done.bytesFetched).toBeGreaterThanOrEqual(IMAGE_BYTES);
}

describe.skipIf(!isRoot)("killed at 50 %", () => {
  scopedTest("a node, by kill -9: started again, it fetches the other half alone", async (scope) => {
    await interruptAndContinue(scope, (run) => run.child.kill());
  });

  scopedTest("a node, by SIGINT: exit 130, and it continues later", async (scope) => {
    await interruptAndContinue(scope, async (run) => {
      run.child.signal("SIGINT");
      await run.expectExit(130);
    });
  });

  scopedTest("the tracker, by kill -9: all nodes finish", async (scope) => {
    const network = new Network(scope);
    const trackerMachine = network.machine();
    const image = await capturedImage(scope, IMAGE_BYTES, { tracker: trackerUrl(trackerMachine) });
    const tracker = start(scope, ["track", "--listen", trackerMachine.address, "--allow", image.torrent], {
      machine: trackerMachine,
    });
    await tracker.event("start");
    const seederMachine = network.machine();
    seederMachine.shape(2 * MEGABITS);
    await seedOn(scope, seederMachine, image);
    const nodes = [1, 2, 3].map(() => {
      const target = join(scope.ramDir(), "target");
      return { target, run: deployOn(scope, network.machine(), image, target, ["--force", "--linger", "swarm"]) };
    });
    await Promise.all(nodes.map(({ run }) => run.progressed(0.5)));
    await tracker.child.kill();
    await Promise.all(nodes.map(({ run, target }) => expectProof(run, target, image)));
  });

  scopedTest("the seeder, when one full copy is in the swarm: all nodes finish", async (scope) => {
    const network = new Network(scope);
    const image = await capturedImage(scope, IMAGE_BYTES);
    const seeder = await seedOn(scope, network.machine(), image);
    const quickMachine = network.machine();
    const quickTarget = join(scope.ramDir(), "target");
    quickMachine.shape(8 * MEGABITS);
    const quick = deployOn(scope, quickMachine, image, quickTarget, [
      "--force",
      "--peer",
      seeder.peer,
      "--linger",
      "swarm",
    ]);
    const slow = [1, 2].map(() => {
      const machine = network.machine();
      machine.shape(MEGABITS);
      const target = join(scope.ramDir(), "target");
      const peers = ["--peer", seeder.peer, "--peer", `${quickMachine.address}:${PORT}`];
      return { target, run: deployOn(scope, machine, image, target, ["--force", "--linger", "swarm", ...peers]) };
    });
    await quick.done();
    await seeder.run.child.kill();
    for (const { run } of slow) expect(run.events.some(({ event }) => event === "done")).toBe(false);
    await Promise.all(slow.map(({ run, target }) => expectProof(run, target, image)));
    await expectProof(quick, quickTarget, image);
  });

  scopedTest(
    "the seeder, before a full copy is in the swarm: exit 5 with the missing pieces counted",
    async (scope) => {
      const network = new Network(scope);
      const image = await capturedImage(scope, IMAGE_BYTES);
      const seeder = await seedOn(scope, network.machine(), image);
      const machine = network.machine();
      machine.shape(MEGABITS);
      const target = join(scope.ramDir(), "target");
      const node = deployOn(scope, machine, image, target, ["--force", "--peer", seeder.peer, "--timeout", "6s"]);
      await node.progressed(0.5);
      await seeder.run.child.kill();
      const { stderr } = await node.expectExit(5);
      const missing = /(\d[\d,]*) (?:of \d+ )?pieces?/.exec(stderr);
      expect(Number(missing?.[1])).toBeGreaterThan(0);
      expect(Number(missing?.[1])).toBeLessThanOrEqual(IMAGE_BYTES / PIECE_BYTES / 2);
      expect(node.events.some(({ event }) => event === "done")).toBe(false);
    },
  );
});
