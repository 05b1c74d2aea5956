/**
 * What proves a piece: the SHA-1 list of BEP 3, or for whoever was given a key the signed list of SHA-256.
 * One place compares digests, so that a scan, a verification and a deployment cannot differ in what they believe.
 */
import { assert } from "../errors.ts";
import type { Metainfo } from "./types.ts";

export class PieceDigests {
  private constructor(
    readonly algorithm: "sha1" | "sha256",
    /** One after the other, in the order of the pieces. */
    private readonly digests: Uint8Array,
    private readonly digestBytes: number,
  ) {}

  /** `trusted`: a signature over the list of SHA-256 was checked, and only that list counts. */
  static of(metainfo: Pick<Metainfo, "pieceHashes" | "sha256">, trusted: boolean): PieceDigests {
    if (!trusted) return new PieceDigests("sha1", metainfo.pieceHashes, 20);
    assert(metainfo.sha256 !== null, "a torrent whose signature was checked has its list");
    return new PieceDigests("sha256", metainfo.sha256, 32);
  }

  /** Whether `digest`, as computed by `algorithm`, is that of the piece. Allocates nothing. */
  isRight(index: number, digest: Uint8Array): boolean {
    const at = index * this.digestBytes;
    for (let i = 0; i < this.digestBytes; i++) if (digest[i] !== this.digests[at + i]) return false;
    return true;
  }
}
