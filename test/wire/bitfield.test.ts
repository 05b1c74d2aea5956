/** Bitfields: order of the bits, spare bits, counts. */
import { describe, expect, test } from "bun:test";
import { AssertionError, PeerFault } from "../../src/errors.ts";
import { Bitfield, bitfieldBytes } from "../../src/wire/bitfield.ts";

describe("Bitfield", () => {
  test("piece 0 is the highest bit of the first byte", () => {
    const bitfield = new Bitfield(10);
    expect([bitfield.set(0), bitfield.set(9), bitfield.set(9)]).toEqual([true, true, false]);
    expect([...bitfield.toWire()]).toEqual([0x80, 0x40]);
    expect([bitfield.has(0), bitfield.has(1), bitfield.has(9), bitfield.count, bitfield.all]).toEqual([
      true,
      false,
      true,
      2,
      false,
    ]);
    expect([bitfield.clear(0), bitfield.clear(0), bitfield.count]).toEqual([true, false, 1]);
  });
  test("for every length up to 40: full, through the wire, and with each spare bit", () => {
    for (let length = 1; length <= 40; length++) {
      const full = Bitfield.full(length);
      const wire = full.toWire();
      expect(wire.length).toBe(bitfieldBytes(length));
      expect([full.count, full.all]).toEqual([length, true]);
      const read = Bitfield.fromWire(wire, length);
      expect([read.count, read.all]).toEqual([length, true]);
      for (let bit = length; bit < wire.length * 8; bit++) {
        const spare = wire.slice();
        spare[bit >> 3]! |= 0x80 >> (bit & 7);
        expect(() => Bitfield.fromWire(spare, length)).toThrow(PeerFault);
      }
      for (const wrong of [wire.length - 1, wire.length + 1]) {
        expect(() => Bitfield.fromWire(new Uint8Array(wrong), length)).toThrow(`expected ${wire.length}`);
      }
    }
  });
  test("one by one until all are set", () => {
    const bitfield = new Bitfield(19);
    for (let i = 0; i < 19; i++) {
      expect(bitfield.all).toBe(false);
      bitfield.set(i);
      expect(bitfield.count).toBe(i + 1);
    }
    expect(bitfield.all).toBe(true);
    expect(bitfield.toWire()).toEqual(Bitfield.full(19).toWire());
  });
  test("keeps its bytes to itself", () => {
    const wire = Uint8Array.of(0x80);
    const bitfield = Bitfield.fromWire(wire, 8);
    wire[0] = 0;
    bitfield.toWire()[0] = 0;
    expect(bitfield.has(0)).toBe(true);
    const target = new Uint8Array(3);
    expect(bitfield.writeWire(target, 1)).toBe(2);
    expect([...target]).toEqual([0, 0x80, 0]);
  });
  test("a piece that is none is a bug", () => {
    for (const index of [-1, 8]) {
      expect(() => new Bitfield(8).set(index)).toThrow(AssertionError);
      expect(() => new Bitfield(8).clear(index)).toThrow(AssertionError);
    }
  });
});
