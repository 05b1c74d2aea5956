/** Whom a node calls: near peers first, once it knows where it is. */
import { describe, expect, test } from "bun:test";
import { isSameNetwork, networkOf } from "../../src/swarm/networks.ts";
import { DIALS_FAR_FIRST, NEAR_FIRST_MS } from "../../src/swarm/policy.ts";
import type { PeerAddress } from "../../src/wire/address.ts";
import { Host, Remote } from "./harness.ts";

const PLACES = 10;
const OWN = "10.1.1.200";

const addresses = (network: string, count: number): PeerAddress[] =>
  Array.from({ length: count }, (_, n) => ({ host: `${network}.${n + 1}`, port: 6881 }));
const isNear = (address: PeerAddress): boolean => isSameNetwork(address.host, OWN);
/** The dialled peer answers and tells us our address. */
const answers = (host: Host, address: PeerAddress, n: number): Remote =>
  new Remote(host, new Uint8Array(20).fill(n), address, true).open({ ours: true, yourHost: OWN });

describe("calls", () => {
  test("go to a few at random until a peer tells us our address, and then to near ones", () => {
    const host = new Host({ dialMax: PLACES });
    host.swarm.addPeers(host.nowMs, [...addresses("10.1.2", 30), ...addresses("10.1.1", 30)], "tracker");
    expect(host.dialled.length).toBe(DIALS_FAR_FIRST);
    answers(host, host.dialled[0], 1);
    expect(host.dialled.length).toBe(PLACES);
    expect(host.dialled.slice(DIALS_FAR_FIRST).every(isNear)).toBe(true);
  });

  test("to others wait for near ones to become known, and no longer", () => {
    const host = new Host({ dialMax: PLACES });
    host.tick(0);
    host.swarm.addPeers(host.nowMs, addresses("10.1.2", 30), "tracker");
    answers(host, host.dialled[0], 1);
    host.tick(NEAR_FIRST_MS - 1);
    expect(host.dialled.length).toBe(DIALS_FAR_FIRST);
    host.swarm.addPeers(host.nowMs, addresses("10.1.1", 2), "pex");
    expect(host.dialled.slice(DIALS_FAR_FIRST).map(isNear)).toEqual([true, true]);
    host.tick(1);
    expect(host.dialled.length).toBe(PLACES);
    expect(host.dialled.slice(DIALS_FAR_FIRST + 2).some(isNear)).toBe(false);
  });

  test("go to everybody at last where nobody says where we are", () => {
    const host = new Host({ dialMax: PLACES });
    host.swarm.addPeers(host.nowMs, addresses("10.1.2", 30), "tracker");
    host.tick(NEAR_FIRST_MS);
    expect(host.dialled.length).toBe(PLACES);
  });
});

describe("networks", () => {
  test("are 24 bits of IPv4 and 64 of IPv6", () => {
    expect(isSameNetwork("10.1.1.1", "10.1.1.254")).toBe(true);
    expect(isSameNetwork("10.1.1.1", "10.1.2.1")).toBe(false);
    expect(isSameNetwork("fd00:1:2:3::1", "fd00:1:2:3:ffff::1")).toBe(true);
    expect(isSameNetwork("fd00:1:2:3::1", "fd00:1:2:4::1")).toBe(false);
    expect(isSameNetwork("10.1.1.1", "fd00::1")).toBe(false);
    expect(isSameNetwork("nowhere", "nowhere")).toBe(false);
    expect(networkOf("nowhere")).toBeNull();
  });
});
