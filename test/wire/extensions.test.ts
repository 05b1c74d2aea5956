/** Extended messages: what we send as another reader sees it, what clients send, and what is malformed. */
import { describe, expect, test } from "bun:test";
import bencode from "bencode";
import { PeerFault } from "../../src/errors.ts";
import { BLOCK_BYTES_MAX, PEX_PEERS_MAX } from "../../src/limits.ts";
import { parseAddress } from "../../src/wire/address.ts";
import {
  decodeExtensionHandshake,
  decodeMetadataMessage,
  decodePex,
  encodeExtensionHandshake,
  encodeMetadataData,
  encodeMetadataReject,
  encodeMetadataRequest,
  encodePex,
  METADATA_PIECE_BYTES,
  NO_EXTENSIONS,
  PexFlag,
} from "../../src/wire/extensions.ts";

const text = (value: string): Uint8Array => Buffer.from(value, "latin1");

describe("the handshake of BEP 10", () => {
  const full = {
    metadataId: 1,
    pexId: 2,
    packedId: 3,
    client: "diskswarm 0.1.0",
    port: 6881,
    requestsMax: 512,
    metadataBytes: 31235,
    yourHost: "10.0.0.7",
    uploadOnly: true,
    blockBytes: BLOCK_BYTES_MAX,
  };
  test("as another reader sees it", () => {
    expect(bencode.decode(encodeExtensionHandshake(full))).toEqual({
      ds_block: 1048576,
      m: { ds_zstd: 3, ut_metadata: 1, ut_pex: 2 },
      metadata_size: 31235,
      p: 6881,
      reqq: 512,
      upload_only: 1,
      v: new Uint8Array(text("diskswarm 0.1.0")),
      yourip: Uint8Array.of(10, 0, 0, 7),
    });
  });
  test("is read back, full and empty", () => {
    expect(decodeExtensionHandshake(encodeExtensionHandshake(full))).toEqual(full);
    expect(decodeExtensionHandshake(encodeExtensionHandshake(NO_EXTENSIONS))).toEqual(NO_EXTENSIONS);
    expect(Buffer.from(encodeExtensionHandshake(NO_EXTENSIONS)).toString()).toBe("d1:mdee");
    const six = { ...full, yourHost: "2001:db8::1" };
    expect(decodeExtensionHandshake(encodeExtensionHandshake(six))).toEqual(six);
  });
  test("of a client with other extensions and keys out of order", () => {
    const read = decodeExtensionHandshake(
      text("d1:v7:Client!1:md11:lt_donthavei7e11:ut_metadatai3e6:ut_pexi0ee12:complete_agoi-1e4:reqqi2000ee"),
    );
    expect(read).toEqual({ ...NO_EXTENSIONS, client: "Client!", metadataId: 3, requestsMax: 2000 });
  });
  test("entries of another type or beyond their range count as absent", () => {
    const odd =
      "d8:ds_blocki100e1:mle13:metadata_sizei99999999999e1:pi65536e4:reqqi0e11:upload_onlyi2e1:vi1e6:yourip3:abce";
    expect(decodeExtensionHandshake(text(odd))).toEqual(NO_EXTENSIONS);
    expect(
      decodeExtensionHandshake(text("d8:ds_block1:x1:md11:ut_metadatai256e6:ut_pexi-1ee4:reqqi99999999999999999999ee")),
    ).toEqual(NO_EXTENSIONS);
  });
  test("an offer of large blocks is cut to what we take, in multiples of 16 KiB", () => {
    const blocks = (value: number) => decodeExtensionHandshake(text(`d8:ds_blocki${value}ee`)).blockBytes;
    expect([16384, 40000, 2 ** 30].map(blocks)).toEqual([16384, 32768, BLOCK_BYTES_MAX]);
    expect([0, 16383, -1].map(blocks)).toEqual([null, null, null]);
  });
  test("a client's name cannot drive a terminal or fill a log", () => {
    expect(decodeExtensionHandshake(text("d1:v5:a\x1b[2Je")).client).toBe("a?[2J");
    expect(decodeExtensionHandshake(text(`d1:v200:${"n".repeat(200)}e`)).client).toBe("n".repeat(64));
  });
  for (const malformed of [
    "",
    "i1e",
    "le",
    "d1:m",
    "d1:mi1e",
    "d1:mdeee",
    `${"l".repeat(60)}`,
    "d1:v9:xe",
    "d1:pi01ee",
  ]) {
    test(`refuses ${JSON.stringify(malformed)}`, () => {
      expect(() => decodeExtensionHandshake(text(malformed))).toThrow(PeerFault);
    });
  }
  test("refuses every truncation", () => {
    const bytes = encodeExtensionHandshake(full);
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeExtensionHandshake(bytes.subarray(0, length))).toThrow(PeerFault);
    }
  });
});

