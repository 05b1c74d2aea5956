/** Addresses: one spelling each, and the compact forms of BEP 23 and BEP 7. */
import { describe, expect, test } from "bun:test";
import {
  addressKey,
  canonicalHost,
  decodeCompact4,
  decodeCompact6,
  encodeCompact4,
  encodeCompact6,
  formatAddress,
  hostBytes,
  hostFromBytes,
  makeAddress,
  parseAddress,
} from "../../src/wire/address.ts";

describe("parseAddress", () => {
  const accepted: [string, string][] = [
    ["1.2.3.4:80", "1.2.3.4:80"],
    ["255.255.255.255:65535", "255.255.255.255:65535"],
    ["[::1]:80", "[::1]:80"],
    ["[::]:1", "[::]:1"],
    ["[2001:DB8:0:0:0:0:0:1]:6881", "[2001:db8::1]:6881"],
    ["[2001:0db8:0001:0000:0001:0001:0001:0001]:1", "[2001:db8:1:0:1:1:1:1]:1"],
    ["[2001:0:0:1:0:0:0:1]:1", "[2001:0:0:1::1]:1"],
    ["[2001:db8:0:0:1:0:0:1]:1", "[2001:db8::1:0:0:1]:1"],
    ["[fe80:0:0:0:0:0:0:0]:1", "[fe80::]:1"],
    ["[1:2:3:4:5:6:7::]:1", "[1:2:3:4:5:6:7:0]:1"],
    ["[::ffff:10.0.0.1]:80", "10.0.0.1:80"],
    ["[::ffff:a00:1]:80", "10.0.0.1:80"],
    ["[64:ff9b::1.2.3.4]:80", "[64:ff9b::102:304]:80"],
  ];
  for (const [text, canonical] of accepted) {
    test(`${text} is ${canonical}`, () => {
      const address = parseAddress(text)!;
      expect(formatAddress(address)).toBe(canonical);
      expect(parseAddress(canonical)).toEqual(address);
      expect(addressKey(address)).toBe(canonical);
    });
  }
  const refused = [
    "",
    "1.2.3.4",
    "1.2.3.4:",
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:99999",
    "1.2.3.4:-1",
    "1.2.3.4:8 ",
  ];
  const badHosts = [
    "1.2.3:80",
    "1.2.3.4.5:80",
    "1.2.3.256:80",
    "01.2.3.4:80",
    "[1.2.3.4]:80",
    "host:80",
    "::1:80",
    "[]:80",
    ":80",
  ];
  const badV6 = [
    "[:::]:1",
    "[1::2::3]:1",
    "[1:2:3:4:5:6:7]:1",
    "[1:2:3:4:5:6:7:8:9]:1",
    "[1:2:3:4::5:6:7:8]:1",
    "[12345::]:1",
    "[g::]:1",
  ];
  const odd = [
    "[fe80::1%eth0]:1",
    "[:1]:1",
    "[1:]:1",
    "[1.2.3.4::]:1",
    "[::1.2.3]:1",
    "[::1]",
    "[::1]:+1",
    "[::1]:1\n",
    "x[::1]:1",
  ];
  for (const text of [...refused, ...badHosts, ...badV6, ...odd]) {
    test(`${JSON.stringify(text)} is none`, () => expect(parseAddress(text)).toBeNull());
  }
});

test("hosts and ports are checked where they come apart, too", () => {
  expect(makeAddress("::FFFF:1.2.3.4", 80)).toEqual({ host: "1.2.3.4", port: 80 });
  for (const port of [0, -1, 65536, 1.5, Number.NaN]) expect(makeAddress("1.2.3.4", port)).toBeNull();
  expect(canonicalHost("::0001")).toBe("::1");
  expect(canonicalHost("localhost")).toBeNull();
  expect(hostFromBytes(hostBytes("2001:db8::5")!)).toBe("2001:db8::5");
});

describe("compact peers", () => {
  const four = parseAddress("10.0.0.1:6881")!;
  const six = parseAddress("[2001:db8::1]:258")!;
  test("each family has its list", () => {
    expect(encodeCompact4([four, six, four]).toHex()).toBe("0a0000011ae1".repeat(2));
    expect(encodeCompact6([four, six]).toHex()).toBe("20010db80000000000000000000000010102");
    expect(decodeCompact4(encodeCompact4([four, four]))).toEqual([four, four]);
    expect(decodeCompact6(encodeCompact6([six]))).toEqual([six]);
  });
  test("mapped addresses come out as IPv4", () => {
    expect(decodeCompact6(Uint8Array.fromHex("00000000000000000000ffff0a0000011ae1"))).toEqual([four]);
  });
  test("entries that nobody can dial are left out", () => {
    expect(decodeCompact4(Uint8Array.fromHex("0a0000010000" + "000000001ae1" + "0a0000011ae1"))).toEqual([four]);
    expect(decodeCompact6(new Uint8Array(18).fill(1, 17))).toEqual([]);
  });
  test("a list cut short is none", () => {
    for (let length = 1; length < 36; length++) {
      expect(decodeCompact4(new Uint8Array(length)) === null).toBe(length % 6 !== 0);
      expect(decodeCompact6(new Uint8Array(length)) === null).toBe(length % 18 !== 0);
    }
  });
});
