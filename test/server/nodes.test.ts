/** The fleet's state, and what nodes and those who watch them get over HTTP. */
import { afterEach, describe, expect, test } from "bun:test";
import { parsePlan } from "../../src/boot/init/plan.ts";
import type { PlanDefaults } from "../../src/server/api.ts";
import { Fleet, type FleetEvent } from "../../src/server/fleet.ts";
import { type Server, startServer } from "../../src/server/http.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";

describe("fleet", () => {
  test("keeps what is known of a node, but no failure that is over", () => {
    const fleet = new Fleet();
    fleet.report(1000, "a", { phase: "booted", serial: "S1" });
    fleet.report(2000, "a", { phase: "target", target: "/dev/sda" });
    fleet.report(3000, "a", { phase: "failed", code: "disk-fault", message: "it is broken" });
    fleet.report(4000, "a", { phase: "failed", code: "disk-fault", message: "it is broken" });
    expect(fleet.nodes()).toEqual([
      {
        id: "a",
        phase: "failed",
        serial: "S1",
        target: "/dev/sda",
        code: "disk-fault",
        message: "it is broken",
        sinceMs: 3000,
        heardMs: 4000,
      },
    ]);
    expect(fleet.report(5000, "a", { phase: "progress", bytesDone: 1 })).toEqual({
      id: "a",
      phase: "progress",
      bytesDone: 1,
      timeMs: 5000,
      sequence: 5,
    });
    expect(fleet.nodes()[0]).toEqual({
      id: "a",
      phase: "progress",
      serial: "S1",
      target: "/dev/sda",
      bytesDone: 1,
      sinceMs: 5000,
      heardMs: 5000,
    });
    fleet.report(6000, "a", { phase: "booted" });
    expect(fleet.nodes()).toEqual([{ id: "a", phase: "booted", sinceMs: 6000, heardMs: 6000 }]);
  });

  test("forgets who was silent for longest", () => {
    const fleet = new Fleet(3);
    for (const id of ["a", "b", "c"]) fleet.report(1, id, { phase: "booted" });
    fleet.report(2, "a", { phase: "plan" });
    fleet.report(3, "d", { phase: "booted" });
    expect(fleet.nodes().map(({ id }) => id)).toEqual(["c", "a", "d"]);
    expect(fleet.counts()).toEqual({ booted: 2, plan: 1 });
  });

  test("a large fleet is asked to report less often", () => {
    const fleet = new Fleet();
    fleet.report(1, "first", { phase: "booted" });
    expect(fleet.reportIntervalSeconds).toBe(5);
    for (let n = 0; n < 20_000; n++) fleet.report(n, `node-${n}`, { phase: "progress" });
    expect(fleet.size).toBe(20_000);
    expect(fleet.reportIntervalSeconds).toBe(60);
  });
});

function torrent(name: string) {
  const info = `d6:lengthi16384e4:name${name.length}:${name}12:piece lengthi16384e6:pieces20:${"x".repeat(20)}e`;
  const bytes = new TextEncoder().encode(`d4:info${info}e`);
  return { name, bytes, metainfo: parseMetainfo(bytes) };
}

let server: Server | null = null;
const events: FleetEvent[] = [];
afterEach(async () => {
  await server?.stop();
  server = null;
  events.length = 0;
});

async function serve(names: string[], plan: Partial<PlanDefaults> = {}): Promise<string> {
  server = await startServer({
    listen: "127.0.0.1",
    httpPort: 0,
    udpPort: 0,
    torrents: names.map(torrent),
    boot: null,
    nodeImages: null,
    plan: { target: null, after: null, options: {}, ...plan },
    onNodeEvent: (event) => void events.push(event),
  });
  return `http://127.0.0.1:${server.httpPort}`;
}

