/** The tracker over UDP (BEP 15), on real sockets and packet by packet. */
import { describe, expect, test } from "bun:test";
import { Registry } from "../../src/tracker/registry.ts";
import { startTracker } from "../../src/tracker/tracker.ts";
import { UdpAnswerer } from "../../src/tracker/udp.ts";
import { Random } from "../../src/swarm/random.ts";
import { decodeCompact4, hostBytes } from "../../src/wire/address.ts";
import { HASH, HASH_BYTES, peerId, seeded } from "./helpers.ts";

function make(clock = { nowMs: 1_000_000 }) {
  const registry = new Registry({ open: false, random: seeded(3) });
  registry.setAllowed([HASH]);
  const answerer = new UdpAnswerer(registry, "::", () => clock.nowMs);
  return {
    registry,
    clock,
    udp: { answer: (sent: Uint8Array, host: string) => answerer.answer(sent, hostBytes(host)!) },
  };
}

function packet(lengthBytes: number, connectionId: bigint, action: number, transactionId = 77): DataView {
  const view = new DataView(new ArrayBuffer(lengthBytes));
  view.setBigUint64(0, connectionId);
  view.setUint32(8, action);
  view.setUint32(12, transactionId);
  return view;
}

const bytes = (view: DataView) => new Uint8Array(view.buffer);
const viewOf = (reply: Uint8Array | null) => new DataView(reply!.slice().buffer);

function connect(udp: ReturnType<typeof make>["udp"], host: string): bigint {
  const reply = viewOf(udp.answer(bytes(packet(16, 0x41727101980n, 0)), host));
  expect([reply.byteLength, reply.getUint32(0), reply.getUint32(4)]).toEqual([16, 0, 77]);
  return reply.getBigUint64(8);
}

function announce(connectionId: bigint, number: number, port = 7000 + number, lengthBytes = 98): Uint8Array {
  const view = packet(lengthBytes, connectionId, 1);
  bytes(view).set(HASH_BYTES, 16);
  bytes(view).set(peerId(number), 36);
  view.setBigUint64(64, 5n);
  view.setUint32(80, 2);
  view.setInt32(92, -1);
  view.setUint16(96, port);
  return bytes(view);
}

describe("packets", () => {
  test("connect, announce, scrape", () => {
    const { udp } = make();
    udp.answer(announce(connect(udp, "10.0.0.1"), 1), "10.0.0.1");
    const id = connect(udp, "10.0.0.2");
    const reply = viewOf(udp.answer(announce(id, 2), "10.0.0.2"));
    expect([0, 4, 8, 12, 16].map((at) => reply.getUint32(at))).toEqual([1, 77, 30, 2, 0]);
    expect(decodeCompact4(new Uint8Array(reply.buffer, 20))).toEqual([{ host: "10.0.0.1", port: 7001 }]);
    const scrape = bytes(packet(56, id, 2));
    scrape.set(HASH_BYTES, 16);
    const counts = viewOf(udp.answer(scrape, "10.0.0.2"));
    expect([0, 4, 8, 12, 16, 20, 24, 28].map((at) => counts.getUint32(at))).toEqual([2, 77, 0, 0, 2, 0, 0, 0]);
  });

  test("a connection id is bound to the address and ends after two minutes", () => {
    const { udp, clock } = make();
    const id = connect(udp, "10.0.0.1");
    const action = (host: string) => viewOf(udp.answer(announce(id, 1), host)).getUint32(0);
    expect(action("10.0.0.1")).toBe(1);
    expect(action("10.0.0.2")).toBe(3);
    clock.nowMs += 60_000;
    expect(action("10.0.0.1")).toBe(1);
    clock.nowMs += 60_001;
    expect(action("10.0.0.1")).toBe(3);
    expect(connect(make().udp, "10.0.0.1")).not.toBe(id);
  });

  test("options behind the announce (BEP 41) are ignored; port 0 and unknown torrents are errors", () => {
    const { udp, registry } = make();
    const id = connect(udp, "10.0.0.1");
    const withOption = announce(id, 1, 7001, 120);
    withOption.set([2, 9, ...new TextEncoder().encode("/announce")], 98);
    expect(viewOf(udp.answer(withOption, "10.0.0.1")).getUint32(0)).toBe(1);
    expect(viewOf(udp.answer(announce(id, 1, 0), "10.0.0.1")).getUint32(0)).toBe(3);
    const other = announce(id, 1);
    other.fill(9, 16, 36);
    expect(new TextDecoder().decode(udp.answer(other, "10.0.0.1")!.subarray(8))).toContain("does not serve");
    expect(registry.peerCount).toBe(1);
  });

  test("whatever is sent without a proved address, the answer is no larger", () => {
    const seed = 5;
    const random = new Random(seed);
    const { udp, registry } = make();
    for (let number = 1; number < 60; number++)
      udp.answer(announce(connect(udp, `10.0.1.${number}`), number), `10.0.1.${number}`);
    let answered = 0;
    for (let run = 0; run < 20_000; run++) {
      const length = random.below(200);
      const view = packet(
        Math.max(length, 16),
        random.chance(0.5) ? 0x41727101980n : BigInt(random.next()),
        random.below(5),
        random.next(),
      );
      for (let at = 16; at < length; at++) view.setUint8(at, random.below(256));
      const sent = bytes(view).subarray(0, length);
      const reply = udp.answer(sent, "10.9.9.9");
      if (reply === null) continue;
      answered++;
      expect(reply.length).toBeLessThanOrEqual(length);
    }
    expect(answered).toBeGreaterThan(1000);
    expect(registry.peerCount).toBe(59);
  });

  test("every shortening of a request is unanswered", () => {
    const { udp } = make();
    const id = connect(udp, "10.0.0.1");
    const full = announce(id, 1);
    for (let length = 0; length < full.length; length++)
      expect(udp.answer(full.slice(0, length), "10.0.0.1")).toBeNull();
  });
});

test("on sockets: IPv4 and IPv6 at one port, rubbish in between", async () => {
  const tracker = await startTracker({ listen: "::", httpPort: 0, udpPort: 0, open: true, allowed: [] });
  const random = new Random(9);
  for (const [host, wildcard, replyBytes] of [
    ["127.0.0.1", "0.0.0.0", 26],
    ["::1", "::", 38],
  ] as const) {
    for (const number of [1, 2]) {
      const replies: Uint8Array[] = [];
      let arrived = Promise.withResolvers<void>();
      const socket = await Bun.udpSocket({
        hostname: wildcard,
        binaryType: "uint8array",
        connect: { hostname: host, port: tracker.udpPort },
        socket: {
          data(_socket, data) {
            replies.push(data.slice());
            arrived.resolve();
          },
        },
      });
      for (let n = 0; n < 50; n++) socket.send(Uint8Array.from({ length: random.below(15) }, () => random.below(256)));
      socket.send(bytes(packet(16, 0x41727101980n, 0)));
      await arrived.promise;
      arrived = Promise.withResolvers();
      socket.send(announce(viewOf(replies[0]!).getBigUint64(8), number));
      await arrived.promise;
      expect(replies.map((reply) => reply.length)).toEqual([16, number === 1 ? 20 : replyBytes]);
      socket.close();
    }
  }
  expect((await tracker.stats()).peers).toBe(4);
  await tracker.stop();
});
