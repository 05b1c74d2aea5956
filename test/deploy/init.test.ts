/** `init` as far as it goes on a machine that is not its own: it finds its server, chooses its disk, deploys, and leaves the machine alone. */
import { describe, expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseCommandLine } from "../../src/boot/init/command-line.ts";
import { readMachine } from "../../src/boot/init/machine.ts";
import { NODE_OPTION_NAMES } from "../../src/cli/node-options.ts";
import { NodeRun, type NodeOptions } from "../../src/cli/node-run.ts";
import { Output } from "../../src/cli/output.ts";
import { TextSink } from "../cli/helpers.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, fail, type Run, type RunOptions, seed, start, succeed } from "../harness/diskswarm.ts";
import { stampedImage } from "../harness/image.ts";
import { loopDevice } from "../harness/loop.ts";
import { Network } from "../harness/network.ts";
import { freePort } from "../harness/ports.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";

const IMAGE_BYTES = 5 * 1024 * 1024;
const DISK_BYTES = 16 * 1024 * 1024;

/** `init` with that kernel command line; it does not linger. */
function init(scope: Scope, commandLine: string, options: RunOptions = {}): Run {
  const path = join(scope.tempDir(), "cmdline");
  writeFileSync(path, `BOOT_IMAGE=/vmlinuz ro ${commandLine} diskswarm.linger=0\n`);
  return start(scope, ["init", "--cmdline", path], options);
}

async function serve(scope: Scope, words: readonly string[], options: RunOptions = {}) {
  const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 1);
  const run = start(scope, ["serve", image, ...words], options);
  const { server } = await run.event("start");
  return { run, image, server: String(server) };
}

const LOCAL = ["--listen", "127.0.0.1", "--http", "0", "--udp", "0", "--port", "0"];

async function nodesOf(server: string): Promise<Record<string, unknown>[]> {
  return ((await (await fetch(`${server}/v1/nodes`)).json()) as { nodes: Record<string, unknown>[] }).nodes;
}

if (isRoot) needTools("ip", "losetup");

describe.if(isRoot)("init", () => {
  scopedTest("with a server alone it does what the plan says, and reports", async (scope) => {
    const target = loopDevice(scope, DISK_BYTES, { dirty: true }).path;
    const {
      run: server,
      image,
      server: url,
    } = await serve(scope, [...LOCAL, "--target", target, "--after", "poweroff"]);
    const run = init(scope, `diskswarm.server=${url} BOOTIF=01-52-54-00-00-00-07`);
    await run.done();
    await run.expectExit(0);
    expectSameBytes(target, image, IMAGE_BYTES);
    await server.event("node", ({ id, phase }) => id === "52:54:00:00:00:07" && phase === "done");
    expect(await nodesOf(url)).toMatchObject([{ id: "52:54:00:00:00:07", phase: "done", image: "lab", target }]);
  });

  scopedTest("finds the server of its link, and waits for one that is not there yet", async (scope) => {
    const network = new Network(scope);
    const [admin, node] = [network.machine(), network.machine()];
    const target = loopDevice(scope, DISK_BYTES).path;
    const run = init(scope, `diskswarm.target=${target}`, { machine: node });
    await run.event("error", ({ code }) => code === "no-server");
    const { image } = await serve(scope, ["--http", String(await freePort())], { machine: admin });
    await run.done();
    await run.expectExit(0);
    expectSameBytes(target, image, IMAGE_BYTES);
  });

  scopedTest("takes none of two servers that answer, and names both", async (scope) => {
    const network = new Network(scope);
    const admins = [network.machine(), network.machine()];
    for (const machine of admins) await serve(scope, [], { machine });
    const run = init(scope, "diskswarm.target=auto", { machine: network.machine() });
    const { message } = await run.event("error", ({ code }) => code === "no-server");
    expect(message).toMatch(/several servers answer on this network/);
    for (const { address } of admins) expect(message).toContain(`http://${address}:6969`);
  });

  scopedTest("what cannot be mended ends it here, with nothing written", async (scope) => {
    const { path } = loopDevice(scope, IMAGE_BYTES - 4096);
    const { server } = await serve(scope, LOCAL);
    const at = `diskswarm.server=${server}`;
    const cases: readonly [string, number, RegExp][] = [
      [`${at} diskswarm.target=${path}`, 4, /needs/],
      [`${at} diskswarm.taget=auto`, 2, /diskswarm\.taget, which is not known; known are/],
      [`${at} diskswarm.target=${path} diskswarm.memory=1K`, 2, /at least/],
      [`${at} diskswarm.target=${path} diskswarm.io=fast`, 2, /--io is "fast" but must be/],
    ];
    for (const [words, code, message] of cases) {
      const ended = await init(scope, words).expectExit(code);
      expect(ended.stderr).toMatch(message);
    }
    await fail(scope, ["init", "--cmdline", "/nowhere/cmdline"], 2, /cannot read \/nowhere\/cmdline/);
  });

  scopedTest("with a key it takes no image that is not signed by it", async (scope) => {
    const { path } = loopDevice(scope, DISK_BYTES);
    const { server } = await serve(scope, [...LOCAL, "--target", path]);
    const key = join(scope.tempDir(), "key");
    await succeed(scope, ["keygen", "-o", key]);
    const publicKey = (await Bun.file(`${key}.pub`).text()).trim().split(/\s+/).at(-1)!;
    const ended = await init(scope, `diskswarm.server=${server} diskswarm.key=${publicKey}`).expectExit(3);
    expect(ended.stderr).toMatch(/signed/);
    expectSameBytes(path, "/dev/zero", DISK_BYTES);
  });

  scopedTest("serve refuses rules and options that no node would take", async (scope) => {
    const image = stampedImage(join(scope.tempDir(), "lab.raw"), IMAGE_BYTES, 1);
    await fail(
      scope,
      ["serve", image, ...LOCAL, "--target", "disk0"],
      2,
      /--target is "disk0" but must be a target rule/,
    );
    await fail(scope, ["serve", image, ...LOCAL, "--node-option", "speed=11"], 2, /option speed, which is not known/);
    await fail(scope, ["serve", image, ...LOCAL, "--node-option", "memory=1Q"], 2, /--memory is "1Q"/);
  });
});

