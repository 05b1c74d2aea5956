/** The announcing client against our own tracker and against trackers that misbehave. */
import { afterEach, describe, expect, test } from "bun:test";
import { Announcer, type AnnouncerOptions } from "../../src/tracker/announcer.ts";
import { announceTo, type ClientAnnounce, TrackerFault } from "../../src/tracker/client.ts";
import { startTracker, type Tracker } from "../../src/tracker/tracker.ts";
import { formatAddress } from "../../src/wire/address.ts";
import { HASH, HASH_BYTES, peerId, seeded } from "./helpers.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function tracker(): Promise<Tracker> {
  const made = await startTracker({ listen: null, httpPort: 0, udpPort: 0, open: false, allowed: [HASH] });
  cleanups.push(() => made.stop());
  return made;
}

/** An HTTP server that answers everything with that text. */
function fake(answer: (request: Request) => Response | Promise<Response>): string {
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
  cleanups.push(() => server.stop(true));
  return `http://127.0.0.1:${server.port}/announce`;
}

function announce(number: number, changes: Partial<ClientAnnounce> = {}): ClientAnnounce {
  const counts = { uploadedBytes: 1, downloadedBytes: 2, leftBytes: 3 };
  return {
    infoHash: HASH_BYTES,
    peerId: peerId(number),
    port: 7000 + number,
    key: 9,
    ...counts,
    event: "started",
    peersWanted: -1,
    ...changes,
  };
}

async function once(url: string, number = 1, changes: Partial<ClientAnnounce> = {}) {
  return announceTo(url, announce(number, changes), new Map(), new AbortController().signal);
}

async function faultOf(url: string): Promise<string> {
  try {
    await once(url);
  } catch (error) {
    if (error instanceof TrackerFault) return error.message;
    throw error;
  }
  throw new Error(`${url} was believed`);
}

