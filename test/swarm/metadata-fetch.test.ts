/** Fetching the info dictionary of a magnet link (BEP 9) from peers that have it, refuse it, or lie. */
import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import type { CloseReason } from "../../src/swarm/actions.ts";
import { MetadataFetch } from "../../src/swarm/metadata-fetch.ts";
import { OUTBOX_BYTES } from "../../src/swarm/policy.ts";
import { Random } from "../../src/swarm/random.ts";
import type { Session } from "../../src/swarm/session.ts";
import type { Swarm } from "../../src/swarm/swarm.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import { Host } from "./harness.ts";

const INFO = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 31) % 251);
const sha1 = (bytes: Uint8Array): Uint8Array => createHash("sha1").update(bytes).digest();
const INFO_HASH = sha1(INFO);

/** The two ends of one connection, each with the events of its side. */
interface Wire {
  readonly session: Session;
  readonly far: Session;
  readonly swarm: Swarm;
}

class Fetching {
  readonly closed: { session: Session; reason: CloseReason }[] = [];
  done: Uint8Array | null = null;
  nowMs = 0;
  readonly wires: Wire[] = [];
  readonly fetch = new MetadataFetch(
    { infoHash: INFO_HASH, peerId: new Uint8Array(20).fill(1), listenPort: 6881, random: new Random(1), sha1 },
    {
      dial: () => {},
      close: (session, reason) => this.closed.push({ session, reason }),
      wake: () => {},
      done: (bytes) => {
        this.done = bytes;
      },
    },
  );

  /** Connects to a real seeder that serves `metadata` (null: it has none to serve). */
  connect(n: number, metadata: Uint8Array | null): Wire {
    const { swarm } = new Host(
      { infoHash: INFO_HASH, peerId: new Uint8Array(20).fill(50 + n), metadata, seedOnly: true },
      Bitfield.full(8),
    );
    const buffers = () => ({ outbox: new Uint8Array(OUTBOX_BYTES) });
    const session = this.fetch.outgoing(this.nowMs, { host: `10.0.2.${n}`, port: 6881 }, buffers());
    const far = swarm.incoming(this.nowMs, { host: "10.0.0.1", port: 40_000 }, buffers())!;
    const wire = { session, far, swarm };
    this.wires.push(wire);
    return wire;
  }

  /** Carries bytes until all is quiet; closed connections end. */
  run(): void {
    for (let busy = true; busy; ) {
      busy = false;
      for (const wire of [...this.wires]) {
        if (take(wire.session, (bytes) => wire.swarm.receivedControl(this.nowMs, wire.far, bytes))) busy = true;
        if (take(wire.far, (bytes) => this.fetch.receivedControl(this.nowMs, wire.session, bytes))) busy = true;
        if (!this.closed.some((each) => each.session === wire.session)) continue;
        this.wires.splice(this.wires.indexOf(wire), 1);
        this.fetch.disconnected(this.nowMs, wire.session);
      }
    }
  }
}

function take(from: Session, give: (bytes: Uint8Array) => void): boolean {
  const { buffer, lengthBytes } = from.outbox;
  if (lengthBytes === 0) return false;
  const bytes = buffer.slice(0, lengthBytes);
  from.swapOutbox(new Uint8Array(buffer.length));
  give(bytes);
  return true;
}

test("comes whole from one peer", () => {
  const fetching = new Fetching();
  fetching.connect(1, INFO);
  fetching.run();
  expect(fetching.done).toEqual(INFO);
  expect(fetching.closed).toEqual([]);
});

test("a peer without metadata is no obstacle", () => {
  const fetching = new Fetching();
  fetching.connect(1, null);
  fetching.run();
  expect(fetching.done).toBeNull();
  fetching.connect(2, INFO);
  fetching.run();
  expect(fetching.done).toEqual(INFO);
});

test("a liar among honest peers is found and banned", () => {
  const wrong = INFO.slice();
  wrong[70_000] ^= 1;
  const fetching = new Fetching();
  const liar = fetching.connect(1, wrong);
  fetching.connect(2, INFO);
  fetching.run();
  expect(fetching.done).toEqual(INFO);
  expect(fetching.closed.every((each) => each.session === liar.session && each.reason.kind === "banned")).toBe(true);
});

test("a liar alone is banned, and one that names another size gives way", () => {
  const fetching = new Fetching();
  fetching.connect(1, INFO.subarray(0, 50_000));
  fetching.run();
  expect(fetching.done).toBeNull();
  expect(fetching.closed.map((each) => each.reason.kind)).toEqual(["banned"]);
  fetching.connect(2, INFO);
  fetching.run();
  expect(fetching.done).toEqual(INFO);
});

test("a peer that does not answer loses its place after a while", () => {
  const fetching = new Fetching();
  const silent = fetching.connect(1, INFO);
  take(silent.session, (bytes) => silent.swarm.receivedControl(0, silent.far, bytes));
  take(silent.far, (bytes) => fetching.fetch.receivedControl(0, silent.session, bytes));
  take(silent.session, (bytes) => silent.swarm.receivedControl(0, silent.far, bytes.subarray(0, 0)));
  fetching.fetch.tick(9_999);
  expect(fetching.closed).toEqual([]);
  fetching.fetch.tick(10_000);
  expect(fetching.closed.map((each) => each.reason.kind)).toEqual(["timeout"]);
});
