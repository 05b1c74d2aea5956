/** The handshake: its bytes, any cut of them, and the first byte that is wrong. */
import { describe, expect, test } from "bun:test";
import { PeerFault } from "../../src/errors.ts";
import {
  encodeHandshake,
  equalBytes,
  HANDSHAKE_BYTES,
  HandshakeReader,
  makePeerId,
  writeHandshake,
} from "../../src/wire/handshake.ts";

const INFO_HASH = new Uint8Array(20).fill(0xaa);
const PEER_ID = makePeerId(new Uint8Array(12).fill(0xbb));
const BYTES = encodeHandshake(INFO_HASH, PEER_ID);

describe("writing", () => {
  test("the bytes of BEP 3 with the bits of BEP 10 and BEP 6", () => {
    expect(BYTES.toHex()).toBe(
      `13${Buffer.from("BitTorrent protocol").toString("hex")}0000000000100004${"aa".repeat(20)}${Buffer.from("-DS0010-").toString("hex")}${"bb".repeat(12)}`,
    );
  });
  test("at an offset of a buffer that held something else", () => {
    const target = new Uint8Array(80).fill(0xff);
    expect(writeHandshake(target, 5, INFO_HASH, PEER_ID)).toBe(73);
    expect(target.subarray(5, 73).toHex()).toBe(BYTES.toHex());
    expect([target[4], target[73]]).toEqual([0xff, 0xff]);
    expect(() => writeHandshake(new Uint8Array(67), 0, INFO_HASH, PEER_ID)).toThrow("no room");
  });
});

describe("HandshakeReader", () => {
  test("takes 68 bytes of any cut and leaves what follows", () => {
    const stream = new Uint8Array([...BYTES, 0, 0, 0, 0]);
    for (let cut = 1; cut <= stream.length; cut++) {
      const reader = new HandshakeReader();
      let at = 0;
      while (!reader.done) at += reader.push(stream, at, Math.min(stream.length, at + cut));
      expect(at).toBe(HANDSHAKE_BYTES);
      expect(reader.push(stream, at)).toBe(0);
      expect(equalBytes(reader.infoHash, INFO_HASH)).toBe(true);
      expect(equalBytes(reader.peerId, PEER_ID)).toBe(true);
      expect([reader.supportsExtensions, reader.supportsFast, reader.wanted]).toEqual([true, true, 0]);
    }
  });
  test("knows the info hash before the peer id", () => {
    const reader = new HandshakeReader();
    reader.push(BYTES, 0, 47);
    expect([reader.hasInfoHash, reader.done, reader.wanted]).toEqual([false, false, 21]);
    reader.push(BYTES, 47, 48);
    expect([reader.hasInfoHash, reader.done]).toEqual([true, false]);
  });
  test("reserved bits of others are borne", () => {
    const bytes = BYTES.slice();
    bytes.fill(0, 20, 28);
    bytes[27] = 0x01;
    const reader = new HandshakeReader();
    reader.push(bytes);
    expect([reader.done, reader.supportsExtensions, reader.supportsFast]).toEqual([true, false, false]);
  });
  test("every byte but 0x13 fails at once", () => {
    for (let byte = 0; byte < 256; byte++) {
      if (byte === 0x13) continue;
      const reader = new HandshakeReader();
      expect(() => reader.push(Uint8Array.of(byte))).toThrow(PeerFault);
      expect(reader.notPlaintext).toBe(true);
    }
  });
  test("a wrong byte of the protocol's name fails where it is, not before", () => {
    for (let wrong = 1; wrong < 20; wrong++) {
      const bytes = BYTES.slice();
      bytes[wrong]! ^= 1;
      const reader = new HandshakeReader();
      reader.push(bytes, 0, wrong);
      expect(() => reader.push(bytes, wrong, wrong + 1)).toThrow(`handshake of another protocol at byte ${wrong}`);
      expect(reader.notPlaintext).toBe(false);
    }
  });
});

test("equalBytes", () => {
  expect([
    equalBytes(INFO_HASH, INFO_HASH.slice()),
    equalBytes(INFO_HASH, PEER_ID),
    equalBytes(INFO_HASH, new Uint8Array(19)),
  ]).toEqual([true, false, false]);
});
