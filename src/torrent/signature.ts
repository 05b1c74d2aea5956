/**
 * Signed torrents: one SHA-256 for each piece and an Ed25519 signature over the raw info bytes followed by that
 * list, both outside of the info dictionary, so that the info-hash and other clients know nothing of it.
 *
 * SHA-1 can be made to collide by whoever makes the image; a node that was given a key therefore proves pieces by
 * the signed list alone.
 */
import { ExitCode, Failure } from "../errors.ts";
import { isSignedBy, type Signer } from "./ed25519.ts";
import type { Metainfo, TorrentSignature } from "./types.ts";

/** Keys outside of the info dictionary, and inside of the signature's. */
export const SHA256_KEY = "diskswarm sha256";
export const SIGNATURE_KEY = "diskswarm signature";
export const SIGNATURE_PUBLIC_KEY = "public key";
export const SIGNATURE_VALUE = "signature";

/** Signs raw info bytes and the list of SHA-256 digests. */
export function signTorrent(signer: Signer, infoBytes: Uint8Array, sha256: Uint8Array): TorrentSignature {
  return { publicKey: signer.publicKey, bytes: signer.sign(Buffer.concat([infoBytes, sha256])) };
}

/** Whether the signature in a torrent is that of its content by the key that it names. False where there is none. */
export async function signatureHolds({ infoBytes, sha256, signature }: Metainfo): Promise<boolean> {
  if (sha256 === null || signature === null) return false;
  return isSignedBy(signature.publicKey, Buffer.concat([infoBytes, sha256]), signature.bytes);
}

/** Throws Failure (exit 3) unless the torrent is signed by the owner of `publicKey` (32 bytes). */
export async function requireSignature(metainfo: Metainfo, publicKey: Uint8Array): Promise<void> {
  const { signature, name } = metainfo;
  const refuse = (code: string, problem: string, remedy: string) =>
    new Failure(ExitCode.integrity, code, `the torrent ${name} ${problem}: nothing was written; ${remedy}`);
  if (signature === null || metainfo.sha256 === null)
    throw refuse("unsigned", "is not signed", "make it with capture --sign KEYFILE, or deploy without a key");
  if (Buffer.compare(signature.publicKey, publicKey) !== 0) {
    const keys = `it is signed by ${signature.publicKey.toBase64()}, trusted is ${publicKey.toBase64()}`;
    throw refuse("wrong-key", "is not signed by the trusted key", keys);
  }
  if (!(await signatureHolds(metainfo)))
    throw refuse("bad-signature", "has a signature that does not match it", "it was changed or damaged; make it again");
}