describe("one announce", () => {
  test("HTTP and UDP, IPv4 and IPv6, see each other", async () => {
    const { httpPort, udpPort } = await tracker();
    const urls = [
      `http://127.0.0.1:${httpPort}/announce`,
      `udp://127.0.0.1:${udpPort}`,
      `http://[::1]:${httpPort}/announce?passkey=1`,
      `udp://[::1]:${udpPort}/announce`,
    ];
    const seen: string[][] = [];
    for (const [number, url] of urls.entries()) seen.push((await once(url, number)).peers.map(formatAddress).sort());
    expect(seen).toEqual([[], ["127.0.0.1:7000"], ["127.0.0.1:7000", "127.0.0.1:7001"], ["[::1]:7002"]]);
    const reply = await once(urls[0]!, 0);
    expect(reply).toMatchObject({ intervalMs: 30_000, minIntervalMs: 5_000, externalHost: "127.0.0.1", warning: null });
  });

  test("a dictionary of peers, a warning; names and broken entries are left out", async () => {
    const peers =
      "ld2:ip9:127.0.0.14:porti5eed2:ip7:fd00::14:porti6eed2:ip4:host4:porti7eed2:ip7:1.2.3.44:porti0eei3ee";
    const url = fake(() => new Response(`d8:intervali60e5:peers${peers}15:warning message3:abce`));
    const reply = await once(url);
    expect(reply.peers.map(formatAddress)).toEqual(["127.0.0.1:5", "[fd00::1]:6"]);
    expect(reply).toMatchObject({ warning: "abc", intervalMs: 60_000, minIntervalMs: null });
  });

  test("refusals and replies that are none", async () => {
    const { httpPort, udpPort } = await tracker();
    const others = new Map<string, RegExp>([
      ["", /no bencode: ends too early/],
      ["<html>", /no bencode/],
      ["l-3:e", /no bencode/],
      [`${"l".repeat(5000)}${"e".repeat(5000)}`, /no bencode: nested/],
      ["i5e", /no dictionary/],
      ["d5:peers5:abcdee", /malformed: peers/],
      ["d5:peersi1ee", /malformed: peers/],
      ["d6:peers63:abce", /malformed: peers6/],
      ["d14:failure reason4:\u001b[1me", /it refused: \?\[1m/],
      [`d5:peers200000:${"x".repeat(200_000)}e`, /larger than/],
    ]);
    for (const [text, reason] of others) expect(await faultOf(fake(() => new Response(text)))).toMatch(reason);
    expect(await faultOf(fake(() => new Response("gone", { status: 404 })))).toMatch(/HTTP 404/);
    expect(await faultOf("http://127.0.0.1:1/announce")).toMatch(/nothing listens/);
    expect(await faultOf("udp://127.0.0.1:1/announce")).toMatch(/nothing listens/);
    expect(await faultOf("udp://127.0.0.1")).toMatch(/needs a port/);
    expect(await faultOf("wss://127.0.0.1/")).toMatch(/not known here/);
    const other = { infoHash: new Uint8Array(20) };
    for (const url of [`http://127.0.0.1:${httpPort}/announce`, `udp://127.0.0.1:${udpPort}`])
      await expect(once(url, 1, other)).rejects.toThrow(/it refused: this tracker does not serve/);
  });

  test("UDP: a connection id is used again, lost packets are asked for again, forged ones are ignored", async () => {
    let connects = 0;
    let dropped = 0;
    const server = await Bun.udpSocket({
      hostname: "127.0.0.1",
      binaryType: "uint8array",
      socket: {
        data(socket, data, port, host) {
          const asked = new DataView(data.buffer, data.byteOffset);
          const isConnect = data.length === 16;
          if (!isConnect && dropped++ === 0) return;
          if (isConnect) connects++;
          const reply = new DataView(new ArrayBuffer(isConnect ? 16 : 26));
          reply.setUint32(0, isConnect ? 0 : 1);
          reply.setUint32(4, asked.getUint32(12) ^ 1);
          socket.send(new Uint8Array(reply.buffer), port, host);
          reply.setUint32(4, asked.getUint32(12));
          socket.send(new Uint8Array(reply.buffer).subarray(0, 7), port, host);
          reply.setUint32(8, 1800);
          if (!isConnect) new Uint8Array(reply.buffer).set([10, 0, 0, 1, 1, 0], 20);
          socket.send(new Uint8Array(reply.buffer), port, host);
        },
      },
    });
    cleanups.push(() => server.close());
    const connections = new Map();
    for (let n = 0; n < 3; n++) {
      const reply = await announceTo(
        `udp://127.0.0.1:${server.port}`,
        announce(1),
        connections,
        new AbortController().signal,
      );
      expect(reply).toMatchObject({ intervalMs: 1_800_000, peers: [{ host: "10.0.0.1", port: 256 }] });
    }
    expect([connects, dropped]).toEqual([1, 4]);
  });
});

describe("the announcer", () => {
  function announcer(tiers: string[][], changes: Partial<AnnouncerOptions> = {}) {
    const states: [string, string | null][] = [];
    const made = new Announcer({
      infoHash: HASH_BYTES,
      peerId: peerId(1),
      port: 7001,
      tiers,
      random: seeded(2),
      stats: () => ({ uploadedBytes: 0, downloadedBytes: 0, leftBytes: 1, complete: false }),
      onPeers: () => {},
      onTrackerState: (url, error) => {
        states.push([url, error]);
      },
      ...changes,
    });
    cleanups.push(() => made.stop());
    return { made, states };
  }

  test("goes on to the next tracker and tier, remembers which works, says good-bye", async () => {
    const real = await tracker();
    const good = `http://127.0.0.1:${real.httpPort}/announce`;
    const dead = ["http://127.0.0.1:1/a", "udp://127.0.0.1:1/b"];
    let heard = Promise.withResolvers<string>();
    const { made, states } = announcer([dead, [good, "http://127.0.0.1:1/c"]], {
      onExternalIp: (host) => heard.resolve(host),
    });
    made.start();
    expect(await heard.promise).toBe("127.0.0.1");
    expect(
      states
        .slice(0, 2)
        .map(([url]) => url)
        .sort(),
    ).toEqual(dead);
    expect(states.at(-1)).toEqual([good, null]);
    expect(await real.counts(HASH)).toEqual({ seeders: 0, leechers: 1, downloaded: 0 });
    const before = states.length;
    heard = Promise.withResolvers();
    made.announceNow("completed");
    await heard.promise;
    // The one that worked is first in its tier now: between the dead tier and it, nothing else was tried.
    expect(
      states
        .slice(before)
        .map(([url]) => url)
        .slice(-1),
    ).toEqual([good]);
    expect(states.length - before).toBe(3);
    expect(await real.counts(HASH)).toMatchObject({ downloaded: 1 });
    await made.stop();
    expect(await real.counts(HASH)).toMatchObject({ seeders: 0, leechers: 0 });
  });

  test("hands over peers, and asks again when told to", async () => {
    const real = await tracker();
    const url = `udp://127.0.0.1:${real.udpPort}`;
    const rounds: string[][] = [];
    let waiting = Promise.withResolvers<void>();
    const { made } = announcer([[url]], {
      onPeers: (peers) => {
        rounds.push(peers.map(formatAddress));
        waiting.resolve();
      },
    });
    made.start();
    await waiting.promise;
    await once(url, 2);
    waiting = Promise.withResolvers();
    made.announceNow();
    await waiting.promise;
    expect(rounds).toEqual([[], ["127.0.0.1:7002"]]);
  });

  test("the completion is told even when the tracker was away", async () => {
    const events: (string | null)[] = [];
    let away = true;
    const told = Promise.withResolvers<void>();
    const url = fake((request) => {
      events.push(new URL(request.url.replaceAll(/%[89a-f]./gi, "")).searchParams.get("event"));
      if (events.at(-1) === "completed" && !away) told.resolve();
      if (away && events.length > 1) {
        away = false;
        return new Response("", { status: 500 });
      }
      return new Response("d8:intervali30e5:peers0:e");
    });
    const first = Promise.withResolvers<void>();
    const { made } = announcer([[url]], { onPeers: () => first.resolve() });
    made.start();
    await first.promise;
    made.announceNow("completed");
    await told.promise;
    expect(events).toEqual(["started", "completed", "completed"]);
  });

  test("stopping does not wait for a tracker that hangs", async () => {
    const asked = Promise.withResolvers<void>();
    const url = fake(() => {
      asked.resolve();
      return new Promise<Response>(() => {});
    });
    const { made } = announcer([[url]]);
    made.start();
    await asked.promise;
    await made.stop();
    await made.stop();
  });
});