describe("metadata of BEP 9", () => {
  const info = Uint8Array.from({ length: METADATA_PIECE_BYTES + 100 }, (_, i) => i);
  test("requests and rejects", () => {
    expect(Buffer.from(encodeMetadataRequest(3)).toString()).toBe("d8:msg_typei0e5:piecei3ee");
    expect(decodeMetadataMessage(encodeMetadataRequest(3))).toEqual({ kind: "request", piece: 3 });
    expect(decodeMetadataMessage(encodeMetadataReject(4))).toEqual({ kind: "reject", piece: 4 });
  });
  test("data of every piece, and none beyond", () => {
    const parts = [0, 1].map((piece) => {
      const message = decodeMetadataMessage(encodeMetadataData(info, piece)!);
      if (message.kind !== "data") throw new Error(message.kind);
      expect([message.piece, message.totalBytes]).toEqual([piece, info.length]);
      return message.data;
    });
    expect(new Uint8Array(Buffer.concat(parts))).toEqual(info);
    expect(encodeMetadataData(info, 2)).toBeNull();
    expect(encodeMetadataData(info.subarray(0, METADATA_PIECE_BYTES), 1)).toBeNull();
  });
  test("types of a later version are told, not refused", () => {
    expect(decodeMetadataMessage(text("d8:msg_typei9ee"))).toEqual({ kind: "unknown" });
  });
  const tooLong = `d8:msg_typei1e5:piecei0ee${"x".repeat(METADATA_PIECE_BYTES + 1)}`;
  for (const malformed of [
    "",
    "de",
    "d8:msg_typei0ee",
    "d5:piecei0ee",
    "d8:msg_typei-1e5:piecei0ee",
    "d8:msg_type1:0e",
    tooLong,
  ]) {
    test(`refuses ${JSON.stringify(malformed.slice(0, 40))}`, () => {
      expect(() => decodeMetadataMessage(text(malformed))).toThrow(PeerFault);
    });
  }
});

describe("peer exchange of BEP 11", () => {
  const four = parseAddress("10.0.0.1:6881")!;
  const six = parseAddress("[2001:db8::1]:6882")!;
  test("as another reader sees it, and back", () => {
    const message = {
      added: [
        { address: four, flags: PexFlag.seed },
        { address: six, flags: PexFlag.reachable },
      ],
      dropped: [six],
    };
    const encoded = encodePex(message);
    expect(bencode.decode(encoded)).toEqual({
      added: Uint8Array.fromHex("0a0000011ae1"),
      "added.f": Uint8Array.of(2),
      added6: Uint8Array.fromHex("20010db80000000000000000000000011ae2"),
      "added6.f": Uint8Array.of(16),
      dropped: new Uint8Array(0),
      dropped6: Uint8Array.fromHex("20010db80000000000000000000000011ae2"),
    });
    expect(decodePex(encoded)).toEqual(message);
  });
  test("an entry that is left out does not shift the flags of the others", () => {
    const read = decodePex(text("d5:added12:\x0a\0\0\x02\0\0\x0a\0\0\x01\x1a\xe17:added.f2:\x01\x02e"));
    expect(read.added).toEqual([{ address: four, flags: 2 }]);
  });
  test("missing flags are none; missing lists are empty", () => {
    expect(decodePex(text("d5:added6:\x0a\0\0\x01\x1a\xe1e"))).toEqual({
      added: [{ address: four, flags: 0 }],
      dropped: [],
    });
    expect(decodePex(text("de"))).toEqual({ added: [], dropped: [] });
  });
  test("no more are taken than the limit", () => {
    const many = Buffer.alloc(6 * 1000, Buffer.from([10, 0, 0, 1, 26, 225]));
    const read = decodePex(Buffer.concat([text("d5:added6000:"), many, text("7:dropped6000:"), many, text("e")]));
    expect([read.added.length, read.dropped.length]).toEqual([PEX_PEERS_MAX, PEX_PEERS_MAX]);
  });
  for (const malformed of [
    "",
    "le",
    "d5:added5:aaaaae",
    "d6:added66:aaaaaae",
    "d5:addedi1ee",
    "d7:dropped1:ae",
    "dex",
  ]) {
    test(`refuses ${JSON.stringify(malformed)}`, () => expect(() => decodePex(text(malformed))).toThrow(PeerFault));
  }
});
