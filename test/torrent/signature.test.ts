/** Signed torrents: what is signed, what is believed, and every way in which a signature can be wrong. */
import { describe, expect, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import bencode from "bencode";
import { Failure } from "../../src/errors.ts";
import { encodeMetainfo, infoBytesOfTorrent, withoutSource, withSignature } from "../../src/torrent/create.ts";
import { loadSigner, makeKeyPair } from "../../src/torrent/ed25519.ts";
import { makeExtentTable } from "../../src/torrent/extents.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import { PieceDigests } from "../../src/torrent/piece-digests.ts";
import { requireSignature, signatureHolds, signTorrent } from "../../src/torrent/signature.ts";

const SHA256 = Uint8Array.from({ length: 64 }, (_, i) => i);
const UNSIGNED = encodeMetainfo({
  name: "lab",
  pieceBytes: 262144,
  pieceHashes: new Uint8Array(40).fill(7),
  extents: makeExtentTable(Float64Array.of(0), Float64Array.of(262145)),
  image: null,
  trackers: [["http://a/announce"]],
  sourcePath: "/dev/sdb",
  createdBy: "test",
  creationDateSeconds: null,
});
const pair = await makeKeyPair();
const signer = (await loadSigner(pair.privatePem))!;
const SIGNED = withSignature(UNSIGNED, SHA256, signTorrent(signer, infoBytesOfTorrent(UNSIGNED), SHA256));

/** The code of the refusal. */
async function refusal(torrent: Uint8Array, key: Uint8Array): Promise<string> {
  const error = await requireSignature(parseMetainfo(torrent), key).catch((thrown: unknown) => thrown);
  if (!(error instanceof Failure)) return "none";
  expect(error.exitCode).toBe(3);
  return error.code;
}

describe("a signed torrent", () => {
  test("holds the signature of the raw info bytes and the list, and keeps its info hash", () => {
    const outside = bencode.decode(Buffer.from(SIGNED)) as {
      "diskswarm signature": { "public key": Uint8Array; signature: Uint8Array };
    };
    const { x } = createPublicKey({
      key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(pair.publicKey).toString("base64url") },
      format: "jwk",
    }).export({ format: "jwk" });
    expect(x).toBe(Buffer.from(outside["diskswarm signature"]["public key"]).toString("base64url"));
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    const message = Buffer.concat([infoBytesOfTorrent(SIGNED), SHA256]);
    expect(verify(null, message, key, outside["diskswarm signature"].signature)).toBe(true);
    expect(parseMetainfo(SIGNED).infoHash).toEqual(parseMetainfo(UNSIGNED).infoHash);
  });

  test("is trusted by its key, also as a server hands it out", async () => {
    expect(await refusal(SIGNED, pair.publicKey)).toBe("none");
    expect(await refusal(withoutSource(SIGNED), pair.publicKey)).toBe("none");
    expect(await signatureHolds(parseMetainfo(SIGNED))).toBe(true);
  });

  test("is not trusted by another key, without a signature, or changed in any byte that is signed", async () => {
    expect(await refusal(SIGNED, (await makeKeyPair()).publicKey)).toBe("wrong-key");
    expect(await refusal(UNSIGNED, pair.publicKey)).toBe("unsigned");
    expect(await signatureHolds(parseMetainfo(UNSIGNED))).toBe(false);
    for (const signed of [Buffer.from(SHA256), Buffer.alloc(40, 7), Buffer.from("3:lab")]) {
      const changed = Buffer.from(SIGNED);
      changed[changed.indexOf(signed) + signed.length - 1]! ^= 1;
      expect(await refusal(changed, pair.publicKey)).toBe("bad-signature");
    }
  });

  test("is no torrent where list or signature have another length", () => {
    const signature = { publicKey: pair.publicKey, bytes: new Uint8Array(64) };
    expect(() => parseMetainfo(withSignature(UNSIGNED, SHA256.subarray(32), signature))).toThrow("is of 1 pieces");
    const short = { ...signature, bytes: new Uint8Array(63) };
    expect(() => parseMetainfo(withSignature(UNSIGNED, SHA256, short))).toThrow("none of ed25519");
    expect(() => parseMetainfo(SIGNED.subarray(0, SIGNED.length - 1))).toThrow(Failure);
  });
});

test("a text that is no private key gives no signer", async () => {
  for (const text of ["", "-----BEGIN PRIVATE KEY-----", pair.privatePem.slice(0, 60)])
    expect(await loadSigner(text)).toBe(null);
});

test("pieces are compared with the list that is trusted", () => {
  const metainfo = parseMetainfo(SIGNED);
  const sha1 = PieceDigests.of(metainfo, false);
  const sha256 = PieceDigests.of(metainfo, true);
  expect([sha1.algorithm, sha256.algorithm]).toEqual(["sha1", "sha256"]);
  expect(sha1.isRight(1, new Uint8Array(20).fill(7))).toBe(true);
  expect(sha256.isRight(1, SHA256.subarray(32))).toBe(true);
  expect(sha256.isRight(0, SHA256.subarray(32))).toBe(false);
});
