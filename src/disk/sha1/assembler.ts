/**
 * An assembler for the few x86-64 instructions that hashing needs: a method for each, which appends its bytes.
 *
 * Intel's order of operands, the destination first. The numbers are those of the Intel 64 and IA-32 Architectures Software
 * Developer's Manual, volume 2: chapter 2 for prefixes and ModRM, chapters 3 to 5 for each instruction's opcode. Constants and
 * targets of jumps stand before what refers to them, so that nothing has to be patched.
 */
import { assert } from "../../errors.ts";
import { KiB } from "../../units.ts";

export interface Gpr {
  readonly kind: "gpr";
  readonly number: number;
}
export interface Xmm {
  readonly kind: "xmm";
  readonly number: number;
}
/** Memory at a register's address plus an offset, or at a place in the code. */
export type Memory =
  | { readonly kind: "based"; readonly base: Gpr; readonly offsetBytes: number }
  | { readonly kind: "placed"; readonly place: Place };
/** An offset from the begin of the code. */
export type Place = number;

const gpr = (number: number): Gpr => ({ kind: "gpr", number });
export const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi] = [0, 1, 2, 3, 4, 5, 6, 7].map(gpr);
export const [r8, r9, r10, r11] = [8, 9, 10, 11].map(gpr);
/** xmm0 to xmm15; none of them belongs to the caller (System V ABI). */
export const xmm: readonly Xmm[] = Array.from({ length: 16 }, (_, number) => ({ kind: "xmm", number }));

export function at(base: Gpr, offsetBytes = 0): Memory {
  return { kind: "based", base, offsetBytes };
}
export function placed(place: Place): Memory {
  return { kind: "placed", place };
}

/** What comes before the opcode and selects a variant of it. */
const enum Prefix {
  none = 0,
  operandSize = 0x66,
  repeat = 0xf3,
}
const REX = 0x40;
const REX_W = 0x08;
const REX_R = 0x04;
const REX_B = 0x01;
/** This as a ModRM's r/m means that a SIB byte follows; as its base: none but that register. */
const RM_SIB = 4;
const SIB_BASE_ALONE = 0x24;
/** This as r/m without an offset means an address relative to the next instruction. */
const RM_RELATIVE = 5;

const NONE = -1;
/** Fills gaps that nothing runs into. */
const INT3 = 0xcc;
/** Half as much again as the longest listing. */
const CODE_BYTES_MAX = 16 * KiB;

export class Assembler {
  readonly #bytes = new Uint8Array(CODE_BYTES_MAX);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** The code so far. */
  get bytes(): Uint8Array {
    assert(this.#length <= CODE_BYTES_MAX, "the code is no longer than it may be");
    return this.#bytes.slice(0, this.#length);
  }

  /** Where the next instruction will be. */
  get here(): Place {
    return this.#length;
  }

  /** Sixteen bytes of data, aligned as instructions with a memory operand want them. Returns where. */
  data16(bytes: Uint8Array): Place {
    assert(bytes.length === 16, "a constant fills a register");
    this.align16();
    const place = this.here;
    for (const byte of bytes) this.#byte(byte);
    return place;
  }

  align16(): void {
    while (this.here % 16 !== 0) this.#byte(INT3);
  }

  // General registers

  /** 64 bits. */
  mov(to: Gpr, from: Gpr | Memory): void {
    if (from.kind === "gpr") this.#encode(Prefix.none, REX_W, 0x89, from.number, to);
    else this.#encode(Prefix.none, REX_W, 0x8b, to.number, from);
  }

  /** 32 bits; the upper half of a register becomes zero. */
  mov32(to: Gpr | Memory, from: Gpr): void {
    this.#encode(Prefix.none, 0, 0x89, from.number, to);
  }

  add(to: Gpr, value: number): void {
    this.#arithmetic(0, to, value);
  }

  /** Sets the flags that `jnz` looks at. */
  sub(to: Gpr, value: number): void {
    this.#arithmetic(5, to, value);
  }

  push(from: Gpr): void {
    assert(from.number < 8, "only the old registers are pushed");
    this.#byte(0x50 + from.number);
  }

  pop(to: Gpr): void {
    assert(to.number < 8, "only the old registers are popped");
    this.#byte(0x58 + to.number);
  }

  /** What the processor can do: leaf eax, subleaf ecx, to eax, ebx, ecx and edx. */
  cpuid(): void {
    this.#opcode(0x0fa2);
  }

  /** Jumps back where the last result was not zero. */
  jnz(place: Place): void {
    this.#opcode(0x0f85);
    this.#int32(place - (this.here + 4));
  }

  ret(): void {
    this.#byte(0xc3);
  }

  // Vector registers

  /** 16 bytes, aligned where they are in memory. */
  movdqa(to: Xmm | Memory, from: Xmm | Memory): void {
    if (to.kind === "xmm") return this.#encode(Prefix.operandSize, 0, 0x0f6f, to.number, from);
    assert(from.kind === "xmm", "one operand is a register");
    this.#encode(Prefix.operandSize, 0, 0x0f7f, from.number, to);
  }

  /** Loads 16 bytes from anywhere. */
  movdqu(to: Xmm, from: Memory): void {
    this.#encode(Prefix.repeat, 0, 0x0f6f, to.number, from);
  }

  paddd(to: Xmm, from: Xmm | Memory): void {
    this.#encode(Prefix.operandSize, 0, 0x0ffe, to.number, from);
  }

  pxor(to: Xmm, from: Xmm | Memory): void {
    this.#encode(Prefix.operandSize, 0, 0x0fef, to.number, from);
  }

  /** Bytes in another order (SSSE3). */
  pshufb(to: Xmm, order: Xmm | Memory): void {
    this.#encode(Prefix.operandSize, 0, 0x0f3800, to.number, order);
  }

  /** 32-bit words in another order: two bits for each. */
  pshufd(to: Xmm, from: Xmm | Memory, order: number): void {
    this.#encode(Prefix.operandSize, 0, 0x0f70, to.number, from, order);
  }

  /** A 32-bit word into one of four places (SSE4.1). */
  pinsrd(to: Xmm, from: Memory, index: number): void {
    this.#encode(Prefix.operandSize, 0, 0x0f3a22, to.number, from, index);
  }

  /** A 32-bit word from one of four places (SSE4.1). */
  pextrd(to: Memory, from: Xmm, index: number): void {
    this.#encode(Prefix.operandSize, 0, 0x0f3a16, from.number, to, index);
  }

  // SHA-NI

  /** Four rounds on a, b, c, d in `state`; `input` is e and the words of the message; `stage` 0 to 3. */
  sha1rnds4(state: Xmm, input: Xmm, stage: number): void {
    this.#encode(Prefix.none, 0, 0x0f3acc, state.number, input, stage);
  }

  /** e as it is four rounds after `state` was, plus the words of the message. */
  sha1nexte(state: Xmm, words: Xmm | Memory): void {
    this.#encode(Prefix.none, 0, 0x0f38c8, state.number, words);
  }

  sha1msg1(to: Xmm, from: Xmm | Memory): void {
    this.#encode(Prefix.none, 0, 0x0f38c9, to.number, from);
  }

  sha1msg2(to: Xmm, from: Xmm | Memory): void {
    this.#encode(Prefix.none, 0, 0x0f38ca, to.number, from);
  }

  #arithmetic(operation: number, to: Gpr, value: number): void {
    assert((value | 0) === value, "an immediate value has 32 bits");
    const isShort = value >= -128 && value <= 127;
    this.#encode(Prefix.none, REX_W, isShort ? 0x83 : 0x81, operation, to, isShort ? value & 0xff : NONE);
    if (!isShort) this.#int32(value);
  }

