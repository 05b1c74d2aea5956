/** Each instruction's bytes are those that GNU as 2.40 made of the line beside it (`.intel_syntax noprefix`). */
import { expect, test } from "bun:test";
import * as x86 from "../../../src/disk/sha1/assembler.ts";

const { Assembler, at, placed, xmm, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp, r8, r9, r10, r11 } = x86;
const [r12, r13]: x86.Gpr[] = [
  { kind: "gpr", number: 12 },
  { kind: "gpr", number: 13 },
];

type Write = (asm: x86.Assembler) => void;
const INSTRUCTIONS: readonly (readonly [string, string, Write])[] = [
  ["mov rax, [rdi]", "488b07", (a) => a.mov(rax, at(rdi))],
  ["mov r11, [rdi+56]", "4c8b5f38", (a) => a.mov(r11, at(rdi, 56))],
  ["mov r8, rdx", "4989d0", (a) => a.mov(r8, rdx)],
  ["mov rax, [r12]", "498b0424", (a) => a.mov(rax, at(r12))],
  ["mov rbp, [rbp]", "488b6d00", (a) => a.mov(rbp, at(rbp))],
  ["mov rax, [r13]", "498b4500", (a) => a.mov(rax, at(r13))],
  ["mov eax, edi", "89f8", (a) => a.mov32(rax, rdi)],
  ["mov r9d, ecx", "4189c9", (a) => a.mov32(r9, rcx)],
  ["mov dword ptr [r8+12], edx", "4189500c", (a) => a.mov32(at(r8, 12), rdx)],
  ["mov dword ptr [rsp], r10d", "44891424", (a) => a.mov32(at(rsp), r10)],
  ["add r8, 64", "4983c040", (a) => a.add(r8, 64)],
  ["sub rsp, 392", "4881ec88010000", (a) => a.sub(rsp, 392)],
  ["sub rsi, 1", "4883ee01", (a) => a.sub(rsi, 1)],
  ["add rcx, -129", "4881c17fffffff", (a) => a.add(rcx, -129)],
  ["push rbx", "53", (a) => a.push(rbx)],
  ["pop rbx", "5b", (a) => a.pop(rbx)],
  ["cpuid", "0fa2", (a) => a.cpuid()],
  ["ret", "c3", (a) => a.ret()],
  ["movdqa xmm0, xmm15", "66410f6fc7", (a) => a.movdqa(xmm[0], xmm[15])],
  ["movdqa xmm8, [rsp+112]", "66440f6f442470", (a) => a.movdqa(xmm[8], at(rsp, 112))],
  ["movdqa [rsp+128], xmm3", "660f7f9c2480000000", (a) => a.movdqa(at(rsp, 128), xmm[3])],
  ["movdqa [rax], xmm12", "66440f7f20", (a) => a.movdqa(at(rax), xmm[12])],
  ["movdqu xmm7, [r9+48]", "f3410f6f7930", (a) => a.movdqu(xmm[7], at(r9, 48))],
  ["movdqu xmm14, [r10-128]", "f3450f6f7280", (a) => a.movdqu(xmm[14], at(r10, -128))],
  ["paddd xmm4, xmm5", "660ffee5", (a) => a.paddd(xmm[4], xmm[5])],
  ["paddd xmm12, [rsp+16]", "66440ffe642410", (a) => a.paddd(xmm[12], at(rsp, 16))],
  ["pxor xmm1, xmm1", "660fefc9", (a) => a.pxor(xmm[1], xmm[1])],
  ["pxor xmm13, [rsp+240]", "66440fefac24f0000000", (a) => a.pxor(xmm[13], at(rsp, 240))],
  ["pshufb xmm10, xmm2", "66440f3800d2", (a) => a.pshufb(xmm[10], xmm[2])],
  ["pshufd xmm0, [rax], 0x1b", "660f70001b", (a) => a.pshufd(xmm[0], at(rax), 0x1b)],
  ["pshufd xmm11, xmm4, 0x1b", "66440f70dc1b", (a) => a.pshufd(xmm[11], xmm[4], 0x1b)],
  ["pinsrd xmm1, dword ptr [rax+16], 3", "660f3a22481003", (a) => a.pinsrd(xmm[1], at(rax, 16), 3)],
  ["pextrd dword ptr [rax+16], xmm13, 3", "66440f3a16681003", (a) => a.pextrd(at(rax, 16), xmm[13], 3)],
  ["sha1rnds4 xmm0, xmm1, 0", "0f3accc100", (a) => a.sha1rnds4(xmm[0], xmm[1], 0)],
  ["sha1rnds4 xmm12, xmm14, 3", "450f3acce603", (a) => a.sha1rnds4(xmm[12], xmm[14], 3)],
  ["sha1nexte xmm2, xmm3", "0f38c8d3", (a) => a.sha1nexte(xmm[2], xmm[3])],
  ["sha1nexte xmm13, [rsp+32]", "440f38c86c2420", (a) => a.sha1nexte(xmm[13], at(rsp, 32))],
  ["sha1msg1 xmm3, [rsp+48]", "0f38c95c2430", (a) => a.sha1msg1(xmm[3], at(rsp, 48))],
  ["sha1msg1 xmm9, xmm8", "450f38c9c8", (a) => a.sha1msg1(xmm[9], xmm[8])],
  ["sha1msg2 xmm11, xmm10", "450f38cada", (a) => a.sha1msg2(xmm[11], xmm[10])],
  ["sha1msg2 xmm2, [rsp+256]", "0f38ca942400010000", (a) => a.sha1msg2(xmm[2], at(rsp, 256))],
];

for (const [line, hex, write] of INSTRUCTIONS) {
  test(line, () => {
    const asm = new Assembler();
    write(asm);
    expect(asm.bytes.toHex()).toBe(hex);
  });
}

test("what lies in the code is named from the end of the instruction, whatever follows its address", () => {
  const asm = new Assembler();
  const constant = asm.data16(new Uint8Array(16).fill(1));
  asm.pshufb(xmm[1], placed(constant));
  asm.pinsrd(xmm[9], placed(constant), 3);
  asm.jnz(constant);
  // const: .fill 16, 1, 1; pshufb xmm1, [rip+const]; pinsrd xmm9, dword ptr [rip+const], 3; {disp32} jnz const
  const words = `${"01".repeat(16)}660f38000de7ffffff66440f3a220ddcffffff030f85d6ffffff`;
  expect(asm.bytes.toHex()).toBe(words);
});

test("constants are aligned, and what cannot be encoded is a bug", () => {
  const asm = new Assembler();
  asm.ret();
  expect(asm.data16(new Uint8Array(16))).toBe(16);
  expect(asm.bytes.length).toBe(32);
  expect(() => asm.add(r8, 2 ** 31)).toThrow("32 bits");
  expect(() => asm.push(r8)).toThrow("pushed");
  expect(() => asm.movdqa(at(rax), at(rsp))).toThrow("register");
});
