/** Hashing by the runtime's library, one context after the other: any algorithm, on any processor. */
import { assert } from "../errors.ts";
import type { HashLanes } from "./hash-lanes.ts";
import { DIGEST_BYTES, type HashAlgorithm } from "./hasher.ts";
import type { MemoryRegion } from "./memory-region.ts";

/** Bun writes digests into 64 bytes or more. */
const room = new Uint8Array(64);
const NONE = -1;

export class LibraryLane implements HashLanes {
  readonly lanesMax = 1;
  #active = 0;
  readonly #hashes = new Map<number, ContextHash>();
  #tag = NONE;
  #context = NONE;
  #offsetBytes = 0;
  #lengthBytes = 0;

  constructor(
    readonly algorithm: HashAlgorithm,
    readonly region: MemoryRegion,
  ) {}

  get active(): number {
    return this.#active;
  }

  begin(context: number): void {
    // A digest resets its hash, so it serves the context's next piece; one that was given up half way does not.
    if (this.#hashes.get(context)?.isUsed !== false) this.#hashes.set(context, new ContextHash(this.algorithm));
  }

  isBusy(context: number): boolean {
    return this.#active > 0 && this.#context === context;
  }

  start(tag: number, context: number, offsetBytes: number, lengthBytes: number): boolean {
    assert(this.#active === 0, "a library hashes one update at a time");
    this.#active = 1;
    this.#tag = tag;
    this.#context = context;
    this.#offsetBytes = offsetBytes;
    this.#lengthBytes = lengthBytes;
    return true;
  }

  work(done: (tag: number) => void): void {
    this.#hash(this.#context).update(this.region.view(this.#offsetBytes, this.#lengthBytes));
    this.#active = 0;
    done(this.#tag);
  }

  digest(context: number, target: Uint8Array): void {
    this.#hash(context).digest(target);
  }

  free(): void {
    this.#hashes.clear();
  }

  #hash(context: number): ContextHash {
    const hash = this.#hashes.get(context);
    assert(hash, "a hash context is begun before it is used");
    return hash;
  }
}

/** The hash of one context, SHA-1, SHA-256 or both of the same bytes: native memory that the collector hardly sees, made once. */
class ContextHash {
  /** It was fed since it was made or since its last digest. */
  isUsed = false;
  readonly #hashes: readonly { readonly hash: Bun.CryptoHasher; readonly bytes: Uint8Array }[];

  constructor(algorithm: HashAlgorithm) {
    const names = algorithm.split("+") as ("sha1" | "sha256")[];
    this.#hashes = names.map((name) => ({
      hash: new Bun.CryptoHasher(name),
      bytes: room.subarray(0, DIGEST_BYTES[name]),
    }));
  }

  update(bytes: Uint8Array): void {
    this.isUsed = true;
    for (const { hash } of this.#hashes) hash.update(bytes);
  }

  /** The digests one behind the other. */
  digest(target: Uint8Array): void {
    let at = 0;
    for (const { hash, bytes } of this.#hashes) {
      hash.digest(room);
      target.set(bytes, at);
      at += bytes.length;
    }
    this.isUsed = false;
  }
}
