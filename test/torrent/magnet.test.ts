/** Magnet links as clients write them, and what cannot be used. */
import { describe, expect, test } from "bun:test";
import { Failure } from "../../src/errors.ts";
import { formatMagnet, isMagnet, parseMagnet } from "../../src/torrent/magnet.ts";

const HEX = "0123456789abcdef0123456789abcdef01234567";
const HASH = Uint8Array.fromHex(HEX);

describe("parseMagnet", () => {
  test("reads hash, name, trackers and peers", () => {
    const link = `magnet:?xt=urn:btih:${HEX}&dn=lab+image%2B&tr=http%3A%2F%2Ft%2Fannounce&tr.1=udp://u:1&x.pe=10.0.0.1:6881&x.pe=[2001:db8::1]:1&xl=5`;
    expect(parseMagnet(link)).toEqual({
      infoHash: HASH,
      name: "lab image+",
      trackers: ["http://t/announce", "udp://u:1"],
      peers: ["10.0.0.1:6881", "[2001:db8::1]:1"],
    });
  });
  test("reads base32 and upper case", () => {
    const base32 = "AERUKZ4JVPG66AJDIVTYTK6N54ASGRLH";
    expect(parseMagnet(`MAGNET:?XT=URN:BTIH:${base32}`).infoHash).toEqual(HASH);
    expect(parseMagnet(`magnet:?xt=urn:btih:${base32.toLowerCase()}`).infoHash).toEqual(HASH);
    expect(parseMagnet(`magnet:?xt=urn:btih:${HEX.toUpperCase()}`).infoHash).toEqual(HASH);
  });
  test("takes the v1 hash of a hybrid link", () => {
    expect(parseMagnet(`magnet:?xt=urn:btmh:1220${"0".repeat(64)}&xt=urn:btih:${HEX}`).infoHash).toEqual(HASH);
  });
  test("is what formatMagnet writes", () => {
    const magnet = { infoHash: HASH, name: "a&b=c d", trackers: ["http://t/?x=1&y=a+b"], peers: ["host:1"] };
    expect(parseMagnet(formatMagnet(magnet))).toEqual(magnet);
    expect(formatMagnet({ infoHash: HASH, name: null, trackers: [], peers: [] })).toBe(`magnet:?xt=urn:btih:${HEX}`);
  });

  const refused: [string, string][] = [
    ["magnet:?dn=x", "it names no torrent"],
    ["http://x", "it does not start with magnet:?"],
    ["magnet:?xt=urn:btih:1234", "neither 40 hex nor 32 base32 digits"],
    [`magnet:?xt=urn:btih:${"z".repeat(40)}`, "neither 40 hex"],
    [`magnet:?xt=urn:btih:${"0".repeat(32)}`, "neither 40 hex"],
    [`magnet:?xt=urn:btmh:1220${"0".repeat(64)}`, "it names no BitTorrent v1 info hash"],
    [`magnet:?xt=urn:btih:${HEX}&xt=urn:btih:${"0".repeat(40)}`, "it names two torrents"],
    [`magnet:?xt=urn:btih:${HEX}&dn=%ff`, "is not percent-encoded UTF-8"],
    [`magnet:?xt=urn:btih:${HEX}&dn`, '"dn" has no value'],
    [`magnet:?xt=urn:btih:${HEX}&x.pe=host`, 'its peer "host" is not host:port'],
    [`magnet:?xt=urn:btih:${HEX}&x.pe=host:0`, "is not host:port"],
    [`magnet:?xt=urn:btih:${HEX}&x.pe=::1:80`, "is not host:port"],
    [`magnet:?xt=urn:btih:${HEX}${"&tr=a".repeat(300)}`, "more than 256 trackers"],
    [`magnet:?${"x".repeat(100_000)}`, "it is too long"],
  ];
  for (const [link, message] of refused) {
    test(`refuses: ${message}, ${link.slice(0, 60)}`, () => {
      expect(() => parseMagnet(link)).toThrow(message);
      expect(() => parseMagnet(link)).toThrow(Failure);
    });
  }
});

test("isMagnet tells links from paths", () => {
  expect([isMagnet("magnet:?xt"), isMagnet("Magnet:"), isMagnet("magnet.torrent"), isMagnet("")]).toEqual([
    true,
    true,
    false,
    false,
  ]);
});