/** A node whose machine ends in a promise instead of a reboot. */
function ownNode(scope: Scope, words: string, more: Partial<NodeOptions> = {}) {
  const stdout = new TextSink();
  const stderr = new TextSink();
  const controller = new AbortController();
  const ended = Promise.withResolvers<string>();
  const commandLine = parseCommandLine(words, NODE_OPTION_NAMES);
  const node = new NodeRun({
    commandLine,
    machine: { ...readMachine(null, "/nowhere"), id: "n1" },
    after: null,
    isOurs: true,
    output: new Output(stdout, stderr, { json: false, quiet: false, logLevel: "info", color: false }),
    signal: controller.signal,
    machineEnd: (action) => {
      ended.resolve(action);
      return new Promise<never>(() => undefined);
    },
    times: { retryMinMs: 20, retryMaxMs: 50, pollMs: 20, repeatMs: 60, emergencyDelayMs: 20 },
    ...more,
  });
  const running = node.run();
  scope.defer(async () => {
    controller.abort();
    await Promise.race([running, ended.promise]);
  });
  scope.explain(() => `${stdout.text}\n${stderr.text}`);
  return {
    running,
    ended: ended.promise,
    stop: () => controller.abort(),
    out: () => stdout.text,
    err: () => stderr.text,
  };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(10);
}

describe.if(isRoot)("a node that is its own", () => {
  scopedTest("stays with what it cannot mend until the plan changes, and then ends as it was told", async (scope) => {
    const target = loopDevice(scope, DISK_BYTES).path;
    const { image, server } = await serve(scope, LOCAL);
    const torrent = `${server}/torrents/lab.torrent`;
    let plan: Record<string, unknown> = { version: 1, torrent, target, options: { memory: "1K" } };
    const failures: string[] = [];
    const planner = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: async (request) => {
        if (request.method === "GET") return Response.json(plan);
        const { phase, message } = (await request.json()) as { phase: string; message: string };
        if (phase === "failed") failures.push(message);
        return Response.json({ nextSeconds: 1 });
      },
    });
    scope.defer(() => planner.stop(true));
    const node = ownNode(scope, `diskswarm.server=${planner.url.origin} diskswarm.linger=0`);
    const complaint = "--memory is 1.00 KiB but must be at least 8.00 MiB";
    await until(() => node.err().split(complaint).length > 3);
    // Told again and again on the console, to the server once.
    expect(failures).toEqual([complaint]);
    plan = { ...plan, after: "poweroff", options: { memory: "16M" } };
    expect(await node.ended).toBe("poweroff");
    expect(node.out()).toContain("the plan has changed");
    expectSameBytes(target, image, IMAGE_BYTES);
  });

  scopedTest("where nobody has the image yet it holds nothing, and begins anew until somebody has", async (scope) => {
    const folder = scope.tempDir();
    const image = stampedImage(join(folder, "lab.raw"), IMAGE_BYTES, 1);
    const torrent = await capture(scope, image, join(folder, "lab.torrent"));
    const target = loopDevice(scope, DISK_BYTES).path;
    const port = await freePort();
    const options = { peer: `127.0.0.1:${port}`, timeout: "1s", linger: "0" };
    const planner = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ url }) =>
        url.endsWith(".torrent")
          ? new Response(Bun.file(torrent))
          : Response.json({ version: 1, torrent: new URL("/lab.torrent", url).href, target, options }),
    });
    scope.defer(() => planner.stop(true));
    const node = ownNode(scope, `diskswarm.server=${planner.url.origin}`);
    await until(() => node.err().includes("no peer had them for 0:01"));
    await until(() => node.out().split("deploying lab").length > 3);
    await seed(scope, torrent, image, { host: "127.0.0.1", port });
    expect(await node.ended).toBe("reboot");
    expectSameBytes(target, image, IMAGE_BYTES);
  });

  scopedTest("rd.emergency is what follows a failure that waiting cannot mend", async (scope) => {
    const node = ownNode(scope, "diskswarm.after=explode rd.emergency=halt");
    expect(await node.ended).toBe("halt");
    expect(node.err()).toContain('diskswarm.after is "explode"');
  });

  scopedTest("without a server it tries for ever, and says so now and then", async (scope) => {
    const port = await freePort();
    const node = ownNode(scope, `diskswarm.server=http://127.0.0.1:${port}`);
    await until(() => node.err().split("connection refused").length > 3);
    node.stop();
    expect(await node.running).toBe(130);
  });
});
