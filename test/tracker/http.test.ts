/** The tracker over HTTP, on real sockets. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import type { Failure } from "../../src/errors.ts";
import { AnnounceQuery, decodePercent, encodePercent } from "../../src/tracker/query.ts";
import { startTracker, type Tracker } from "../../src/tracker/tracker.ts";
import { decodeCompact4, decodeCompact6 } from "../../src/wire/address.ts";
import { Random } from "../../src/swarm/random.ts";
import { announceQuery, HASH, peerId, readReply, textOf } from "./helpers.ts";

let tracker: Tracker;
beforeAll(async () => {
  tracker = await startTracker({ listen: null, httpPort: 0, udpPort: 0, open: false, allowed: [HASH] });
});
afterAll(() => tracker.stop());

async function get(path: string, host = "127.0.0.1") {
  const response = await fetch(`http://${host}:${tracker.httpPort}${path}`);
  expect(response.status).toBe(200);
  return readReply(new Uint8Array(await response.arrayBuffer()));
}
const announce = (number: number, changes: Record<string, string | number | null> = {}, host?: string) =>
  get(`/announce?${announceQuery(number, changes)}`, host);
const stop = (...numbers: number[]) => Promise.all(numbers.map((number) => announce(number, { event: "stopped" })));

describe("announce", () => {
  test("compact peers, counts, intervals and the caller's own address", async () => {
    await announce(1, { event: "started" });
    const reply = await announce(2, { left: 0 });
    expect(decodeCompact4(reply.get("peers") as Uint8Array)).toEqual([{ host: "127.0.0.1", port: 7001 }]);
    expect([reply.get("complete"), reply.get("incomplete"), reply.get("interval"), reply.get("min interval")]).toEqual([
      1, 1, 30, 5,
    ]);
    expect(reply.get("external ip")).toEqual(Uint8Array.of(127, 0, 0, 1));
    expect((await announce(2, { event: "stopped" })).get("peers")).toEqual(new Uint8Array(0));
    await stop(1);
    expect(await tracker.counts(HASH)).toMatchObject({ seeders: 0, leechers: 0 });
  });

  test("IPv6 callers are peers6, and both families are told of each other", async () => {
    await announce(1);
    const six = await announce(2, {}, "[::1]");
    expect(decodeCompact4(six.get("peers") as Uint8Array)).toEqual([{ host: "127.0.0.1", port: 7001 }]);
    expect(six.get("external ip")).toEqual(new Uint8Array(16).fill(1, 15));
    const four = await announce(1);
    expect(decodeCompact6(four.get("peers6") as Uint8Array)).toEqual([{ host: "::1", port: 7002 }]);
    await announce(2, { event: "stopped" }, "[::1]");
    await stop(1);
  });

  test("compact=0 gives dictionaries, no_peer_id leaves the ids out", async () => {
    await announce(1);
    await announce(3, {}, "[::1]");
    const full = (await announce(2, { compact: 0 })).get("peers") as Map<string, unknown>[];
    const seen = full.map((peer) => [textOf(peer.get("ip")), textOf(peer.get("peer id")), peer.get("port")]);
    expect(seen.sort()).toEqual([
      ["127.0.0.1", textOf(peerId(1)), 7001],
      ["::1", textOf(peerId(3)), 7003],
    ]);
    const short = (await announce(2, { compact: 0, no_peer_id: 1 })).get("peers") as Map<string, unknown>[];
    expect(short.map((peer) => peer.has("peer id"))).toEqual([false, false]);
    await announce(3, { event: "stopped" }, "[::1]");
    await stop(1, 2);
  });

  test("ip= is ignored, numwant is honoured", async () => {
    await announce(1, { ip: "203.0.113.9" });
    await announce(2);
    const reply = await announce(3, { numwant: 1 });
    expect((reply.get("peers") as Uint8Array).subarray(0, 4)).toEqual(Uint8Array.of(127, 0, 0, 1));
    expect((reply.get("peers") as Uint8Array).length).toBe(6);
    await stop(1, 2, 3);
  });

  const wrong: [string, Record<string, string | number | null>, RegExp][] = [
    ["no info_hash", { info_hash: null }, /info_hash is missing/],
    ["a short info_hash", { info_hash: "abc" }, /info_hash must be 20 bytes/],
    ["a long info_hash", { info_hash: "%00".repeat(21) }, /info_hash must be 20 bytes/],
    ["hex in place of bytes", { info_hash: HASH }, /info_hash must be 20 bytes/],
    ["a broken escape", { info_hash: `${"%00".repeat(19)}%0` }, /info_hash must be 20 bytes/],
    ["another torrent", { info_hash: "%07".repeat(20) }, /does not serve/],
    ["no peer_id", { peer_id: null }, /peer_id is missing/],
    ["a short peer_id", { peer_id: "x" }, /peer_id must be 20 bytes/],
    ["no port", { port: null }, /port is missing/],
    ["port 0", { port: 0 }, /port must be/],
    ["port 65536", { port: 65536 }, /port must be/],
    ["port -1", { port: -1 }, /port must be/],
    ["a word as port", { port: "http" }, /port must be/],
    ["negative left", { left: -1 }, /left must be/],
    ["a word as left", { left: "all" }, /left must be/],
  ];
  for (const [what, changes, reason] of wrong) {
    test(`${what} is a failure reason`, async () => {
      const reply = await announce(1, changes);
      expect([...reply.keys()]).toEqual(["failure reason"]);
      expect(textOf(reply.get("failure reason"))).toMatch(reason);
      expect((await tracker.stats()).peers).toBe(0);
    });
  }

  test("every byte value passes through an info_hash, escaped or not", () => {
    for (let from = 0; from < 256; from += 20) {
      const bytes = Uint8Array.from({ length: 20 }, (_, n) => (from + n) & 255);
      for (const text of [encodePercent(bytes), escapeAll(bytes), escapeAll(bytes).toUpperCase()]) {
        expect(decodePercent(text)?.toHex()).toBe(bytes.toHex());
        const query = new AnnounceQuery();
        const raw = Buffer.from(`peer_id=${text}&left=3&info_hash=${text}&port=1&info_hash=x`);
        expect(query.read(raw, 0, raw.length)).toBeNull();
        expect([query.infoHash, query.peerId.toHex(), query.leftBytes]).toEqual([bytes.toHex(), bytes.toHex(), 3]);
      }
    }
    expect(decodePercent("+")).toEqual(Uint8Array.of(0x2b));
    for (const broken of ["%", "%4", "%g0", "%0g", "%%%", "é"]) expect(decodePercent(broken)).toBeNull();
  });
});

function escapeAll(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
}

describe("scrape and stats", () => {
  test("several info-hashes, those not served left out, keys sorted", async () => {
    const second = "01".repeat(20);
    tracker.setAllowed([HASH, second]);
    await tracker.stats();
    await announce(1, { left: 0 });
    await announce(2);
    const query = [HASH, "77".repeat(20), second, HASH]
      .map((hash) => `info_hash=${escapeAll(Uint8Array.fromHex(hash))}`)
      .join("&");
    const files = (await get(`/scrape?${query}`)).get("files") as Map<string, Map<string, number>>;
    expect([...files.keys()].map((key) => Buffer.from(key, "latin1").toString("hex"))).toEqual([second, HASH]);
    expect(Object.fromEntries([...files.values()][1]!)).toEqual({ complete: 1, downloaded: 0, incomplete: 1 });
    tracker.setAllowed([HASH]);
    await stop(1, 2);
  });

  test("without, with a broken or with too many info_hash: a failure reason", async () => {
    for (const query of [
      "",
      "?info_hash=ab",
      `?${Array.from({ length: 75 }, (_, n) => `info_hash=${"%00".repeat(19)}%${(n + 16).toString(16)}`).join("&")}`,
    ])
      expect((await get(`/scrape${query}`)).has("failure reason")).toBe(true);
  });

  test("/stats counts in JSON; other paths and methods are refused", async () => {
    const base = `http://127.0.0.1:${tracker.httpPort}`;
    expect(await (await fetch(`${base}/stats`)).json()).toMatchObject({
      peers: 0,
      swarms: [{ infoHash: HASH, seeders: 0, leechers: 0 }],
    });
    expect((await fetch(`${base}/etc/passwd`)).status).toBe(404);
    expect((await fetch(`${base}/announce`, { method: "POST", body: "x" })).status).toBe(405);
  });
});

describe("hostile clients", () => {
  test("random queries always get bencode with a failure reason, or peers", async () => {
    const seed = 7;
    const random = new Random(seed);
    const alphabet = "info_hash=peer_id&port=left=%00%ff%%&&==?#/+\\\"'<>{}|^`~-19";
    for (let run = 0; run < 300; run++) {
      let query = run % 2 === 0 ? announceQuery(run % 50) : "";
      for (let edit = random.below(40); edit >= 0; edit--) {
        const at = random.below(query.length + 1);
        query = query.slice(0, at) + alphabet[random.below(alphabet.length)] + query.slice(at + random.below(2));
      }
      // A fragment is never sent by fetch, which is not what is tested here.
      const reply = await get(`/${run % 3 === 0 ? "scrape" : "announce"}?${query.replaceAll("#", "")}`);
      expect(reply.has("failure reason") || reply.has("peers") || reply.has("files")).toBe(true);
    }
    expect(new AnnounceQuery().read(new Uint8Array(100_000).fill(97), 0, 100_000)).toBe("info_hash is missing");
  });

  test("100 clients that send rubbish or nothing do not keep a good one from its answer", async () => {
    const random = new Random(11);
    const bad = Array.from({ length: 100 }, (_, number) => {
      const socket = connect(tracker.httpPort, "127.0.0.1");
      socket.on("error", () => socket.destroy());
      const rubbish = Buffer.from(Array.from({ length: 2000 }, () => random.below(256)));
      if (number % 4 === 0) socket.write(rubbish);
      if (number % 4 === 1) socket.write("GET /announce?info_hash=");
      if (number % 4 === 2) socket.write(`GET /announce?${"x".repeat(60_000)} HTTP/1.1\r\n\r\n`);
      return socket;
    });
    for (let round = 0; round < 50; round++) expect((await announce(round)).has("peers")).toBe(true);
    for (const socket of bad) socket.destroy();
    await stop(...Array.from({ length: 50 }, (_, number) => number));
    expect((await tracker.stats()).peers).toBe(0);
  });
});

describe("binding", () => {
  test("a port in use is told with what to do", async () => {
    const options = { listen: null, open: true, allowed: [] };
    const failure = async (httpPort: number, udpPort: number, listen: string | null = null) => {
      try {
        await (await startTracker({ ...options, listen, httpPort, udpPort })).stop();
      } catch (error) {
        return error as Failure;
      }
      throw new Error("it was bound");
    };
    expect(await failure(tracker.httpPort, 0)).toMatchObject({
      exitCode: 1,
      code: "port-in-use",
      message: expect.stringContaining("--http PORT"),
    });
    expect(await failure(0, tracker.udpPort)).toMatchObject({
      exitCode: 1,
      code: "port-in-use",
      message: expect.stringContaining("--udp PORT"),
    });
    expect(await failure(0, 0, "203.0.113.1")).toMatchObject({ exitCode: 1, code: "listen-address" });
  });
});
