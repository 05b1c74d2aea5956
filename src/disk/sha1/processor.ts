/**
 * Whether this processor has what the listing of SHA-1 uses. It is asked itself, by an instruction: that works where there is
 * no /proc too, and in a virtual machine tells what its host lets it do.
 */
import { MachineCode } from "../../kernel/machine-code.ts";
import { mapMemory } from "../../kernel/memory.ts";
import { Assembler, at, r8, rax, rbx, rcx, rdi, rdx, rsi } from "./assembler.ts";

/** What cpuid leaves in the registers, as 32-bit words of the memory it is given. */
const Word = { eax: 0, ebx: 1, ecx: 2, edx: 3 } as const;

/** Intel SDM, volume 2A, CPUID: leaf, word and bit of each extension. Leaf 0 says in eax which leaves there are. */
const EXTENSIONS_LEAF = 7;
const NEEDED = [
  { name: "SSSE3", leaf: 1, word: Word.ecx, bit: 9 },
  { name: "SSE4.1", leaf: 1, word: Word.ecx, bit: 19 },
  { name: "SHA", leaf: EXTENSIONS_LEAF, word: Word.ebx, bit: 29 },
] as const;

/** void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t words[4]). */
export function assembleCpuid(): Uint8Array {
  const asm = new Assembler();
  const words = r8;
  asm.push(rbx);
  asm.mov(words, rdx);
  asm.mov32(rax, rdi);
  asm.mov32(rcx, rsi);
  asm.cpuid();
  asm.mov32(at(words, 4 * Word.eax), rax);
  asm.mov32(at(words, 4 * Word.ebx), rbx);
  asm.mov32(at(words, 4 * Word.ecx), rcx);
  asm.mov32(at(words, 4 * Word.edx), rdx);
  asm.pop(rbx);
  asm.ret();
  return asm.bytes;
}

/** False for another kind of processor, for one without these extensions, and where no code may be made. */
export function hasSha1Instructions(): boolean {
  if (process.arch !== "x64") return false;
  const code = MachineCode.map(assembleCpuid());
  if (code === null) return false;
  const memory = mapMemory(16);
  try {
    const cpuid = code.link(0, { args: ["u32", "u32", "u64_fast"], returns: "void" });
    const ask = (leaf: number, word: number) => {
      cpuid(leaf, 0, memory.address);
      return memory.view.getUint32(4 * word, true);
    };
    if (ask(0, Word.eax) < EXTENSIONS_LEAF) return false;
    return NEEDED.every(({ leaf, word, bit }) => (ask(leaf, word) & (1 << bit)) !== 0);
  } finally {
    memory.free();
    code.free();
  }
}