const report = (base: string, id: string, body: unknown) =>
  fetch(`${base}/v1/nodes/${id}/events`, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

describe("plan", () => {
  test("of one image, by the name that the node calls the server", async () => {
    const base = await serve(["class room"], {
      target: "auto,size>=10G",
      after: "poweroff",
      options: { memory: "32M" },
    });
    const response = await fetch(`${base}/v1/plan?mac=52:54:00:00:00:01&serial=x`);
    expect(response.headers.get("Cache-Control")).toBe("no-store");
    expect(Date.parse(response.headers.get("Date")!)).toBeGreaterThan(Date.UTC(2026, 0, 1));
    expect(parsePlan(await response.bytes())).toMatchObject({
      torrent: `${base}/torrents/class%20room.torrent`,
      target: { text: "auto,size>=10G" },
      after: "poweroff",
      options: { memory: "32M" },
    });
    const named = await fetch(`${base}/v1/plan`, { headers: { Host: "imaging.lan" } });
    expect(await named.json()).toMatchObject({ torrent: "http://imaging.lan/torrents/class%20room.torrent" });
    const odd = await fetch(`${base}/v1/plan`, { headers: { Host: "a_b:123456" } });
    expect(odd.status).toBe(400);
  });

  test("of none and of several there is none, and why", async () => {
    const several = await fetch(`${await serve(["a", "b"])}/v1/plan`);
    expect(several.status).toBe(409);
    expect(await several.text()).toMatch(
      /2 images are served here: choose one with diskswarm\.torrent= .*a\.torrent .*b\.torrent/,
    );
    await server!.stop();
    const none = await fetch(`${await serve([])}/v1/plan`);
    expect([none.status, await none.text()]).toEqual([404, "no image is served here\n"]);
  });

  test("other methods and paths", async () => {
    const base = await serve(["a"]);
    expect((await fetch(`${base}/v1/plan`, { method: "DELETE" })).status).toBe(405);
    expect((await fetch(`${base}/v1/nodes/x/events`)).headers.get("Allow")).toBe("POST");
    expect((await fetch(`${base}/v1/`)).status).toBe(404);
    expect((await fetch(`${base}/v1/nodes/x`)).status).toBe(404);
  });
});

describe("nodes", () => {
  test("report, are listed and told of", async () => {
    const base = await serve(["a"]);
    const answer = await report(base, "52:54:00:AB:00:01", { phase: "booted", serial: "S1", mood: "good" });
    expect([answer.status, await answer.json()]).toEqual([200, { nextSeconds: 5 }]);
    await report(base, encodeURIComponent("52:54:00:ab:00:01"), { phase: "progress", bytesDone: 5, bytesTotal: 10 });
    await report(base, "other", { phase: "failed", message: "no disk fits" });
    const listed = (await (await fetch(`${base}/v1/nodes`)).json()) as { nodes: Record<string, unknown>[] };
    expect(listed).toMatchObject({
      sequence: 3,
      counts: { progress: 1, failed: 1 },
      nodes: [
        { id: "52:54:00:ab:00:01", phase: "progress", serial: "S1", bytesDone: 5, bytesTotal: 10 },
        { id: "other", phase: "failed", message: "no disk fits" },
      ],
    });
    expect(Date.parse(String(listed.nodes[0]!.heard))).toBeGreaterThan(0);
    expect(events.map(({ id, phase }) => `${id} ${phase}`)).toEqual([
      "52:54:00:ab:00:01 booted",
      "52:54:00:ab:00:01 progress",
      "other failed",
    ]);
  });

  test("what is no report changes nothing", async () => {
    const base = await serve(["a"]);
    for (const [id, body] of [
      ["x", "nonsense"],
      ["x", ""],
      ["x", { phase: "hungry" }],
      ["%zz", { phase: "booted" }],
      ["x".repeat(65), { phase: "booted" }],
    ])
      expect((await report(base, id as string, body)).status).toBe(400);
    expect((await report(base, "x", "x".repeat(100_000))).status).toBe(413);
    expect(await (await fetch(`${base}/v1/nodes`)).json()).toEqual({ sequence: 0, counts: {}, nodes: [] });
    expect(events).toEqual([]);
  });
});

describe("events", () => {
  /** Reads a stream until it holds what is looked for. */
  async function readUntil(
    reader: Pick<ReadableStreamDefaultReader<Uint8Array>, "read">,
    wanted: string,
  ): Promise<string> {
    let text = "";
    while (!text.includes(wanted)) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`ended after ${JSON.stringify(text)}`);
      text += new TextDecoder().decode(value);
    }
    return text;
  }

  test("come as they happen, in server-sent form, to everyone who watches", async () => {
    const base = await serve(["a"]);
    const watchers = await Promise.all([1, 2].map(() => fetch(`${base}/v1/events`)));
    expect(watchers[0]!.headers.get("Content-Type")).toBe("text/event-stream");
    const readers = watchers.map((response) => response.body!.getReader());
    for (const reader of readers) await readUntil(reader, ": events after 0\n\n");
    await report(base, "n1", { phase: "done", target: "/dev/sda" });
    for (const reader of readers) {
      const text = await readUntil(reader, "\n\n");
      const [, id, data] = /^id: (\d+)\ndata: (.*)\n\n$/.exec(text)!;
      expect(id).toBe("1");
      expect(JSON.parse(data!)).toMatchObject({ id: "n1", phase: "done", target: "/dev/sda" });
    }
    // One that leaves takes nothing from the other.
    await readers[0]!.cancel();
    await report(base, "n1", { phase: "rebooting" });
    expect(await readUntil(readers[1]!, "\n\n")).toContain('"rebooting"');
    await readers[1]!.cancel();
  });

  test("the server's end ends them; too many watchers are refused", async () => {
    const base = await serve(["a"]);
    const watchers = [];
    for (let n = 0; n < 32; n++) watchers.push(await fetch(`${base}/v1/events`));
    expect((await fetch(`${base}/v1/events`)).status).toBe(503);
    const reader = watchers[0]!.body!.getReader();
    await readUntil(reader, "\n\n");
    await server!.stop();
    server = null;
    const ended = await reader.read().then(
      ({ done }) => done,
      () => true,
    );
    expect(ended).toBe(true);
  });
});
