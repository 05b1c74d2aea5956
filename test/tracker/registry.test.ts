import { describe, expect, test } from "bun:test";
import { TRACKER_PEERS_PER_SWARM_MAX, TRACKER_SWARMS_OPEN_MAX } from "../../src/limits.ts";
import { PeerTable } from "../../src/tracker/peer-table.ts";
import { Registry } from "../../src/tracker/registry.ts";
import { Random } from "../../src/swarm/random.ts";
import { HASH, peerId, peersOf, request, seeded } from "./helpers.ts";

function registry(open = false): Registry {
  const made = new Registry({ open, random: seeded(1) });
  if (!open) made.setAllowed([HASH]);
  return made;
}

function fill(made: Registry, count: number, nowMs = 0): void {
  for (let number = 1; number <= count; number++) made.announce(nowMs, request(number));
}

describe("announce", () => {
  test("the caller is told of others, never of itself", () => {
    const made = registry();
    expect(peersOf(made.announce(0, request(1)))).toEqual([]);
    expect(peersOf(made.announce(0, request(2)))).toEqual(["10.0.0.1:6881"]);
    expect(peersOf(made.announce(0, request(1)))).toEqual(["10.0.0.2:6881"]);
  });

  test("a node that announces over both families is not told of its other address", () => {
    const made = registry();
    made.announce(0, request(1));
    made.announce(0, request(2));
    expect(peersOf(made.announce(0, request(1, { host: "fd00::1" })))).toEqual(["10.0.0.2:6881"]);
  });

  test("30 distinct peers unless asked for less or more, 50 at most", () => {
    const made = registry();
    fill(made, 200);
    const sizes = [-1, 0, 1, 10, 40, 50, 51, 1e9].map((peersWanted) => {
      const peers = peersOf(made.announce(0, request(7, { peersWanted })));
      expect(new Set(peers).size).toBe(peers.length);
      return peers.length;
    });
    expect(sizes).toEqual([30, 0, 1, 10, 40, 50, 50, 50]);
  });

  test("every peer of a large swarm is named about equally often, the seeder to only some", () => {
    const made = registry();
    made.announce(0, request(0, { leftBytes: 0 }));
    fill(made, 300);
    const named = new Map<string, number>();
    for (let number = 1; number <= 300; number++)
      for (const peer of peersOf(made.announce(0, request(number)))) named.set(peer, (named.get(peer) ?? 0) + 1);
    expect(named.size).toBe(301);
    // Binomial with mean 30 and deviation 5.2: six deviations to either side.
    for (const times of named.values()) {
      expect(times).toBeGreaterThan(0);
      expect(times).toBeLessThan(62);
    }
    expect(named.get("10.0.0.0:6881")).toBeLessThan(62);
  });

  test("who is complete is told of nobody who is complete", () => {
    const made = registry();
    for (let number = 0; number < 40; number++)
      made.announce(0, request(number, { leftBytes: number % 4 === 0 ? 5 : 0 }));
    const peers = peersOf(made.announce(0, request(41, { leftBytes: 0 })));
    expect(peers.length).toBe(10);
    expect(peers.every((peer) => Number(peer.split(/[.:]/)[3]) % 4 === 0)).toBe(true);
  });

  test("both families are named; half of a full answer is of the caller's own", () => {
    const made = registry();
    for (let number = 0; number < 100; number++) made.announce(0, request(number, { host: `fd00::${number + 1}` }));
    for (let number = 100; number < 120; number++) made.announce(0, request(number));
    const reply = made.announce(0, request(200));
    expect([reply.peers4.count, reply.peers6.count]).toEqual([15, 15]);
    const udp = made.announce(0, request(200, { bothFamilies: false }));
    expect([udp.peers4.count, udp.peers6.count]).toEqual([20, 0]);
  });

  test("stopped and three intervals of silence end a peer", () => {
    const made = registry();
    made.announce(0, request(1));
    made.announce(0, request(2));
    made.announce(60_000, request(3));
    expect(peersOf(made.announce(89_000, request(4))).length).toBe(3);
    expect(peersOf(made.announce(96_000, request(4)))).toEqual(["10.0.0.3:6881"]);
    expect(peersOf(made.announce(96_000, request(3, { event: "stopped" })))).toEqual([]);
    expect(peersOf(made.announce(96_000, request(4)))).toEqual([]);
    expect(made.peerCount).toBe(1);
  });

  test("counts: seeders, leechers, and each completion once", () => {
    const made = registry();
    made.announce(0, request(1, { leftBytes: 0 }));
    made.announce(0, request(2));
    for (let repeat = 0; repeat < 3; repeat++) made.announce(0, request(2, { leftBytes: 0, event: "completed" }));
    made.announce(0, request(3));
    expect(made.scrape(0, HASH)).toEqual({ seeders: 2, leechers: 1, downloaded: 1 });
  });
});

