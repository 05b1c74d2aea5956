/**
 * Which pieces a peer has, in the form that goes over the wire (BEP 3): piece 0 is the highest bit of byte 0.
 *
 * A Bitfield owns its bytes; `toWire` and `fromWire` copy.
 */
import { assertRange, PeerFault } from "../errors.ts";

export class Bitfield {
  /** How many pieces are set. */
  private setCount = 0;
  private readonly bytes: Uint8Array;

  constructor(
    /** How many pieces there are. */
    readonly length: number,
  ) {
    this.bytes = new Uint8Array(bitfieldBytes(length));
  }

  /** Reads the body of a bitfield message. A wrong size or a spare bit that is set is the peer's fault. */
  static fromWire(wire: Uint8Array, length: number): Bitfield {
    const bitfield = new Bitfield(length);
    if (wire.length !== bitfield.bytes.length) {
      throw new PeerFault(`bitfield of ${wire.length} bytes, expected ${bitfield.bytes.length}`);
    }
    const spareBits = wire.length * 8 - length;
    if (spareBits > 0 && (wire[wire.length - 1]! & ((1 << spareBits) - 1)) !== 0) {
      throw new PeerFault("bitfield with spare bits set");
    }
    bitfield.bytes.set(wire);
    let count = 0;
    for (let i = 0; i < wire.length; i++) count += POPULATION[wire[i]!]!;
    bitfield.setCount = count;
    return bitfield;
  }

  /** A bitfield with every piece set. */
  static full(length: number): Bitfield {
    const bitfield = new Bitfield(length);
    bitfield.setAll();
    return bitfield;
  }

  get count(): number {
    return this.setCount;
  }

  /** True where every piece is set. */
  get all(): boolean {
    return this.setCount === this.length;
  }

  has(index: number): boolean {
    return (this.bytes[index >>> 3]! & (0x80 >> (index & 7))) !== 0;
  }

  /** Returns true where the piece was not set before. */
  set(index: number): boolean {
    assertRange(index >= 0 && index < this.length, "piece", index);
    const bit = 0x80 >> (index & 7);
    const at = index >>> 3;
    if ((this.bytes[at]! & bit) !== 0) return false;
    this.bytes[at]! |= bit;
    this.setCount++;
    return true;
  }

  /** Returns true where the piece was set before. */
  clear(index: number): boolean {
    assertRange(index >= 0 && index < this.length, "piece", index);
    const bit = 0x80 >> (index & 7);
    const at = index >>> 3;
    if ((this.bytes[at]! & bit) === 0) return false;
    this.bytes[at]! &= ~bit;
    this.setCount--;
    return true;
  }

  setAll(): void {
    this.bytes.fill(0xff);
    const spareBits = this.bytes.length * 8 - this.length;
    if (spareBits > 0) this.bytes[this.bytes.length - 1] = (0xff << spareBits) & 0xff;
    this.setCount = this.length;
  }

  /** A copy of the body of a bitfield message. */
  toWire(): Uint8Array {
    return this.bytes.slice();
  }

  /** Copies the body of a bitfield message to `target` at `offset`; returns the offset after it. */
  writeWire(target: Uint8Array, offset: number): number {
    target.set(this.bytes, offset);
    return offset + this.bytes.length;
  }
}

/** Bytes of a bitfield message's body. */
export function bitfieldBytes(pieceCount: number): number {
  return (pieceCount + 7) >>> 3;
}

/** Bits set in each byte value. */
const POPULATION = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let rest = byte; rest > 0; rest >>= 1) count += rest & 1;
  return count;
});
