/**
 * The 68 bytes that open a connection (BEP 3), with the reserved bits of BEP 10 and BEP 6.
 *
 * The reader is fed any cut of the stream and fails at the first byte that is wrong: Transmission and aria2
 * try encryption first and come back in plaintext only when the connection closes at once.
 */
import { assert, PeerFault } from "../errors.ts";

export const HANDSHAKE_BYTES = 68;
export const INFO_HASH_BYTES = 20;
export const PEER_ID_BYTES = 20;
/** Azureus style: client DS, version 0.1.0 with one digit each and a filler. */
export const PEER_ID_PREFIX = "-DS0010-";
export const PEER_ID_RANDOM_BYTES = PEER_ID_BYTES - PEER_ID_PREFIX.length;

const RESERVED_AT = 20;
const INFO_HASH_AT = 28;
const PEER_ID_AT = 48;
const EXTENSIONS_BYTE = RESERVED_AT + 5;
const EXTENSIONS_BIT = 0x10;
const FAST_BYTE = RESERVED_AT + 7;
const FAST_BIT = 0x04;

const PROTOCOL = new TextEncoder().encode("\x13BitTorrent protocol");

/** Our peer id: the prefix and 12 random bytes of the caller. */
export function makePeerId(random: Uint8Array): Uint8Array {
  assert(random.length === PEER_ID_RANDOM_BYTES, `peer id needs ${PEER_ID_RANDOM_BYTES} random bytes`);
  const peerId = new Uint8Array(PEER_ID_BYTES);
  new TextEncoder().encodeInto(PEER_ID_PREFIX, peerId);
  peerId.set(random, PEER_ID_PREFIX.length);
  return peerId;
}

/** Writes our handshake (BEP 10 and BEP 6 offered) at `offset`; returns the offset after it. */
export function writeHandshake(target: Uint8Array, offset: number, infoHash: Uint8Array, peerId: Uint8Array): number {
  assert(infoHash.length === INFO_HASH_BYTES && peerId.length === PEER_ID_BYTES, "info hash and peer id have 20 bytes");
  assert(offset + HANDSHAKE_BYTES <= target.length, "no room for a handshake");
  target.set(PROTOCOL, offset);
  target.fill(0, offset + RESERVED_AT, offset + INFO_HASH_AT);
  target[offset + EXTENSIONS_BYTE] = EXTENSIONS_BIT;
  target[offset + FAST_BYTE] = FAST_BIT;
  target.set(infoHash, offset + INFO_HASH_AT);
  target.set(peerId, offset + PEER_ID_AT);
  return offset + HANDSHAKE_BYTES;
}

export function encodeHandshake(infoHash: Uint8Array, peerId: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HANDSHAKE_BYTES);
  writeHandshake(bytes, 0, infoHash, peerId);
  return bytes;
}

/** Reads one handshake incrementally. Its buffer is its own; `infoHash` and `peerId` are views of it. */
export class HandshakeReader {
  private readonly bytes = new Uint8Array(HANDSHAKE_BYTES);
  private have = 0;
  /** The stream does not start with 0x13: most likely an encrypted connection was tried. */
  notPlaintext = false;

  /**
   * Takes bytes [start, end) as far as the handshake goes and returns how many it took. What follows belongs
   * to the frames. A byte that no handshake has there is the peer's fault.
   */
  push(input: Uint8Array, start = 0, end = input.length): number {
    const taken = Math.min(end - start, HANDSHAKE_BYTES - this.have);
    for (let i = 0; i < taken; i++) {
      const at = this.have + i;
      const byte = input[start + i]!;
      if (at < PROTOCOL.length && byte !== PROTOCOL[at]) this.fail(at);
      this.bytes[at] = byte;
    }
    this.have += taken;
    return taken;
  }

  /** Bytes still missing. */
  get wanted(): number {
    return HANDSHAKE_BYTES - this.have;
  }

  get done(): boolean {
    return this.have === HANDSHAKE_BYTES;
  }

  /** The info hash arrives before the peer id: a listener that serves several torrents answers from here on. */
  get hasInfoHash(): boolean {
    return this.have >= PEER_ID_AT;
  }

  get infoHash(): Uint8Array {
    return this.bytes.subarray(INFO_HASH_AT, PEER_ID_AT);
  }

  get peerId(): Uint8Array {
    return this.bytes.subarray(PEER_ID_AT);
  }

  /** BEP 10 is offered. */
  get supportsExtensions(): boolean {
    return (this.bytes[EXTENSIONS_BYTE]! & EXTENSIONS_BIT) !== 0;
  }

  /** BEP 6 is offered. */
  get supportsFast(): boolean {
    return (this.bytes[FAST_BYTE]! & FAST_BIT) !== 0;
  }

  private fail(at: number): never {
    this.notPlaintext = at === 0;
    throw new PeerFault(
      at === 0 ? "not a plaintext BitTorrent handshake" : `handshake of another protocol at byte ${at}`,
    );
  }
}

/** True where two byte strings are equal (info hashes, peer ids: nothing secret). */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
