/**
 * Hashing in the reactor's own thread, for a machine with one core where a second thread would only add
 * switches. `update` does the work; the reports wait for `drain`, so that callers see the same order of
 * events as with workers. The memory region belongs to the caller.
 */
import { assert } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import { bufferAt } from "../kernel/libc.ts";
import type { Address } from "../kernel/reactor.ts";
import type { HasherOptions } from "./hash-pool.ts";
import { DIGEST_BYTES_MAX } from "./hash-ring.ts";
import { DIGEST_BYTES, type HashAlgorithm, type HashHandler, type Hasher, type PackHandler } from "./hasher.ts";
import { PieceHash } from "./piece-hash.ts";
import { Zstd } from "./zstd.ts";

/** Reports that wait for `drain`; bounds how long one turn of the reactor hashes (256 MiB in blocks of 1 MiB). */
const REPORTS_MAX = 256;

const enum ReportKind {
  hash,
  packed,
  unpacked,
}

export class InlineHasher implements Hasher {
  readonly workers = 0;
  readonly contextsMax: number;
  readonly wakeFd: number;
  readonly #wake = EventFd.create();
  readonly #regionStart: Address;
  readonly #region: ArrayBuffer;
  readonly #algorithm: HashAlgorithm;
  readonly #hashers: (PieceHash | null)[];
  readonly #pending: Int32Array;
  /** Waiting reports in order: context or tag, and the length or -1 for a digest; of a packed block, what came of it. */
  readonly #reportContext = new Int32Array(REPORTS_MAX);
  readonly #reportBytes = new Int32Array(REPORTS_MAX);
  readonly #reportKind = new Uint8Array(REPORTS_MAX);
  readonly #zstd = new Zstd();
  readonly #digests = new Uint8Array(REPORTS_MAX * DIGEST_BYTES_MAX);
  readonly #digestBytes: number;
  /** Counters of reports made and reported since the start. */
  #made = 0;
  #reported = 0;
  #asleep = false;
  #slept = false;

  constructor(options: HasherOptions) {
    this.contextsMax = options.contextsMax;
    this.wakeFd = this.#wake.fd;
    this.#regionStart = options.address;
    this.#region = bufferAt(options.address, options.lengthBytes);
    this.#algorithm = options.algorithm ?? "sha1";
    this.#digestBytes = DIGEST_BYTES[this.#algorithm];
    this.#hashers = new Array<PieceHash | null>(options.contextsMax).fill(null);
    this.#pending = new Int32Array(options.contextsMax);
  }

  begin(context: number): void {
    assert(this.#pending[context] === 0, "a hash context is begun while nothing of it is pending");
    this.#hashers[context] = null;
  }

  update(context: number, address: Address, lengthBytes: number): boolean {
    if (this.#isFull()) return false;
    this.#hasher(context).update(this.#view(address, lengthBytes));
    this.#report(context, lengthBytes);
    return true;
  }

  pack(tag: number, source: Address, lengthBytes: number, target: Address, roomBytes: number): boolean {
    if (this.#isFull()) return false;
    const packedBytes = this.#zstd.pack(this.#view(source, lengthBytes), this.#view(target, roomBytes));
    this.#addReport(ReportKind.packed, tag, packedBytes);
    return true;
  }

  unpack(tag: number, source: Address, packedBytes: number, target: Address, lengthBytes: number): boolean {
    if (this.#isFull()) return false;
    const isSound = this.#zstd.unpack(this.#view(source, packedBytes), this.#view(target, lengthBytes));
    this.#addReport(ReportKind.unpacked, tag, Number(isSound));
    return true;
  }

  #view(address: Address, lengthBytes: number): Uint8Array {
    const offset = address - this.#regionStart;
    assert(
      lengthBytes > 0 && offset >= 0 && offset + lengthBytes <= this.#region.byteLength,
      "the bytes of a job lie in the region",
    );
    return new Uint8Array(this.#region, offset, lengthBytes);
  }

  finish(context: number): boolean {
    if (this.#isFull()) return false;
    const at = (this.#made % REPORTS_MAX) * DIGEST_BYTES_MAX;
    this.#hasher(context).digest(this.#digests.subarray(at, at + this.#digestBytes));
    this.#hashers[context] = null;
    this.#report(context, -1);
    return true;
  }

  #isFull(): boolean {
    return this.#made - this.#reported === REPORTS_MAX;
  }

  #hasher(context: number): PieceHash {
    assert(context >= 0 && context < this.contextsMax, "a hash context exists");
    this.#hashers[context] ??= new PieceHash(this.#algorithm);
    return this.#hashers[context];
  }

  #report(context: number, lengthBytes: number): void {
    this.#pending[context]++;
    this.#addReport(ReportKind.hash, context, lengthBytes);
  }

  #addReport(kind: ReportKind, context: number, lengthBytes: number): void {
    const slot = this.#made % REPORTS_MAX;
    this.#reportKind[slot] = kind;
    this.#reportContext[slot] = context;
    this.#reportBytes[slot] = lengthBytes;
    this.#made++;
  }

  drain(handler: HashHandler, packs?: PackHandler): number {
    if (this.#slept) this.#wake.reset();
    this.#slept = this.#asleep;
    const end = this.#made;
    const reports = end - this.#reported;
    while (this.#reported < end) {
      this.#tell(this.#reported % REPORTS_MAX, handler, packs);
      this.#reported++;
    }
    return reports;
  }

  #tell(slot: number, handler: HashHandler, packs: PackHandler | undefined): void {
    const context = this.#reportContext[slot];
    const lengthBytes = this.#reportBytes[slot];
    if (this.#reportKind[slot] === ReportKind.packed) return packs?.packed(context, lengthBytes);
    if (this.#reportKind[slot] === ReportKind.unpacked) return packs?.unpacked(context, lengthBytes === 1);
    this.#pending[context]--;
    if (lengthBytes >= 0) handler.updated(context, lengthBytes);
    else {
      const at = slot * DIGEST_BYTES_MAX;
      handler.finished(context, this.#digests.subarray(at, at + this.#digestBytes));
    }
  }

  sleeping(asleep: boolean): void {
    this.#asleep = asleep;
    if (asleep) this.#slept = true;
    if (asleep && this.#made > this.#reported) this.#wake.signal();
  }

  close(): void {
    this.#wake.close();
  }
}
