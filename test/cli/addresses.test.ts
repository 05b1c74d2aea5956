/** Peers from the command line, and the addresses that nodes are told. */
import { describe, expect, test } from "bun:test";
import type { NetworkInterfaceInfo } from "node:os";
import { Output } from "../../src/cli/output.ts";
import { parseHostAndPort, resolvePeers } from "../../src/cli/peer-argument.ts";
import { localHosts, reachableHosts } from "../../src/cli/reachable.ts";
import { TextSink } from "./helpers.ts";

describe("HOST:PORT", () => {
  test("addresses and names", () => {
    expect(parseHostAndPort("10.0.0.7:6881")).toEqual({ host: "10.0.0.7", port: 6881 });
    expect(parseHostAndPort("node-7.lab:1")).toEqual({ host: "node-7.lab", port: 1 });
    expect(parseHostAndPort("[FD00::0:7]:65535")).toEqual({ host: "fd00::7", port: 65535 });
  });
  for (const bad of [
    "",
    "10.0.0.7",
    ":6881",
    "a:0",
    "a:65536",
    "a:b",
    "fd00::7:6881",
    "[fd00::7]",
    "[nonsense]:1",
    "a b:1",
  ]) {
    test(`${JSON.stringify(bad)} is none`, () => expect(parseHostAndPort(bad)).toBeNull());
  }

  test("names are looked up, and an unknown one is a warning", async () => {
    const err = new TextSink();
    const output = new Output(new TextSink(), err, { json: false, quiet: false, logLevel: "info", color: false });
    const found = await resolvePeers(
      [
        { host: "localhost", port: 1 },
        { host: "no-such-host.invalid", port: 2 },
        { host: "10.0.0.7", port: 3 },
      ],
      output,
    );
    expect(found).toContainEqual({ host: "10.0.0.7", port: 3 });
    expect(found.filter((peer) => peer.port === 1).length).toBeGreaterThan(0);
    expect(found.filter((peer) => peer.port === 2)).toEqual([]);
    expect(err.text).toContain("no-such-host.invalid");
  });
});

describe("addresses that nodes reach", () => {
  const info = (address: string, internal = false) =>
    ({ address, family: address.includes(":") ? "IPv6" : "IPv4", internal }) as NetworkInterfaceInfo;
  const interfaces = {
    lo: [info("127.0.0.1", true), info("::1", true)],
    docker0: [info("172.17.0.1")],
    eth0: [info("10.0.0.1"), info("fe80::1"), info("fd00::1")],
  };
  const routes =
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\n";

  test("the interface with the default route comes first, link-local never", () => {
    expect(reachableHosts(null, interfaces, routes)).toEqual(["10.0.0.1", "172.17.0.1", "[fd00::1]"]);
    expect(reachableHosts("0.0.0.0", interfaces, routes)).toEqual(["10.0.0.1", "172.17.0.1"]);
  });
  test("the address that was asked for is the one", () => {
    expect(reachableHosts("172.17.0.1", interfaces, routes)).toEqual(["172.17.0.1"]);
    expect(reachableHosts("fd00::1", interfaces, routes)).toEqual(["[fd00::1]"]);
  });
  test("without a network there is loopback", () => {
    expect(reachableHosts(null, { lo: interfaces.lo }, "")).toEqual(["127.0.0.1"]);
  });
  test("this machine itself", () => {
    expect(localHosts(null)[0]).toBe("127.0.0.1");
    expect(localHosts("::")[0]).toBe("127.0.0.1");
    expect(localHosts("10.0.0.1")).toEqual(["10.0.0.1"]);
    expect(localHosts("fd00::1")).toEqual(["[fd00::1]"]);
  });
});
