/**
 * Messages from the main thread to the reactor thread, which never returns to an event loop: a ring of
 * bytes in shared memory and an eventfd that the reactor polls. One writer, one reader, both bounded.
 *
 * A message is JSON behind a 4-byte length. These are rare (addresses, stop); payload never goes this way.
 */
import { assert } from "../errors.ts";

const HEADER_WORDS = 2;
const CAPACITY_BYTES = 256 * 1024;
const READ_AT = 0;
const WRITTEN_AT = 1;

export function createMailboxMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(HEADER_WORDS * 4 + CAPACITY_BYTES);
}

export class Mailbox<Message> {
  readonly #words: Int32Array;
  readonly #ring: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, HEADER_WORDS);
    this.#ring = new Uint8Array(memory, HEADER_WORDS * 4, CAPACITY_BYTES);
  }

  /** Writer's side. False where the reader is so far behind that the message does not fit; nothing is written then. */
  send(message: Message): boolean {
    const bytes = new TextEncoder().encode(JSON.stringify(message));
    const readAt = Atomics.load(this.#words, READ_AT);
    const writtenAt = Atomics.load(this.#words, WRITTEN_AT);
    const usedBytes = (writtenAt - readAt) >>> 0;
    if (usedBytes + 4 + bytes.length > CAPACITY_BYTES) return false;
    const header = new Uint8Array(4);
    new DataView(header.buffer).setUint32(0, bytes.length);
    this.#put(writtenAt, header);
    this.#put(writtenAt + 4, bytes);
    Atomics.store(this.#words, WRITTEN_AT, (writtenAt + 4 + bytes.length) | 0);
    return true;
  }

  /** Reader's side: the next message, or null. */
  receive(): Message | null {
    const readAt = Atomics.load(this.#words, READ_AT);
    const writtenAt = Atomics.load(this.#words, WRITTEN_AT);
    const usedBytes = (writtenAt - readAt) >>> 0;
    if (usedBytes === 0) return null;
    const header = this.#take(readAt, 4);
    const lengthBytes = new DataView(header.buffer).getUint32(0);
    assert(lengthBytes + 4 <= usedBytes, "a message is in the ring whole");
    const text = new TextDecoder().decode(this.#take(readAt + 4, lengthBytes));
    Atomics.store(this.#words, READ_AT, (readAt + 4 + lengthBytes) | 0);
    return JSON.parse(text) as Message;
  }

  #put(at: number, bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) this.#ring[(at + i) & (CAPACITY_BYTES - 1)] = bytes[i]!;
  }

  #take(at: number, lengthBytes: number): Uint8Array {
    const bytes = new Uint8Array(lengthBytes);
    for (let i = 0; i < lengthBytes; i++) bytes[i] = this.#ring[(at + i) & (CAPACITY_BYTES - 1)]!;
    return bytes;
  }
}
