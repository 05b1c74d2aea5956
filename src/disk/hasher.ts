/**
 * Streaming hashes computed beside the reactor: the contract between the data plane and `hash-pool.ts`
 * (worker threads) or `hash-inline.ts` (a machine with one core).
 *
 * A context is a small integer owned by the caller; bytes of one context are hashed in the order of the
 * `update` calls. The memory stays untouched until the update was reported by `drain`.
 */
import type { Address } from "../kernel/reactor.ts";

/** `sha1+sha256`: both of the same bytes, the digests one behind the other. */
export type HashAlgorithm = "sha1" | "sha256" | "sha1+sha256";
export const DIGEST_BYTES: Record<HashAlgorithm, number> = { sha1: 20, sha256: 32, "sha1+sha256": 52 };

/** Contexts of one thread that are best fed at the same time: as many as it hashes side by side. */
export const CONTEXTS_PER_THREAD = 4;

export interface HashHandler {
  /** `lengthBytes` more of the context are hashed: that memory may be reused. Called in order. */
  updated(context: number, lengthBytes: number): void;
  /** The digest of everything since `begin`; the view is valid during the call only. */
  finished(context: number, digest: Uint8Array): void;
}

/** Hears of blocks that were packed or inflated beside the hashing. */
export interface PackHandler {
  /** The block of that tag was packed into `packedBytes`; 0: it did not fit the room that was given. */
  packed(tag: number, packedBytes: number): void;
  /** The block of that tag was inflated, or is not one sound frame of its length. */
  unpacked(tag: number, isSound: boolean): void;
}

/** Jobs of the same threads for packed blocks. Memory is of the same region, and in use until the report. */
export interface Packer {
  /** Packs `lengthBytes` at `source` into at most `roomBytes` at `target`. False: queue full. */
  pack(tag: number, source: Address, lengthBytes: number, target: Address, roomBytes: number): boolean;
  /** Inflates `packedBytes` at `source` into `lengthBytes` at `target`; they may overlap. False: queue full. */
  unpack(tag: number, source: Address, packedBytes: number, target: Address, lengthBytes: number): boolean;
}

export interface Hasher extends Packer {
  /** Contexts 0 to contextsMax - 1 exist. */
  readonly contextsMax: number;
  /** Worker threads that hash; 0: `update` itself does the work. */
  readonly workers: number;
  /** Readable (eventfd) when `drain` has something to report and the reactor may be asleep. `drain` reads it. */
  readonly wakeFd: number;
  /** Starts (or restarts) a context with an empty hash. Nothing of that context may be pending. */
  begin(context: number): void;
  /** Adds bytes [address, address + lengthBytes) of the memory region given at construction. False: queue full, drain and try again. */
  update(context: number, address: Address, lengthBytes: number): boolean;
  /** Asks for the digest. False: queue full. */
  finish(context: number): boolean;
  /** Reports what was completed since the last call. Returns how many reports were made. */
  drain(handler: HashHandler, packs?: PackHandler): number;
  /** Call with true just before `Reactor.run` sleeps and false after: saves a system call per job. */
  sleeping(asleep: boolean): void;
  /** Ends the workers. Jobs still queued are dropped; the memory region may be freed afterwards. */
  close(): void;
}