  /** Prefix, REX, opcode, ModRM with what it needs, and a byte of immediate value (volume 2, figure 2-1). */
  #encode(
    prefix: Prefix,
    rexW: number,
    opcode: number,
    register: number,
    operand: Gpr | Xmm | Memory,
    immediate = NONE,
  ): void {
    if (prefix !== Prefix.none) this.#byte(prefix);
    const rex = rexW | (register >= 8 ? REX_R : 0) | (numberOf(operand) >= 8 ? REX_B : 0);
    if (rex !== 0) this.#byte(REX | rex);
    this.#opcode(opcode);
    this.#modRm((register & 7) << 3, operand, immediate === NONE ? 0 : 1);
    if (immediate !== NONE) this.#byte(immediate);
  }

  #modRm(register: number, operand: Gpr | Xmm | Memory, immediateBytes: number): void {
    if (operand.kind === "placed") {
      this.#byte(register | RM_RELATIVE);
      this.#int32(operand.place - (this.here + 4 + immediateBytes));
    } else if (operand.kind === "based") this.#modRmBased(register, operand.base.number & 7, operand.offsetBytes);
    else this.#byte(0xc0 | register | (operand.number & 7));
  }

  #modRmBased(register: number, base: number, offsetBytes: number): void {
    const isShort = offsetBytes >= -128 && offsetBytes <= 127;
    const hasNone = offsetBytes === 0 && base !== RM_RELATIVE;
    this.#byte((hasNone ? 0 : isShort ? 0x40 : 0x80) | register | base);
    if (base === RM_SIB) this.#byte(SIB_BASE_ALONE);
    if (hasNone) return;
    if (isShort) this.#byte(offsetBytes & 0xff);
    else this.#int32(offsetBytes);
  }

  /** One to three bytes, the first one highest; the first of two or three is 0x0f. */
  #opcode(opcode: number): void {
    if (opcode > 0xffff) this.#byte(opcode >> 16);
    if (opcode > 0xff) this.#byte((opcode >> 8) & 0xff);
    this.#byte(opcode & 0xff);
  }

  #int32(value: number): void {
    this.#view.setInt32(this.#length, value, true);
    this.#length += 4;
  }

  #byte(byte: number): void {
    this.#bytes[this.#length++] = byte;
  }
}

function numberOf(operand: Gpr | Xmm | Memory): number {
  if (operand.kind === "placed") return 0;
  return operand.kind === "based" ? operand.base.number : operand.number;
}
