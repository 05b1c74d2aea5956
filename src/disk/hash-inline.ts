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
import { DIGEST_BYTES, type HashHandler, type Hasher } from "./hasher.ts";

/** Reports that wait for `drain`; bounds how long one turn of the reactor hashes (256 MiB in blocks of 1 MiB). */
const REPORTS_MAX = 256;

export class InlineHasher implements Hasher {
  readonly workers = 0;
  readonly contextsMax: number;
  readonly wakeFd: number;
  readonly #wake = EventFd.create();
  readonly #regionStart: Address;
  readonly #region: ArrayBuffer;
  readonly #algorithm: "sha1" | "sha256";
  readonly #hashers: (Bun.CryptoHasher | null)[];
  readonly #pending: Int32Array;
  /** Waiting reports in order: context, and the length or -1 for a digest. */
  readonly #reportContext = new Int32Array(REPORTS_MAX);
  readonly #reportBytes = new Int32Array(REPORTS_MAX);
  readonly #digests = new Uint8Array(REPORTS_MAX * 32);
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
    this.#hashers = new Array<Bun.CryptoHasher | null>(options.contextsMax).fill(null);
    this.#pending = new Int32Array(options.contextsMax);
  }

  begin(context: number): void {
    assert(this.#pending[context] === 0, "a hash context is begun while nothing of it is pending");
    this.#hashers[context] = null;
  }

  update(context: number, address: Address, lengthBytes: number): boolean {
    const offset = address - this.#regionStart;
    assert(
      lengthBytes > 0 && offset >= 0 && offset + lengthBytes <= this.#region.byteLength,
      "hashed bytes lie in the region",
    );
    if (this.#isFull()) return false;
    this.#hasher(context).update(new Uint8Array(this.#region, offset, lengthBytes));
    this.#report(context, lengthBytes);
    return true;
  }

  finish(context: number): boolean {
    if (this.#isFull()) return false;
    const digest = this.#hasher(context).digest();
    this.#hashers[context] = null;
    this.#digests.set(digest, (this.#made % REPORTS_MAX) * 32);
    this.#report(context, -1);
    return true;
  }

  #isFull(): boolean {
    return this.#made - this.#reported === REPORTS_MAX;
  }

  #hasher(context: number): Bun.CryptoHasher {
    assert(context >= 0 && context < this.contextsMax, "a hash context exists");
    this.#hashers[context] ??= new Bun.CryptoHasher(this.#algorithm);
    return this.#hashers[context];
  }

  #report(context: number, lengthBytes: number): void {
    const slot = this.#made % REPORTS_MAX;
    this.#reportContext[slot] = context;
    this.#reportBytes[slot] = lengthBytes;
    this.#pending[context]++;
    this.#made++;
  }

  drain(handler: HashHandler): number {
    if (this.#slept) this.#wake.reset();
    this.#slept = this.#asleep;
    const end = this.#made;
    const reports = end - this.#reported;
    while (this.#reported < end) {
      const slot = this.#reported % REPORTS_MAX;
      const context = this.#reportContext[slot];
      const lengthBytes = this.#reportBytes[slot];
      this.#pending[context]--;
      if (lengthBytes >= 0) handler.updated(context, lengthBytes);
      else handler.finished(context, this.#digests.subarray(slot * 32, slot * 32 + this.#digestBytes));
      this.#reported++;
    }
    return reports;
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
