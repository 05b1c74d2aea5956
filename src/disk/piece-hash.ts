/** The hash of one context: SHA-1, SHA-256 or both of the same bytes. Native memory, so one is used for many pieces. */
import { DIGEST_BYTES, type HashAlgorithm } from "./hasher.ts";

/** Bun writes digests into 64 bytes or more. */
const room = new Uint8Array(64);

export class PieceHash {
  readonly #hashes: readonly { readonly hash: Bun.CryptoHasher; readonly bytes: Uint8Array }[];

  constructor(algorithm: HashAlgorithm) {
    const names = algorithm.split("+") as ("sha1" | "sha256")[];
    this.#hashes = names.map((name) => ({
      hash: new Bun.CryptoHasher(name),
      bytes: room.subarray(0, DIGEST_BYTES[name]),
    }));
  }

  update(bytes: Uint8Array): void {
    for (const { hash } of this.#hashes) hash.update(bytes);
  }

  /** Writes the digests to the start of `target`, one behind the other, and begins anew. */
  digest(target: Uint8Array): void {
    let at = 0;
    for (const { hash, bytes } of this.#hashes) {
      hash.digest(room);
      target.set(bytes, at);
      at += bytes.length;
    }
  }
}