describe("what is served", () => {
  test("other info-hashes are refused, and end when they are no longer allowed", () => {
    const made = registry();
    const other = "11".repeat(20);
    expect(made.announce(0, request(1, { infoHash: other })).refusal).toContain("does not serve");
    expect(made.scrape(0, other)).toBeNull();
    expect(made.announce(0, request(1)).refusal).toBeNull();
    made.setAllowed([other.toUpperCase()]);
    expect(made.announce(0, request(1)).refusal).toContain("does not serve");
    expect(made.announce(0, request(1, { infoHash: other })).refusal).toBeNull();
    expect(made.peerCount).toBe(1);
  });

  test("an open tracker serves a bounded number of swarms and forgets empty ones", () => {
    const made = registry(true);
    const hash = (number: number) => number.toString(16).padStart(40, "0");
    for (let number = 0; number < TRACKER_SWARMS_OPEN_MAX; number++)
      made.announce(0, request(1, { infoHash: hash(number) }));
    expect(made.announce(0, request(1, { infoHash: HASH })).refusal).toContain("full");
    expect(made.announce(120_000, request(1, { infoHash: HASH })).refusal).toBeNull();
    expect(made.swarmCount).toBe(1);
  });

  test("beyond the limit of a swarm callers are answered and warned but not kept", () => {
    const made = registry();
    fill(made, TRACKER_PEERS_PER_SWARM_MAX);
    const reply = made.announce(0, request(TRACKER_PEERS_PER_SWARM_MAX + 1));
    expect(reply.warning).toContain("full");
    expect(reply.peers4.count).toBe(30);
    expect(made.peerCount).toBe(TRACKER_PEERS_PER_SWARM_MAX);
    expect(made.announce(0, request(5)).warning).toBeNull();
  });
});

describe("who can be reached", () => {
  test("a seeder beside the tracker is named by the tracker's own address", () => {
    const made = registry();
    made.announce(0, request(1, { host: "127.0.0.1", leftBytes: 0 }));
    expect(peersOf(made.announce(0, request(2, { ownHost4: Uint8Array.of(192, 0, 2, 7) })))).toEqual([
      "192.0.2.7:6881",
    ]);
    expect(peersOf(made.announce(0, request(3)))).toEqual(["10.0.0.2:6881"]);
    expect(peersOf(made.announce(0, request(4, { host: "127.0.0.2" })))).toContain("127.0.0.1:6881");
  });

  test("link-local addresses are for callers with one", () => {
    const made = registry();
    made.announce(0, request(1, { host: "fe80::1" }));
    expect(peersOf(made.announce(0, request(2)))).toEqual([]);
    expect(peersOf(made.announce(0, request(3, { host: "fe80::3" })))).toContain("[fe80::1]:6881");
  });
});

describe("the table against a plain model", () => {
  for (const endpointBytes of [6, 18] as const) {
    test(`${endpointBytes} bytes per endpoint`, () => {
      const seed = 20;
      const random = new Random(seed);
      const table = new PeerTable(endpointBytes);
      const model = new Map<number, { seeding: boolean; seenMs: number }>();
      const endpointOf = (number: number) => new Uint8Array(endpointBytes).fill(number & 255).fill(number >> 8, 3);
      for (let step = 0; step < 20_000; step++) {
        const number = random.below(400);
        const endpoint = endpointOf(number);
        const seeding = random.chance(0.3);
        const index = table.find(endpoint);
        expect(index >= 0).toBe(model.has(number));
        if (random.chance(0.35) && index >= 0) {
          table.remove(index);
          model.delete(number);
        } else {
          table.touch(index < 0 ? table.add(endpoint, seeding) : table.mark(index, seeding), peerId(number), step);
          model.set(number, { seeding, seenMs: step });
        }
        if (step % 5000 === 4999) {
          const old = [...model].filter(([, peer]) => peer.seenMs < step - 300);
          for (const [one] of old) model.delete(one);
          expect(table.expire(step - 300)).toBe(old.length);
        }
        expect([table.count, table.leechers]).toEqual([
          model.size,
          [...model.values()].filter((one) => !one.seeding).length,
        ]);
      }
      for (const [number, { seeding }] of model) {
        const index = table.find(endpointOf(number));
        expect(table.hasPeerId(index, peerId(number))).toBe(true);
        expect(index >= table.leechers).toBe(seeding);
      }
    });
  }
});
