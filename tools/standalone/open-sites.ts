/**
 * Where a dynamic loader makes the system call openat, and the code that stands for it.
 *
 * glibc's loader has a few functions that open files, each with the call inlined; it has no name that could be
 * replaced. Each place is found by its instructions and replaced by a jump to a trampoline, which calls the
 * launcher's `open` and jumps back behind the system call.
 */
import { type Elf, ElfError, type Machine } from "./elf.ts";

/** Addresses in the loader, from its beginning. */
export interface OpenSite {
  /** The first byte that is replaced. */
  readonly from: number;
  /** The first byte after the system call. */
  readonly to: number;
  /** Instructions between that are still to be done: moves between registers. */
  readonly between: Buffer;
}

export interface Places {
  /** Of the trampoline that is to be made. */
  readonly address: number;
  readonly loaderAt: number;
  readonly openAt: number;
}

const EXECUTE = 1;

/** All of them; ElfError where there is none, since the program would then look for its libraries on the machine. */
export function openSites(machine: Machine, loader: Elf): OpenSite[] {
  const find = machine === "x86-64" ? openSiteX64 : openSiteArm64;
  const step = machine === "x86-64" ? 1 : 4;
  const sites: OpenSite[] = [];
  for (const { flags, address, offset, fileBytes } of loader.loads) {
    if ((flags & EXECUTE) === 0) continue;
    const code = loader.bytes.subarray(offset, offset + fileBytes);
    for (let at = 0; at < code.length; at += step) {
      const site = find(code, at);
      if (site) sites.push({ from: address + site.from, to: address + site.to, between: site.between });
    }
  }
  if (sites.length === 0) throw new ElfError(`${loader.name}: nothing was found where this C library opens files`);
  return sites;
}

const MOV_EAX_OPENAT = Buffer.from("b801010000", "hex");
const SYSCALL = Buffer.from("0f05", "hex");
const BETWEEN_BYTES_MAX = 16;

/** `mov eax, 257`, perhaps moves between registers, `syscall`. */
function openSiteX64(code: Buffer, at: number): OpenSite | null {
  if (!code.subarray(at, at + MOV_EAX_OPENAT.length).equals(MOV_EAX_OPENAT)) return null;
  const start = at + MOV_EAX_OPENAT.length;
  let end = start;
  while (!code.subarray(end, end + SYSCALL.length).equals(SYSCALL)) {
    const bytes = moveBytes(code, end);
    if (bytes === 0 || end - start > BETWEEN_BYTES_MAX) return null;
    end += bytes;
  }
  return { from: at, to: end + SYSCALL.length, between: code.subarray(start, end) };
}

/** Length of the instruction, if it moves a register or a constant of 32 bits to a register other than rsp; else 0. */
function moveBytes(code: Buffer, at: number): number {
  const isRex = code[at]! >= 0x40 && code[at]! <= 0x4f;
  const opcodeAt = isRex ? at + 1 : at;
  const opcode = code[opcodeAt]!;
  if (opcode === 0x89 && code[opcodeAt + 1]! >= 0xc0) return opcodeAt + 2 - at;
  // With a REX prefix that widens the operand the constant has 8 bytes.
  const isWide = isRex && (code[at]! & 8) !== 0;
  return opcode >= 0xb8 && opcode <= 0xbf && !isWide ? opcodeAt + 5 - at : 0;
}

const MOV_X8_OPENAT = 0xd2800708;
const SVC = 0xd4000001;
const INSTRUCTIONS_BETWEEN_MAX = 6;

/** `svc 0` with `mov x8, 56` shortly before it; what stands between stays where it is. */
function openSiteArm64(code: Buffer, at: number): OpenSite | null {
  if (at + 4 > code.length || code.readUInt32LE(at) !== SVC) return null;
  for (let back = at - 4; back >= Math.max(0, at - 4 * INSTRUCTIONS_BETWEEN_MAX); back -= 4) {
    const instruction = code.readUInt32LE(back);
    if (instruction === SVC) return null;
    if (instruction === MOV_X8_OPENAT) return { from: at, to: at + 4, between: Buffer.alloc(0) };
  }
  return null;
}

/** Makes the trampoline of a site and puts the jump to it into the loader's image. */
export function trampoline(machine: Machine, site: OpenSite, loader: Buffer, places: Places): Buffer {
  return machine === "x86-64" ? trampolineX64(site, loader, places) : trampolineArm64(site, loader, places);
}

/** Functions of x86-64 may keep data in the 128 bytes below the stack pointer: they are skipped. */
function trampolineX64(site: OpenSite, loader: Buffer, { address, loaderAt, openAt }: Places): Buffer {
  const head = Buffer.concat([site.between, Buffer.from("488d642480", "hex")]); // lea rsp, [rsp - 128]
  const call = x64Branch(0xe8, address + head.length, openAt);
  const middle = Buffer.from("488da42480000000", "hex"); // lea rsp, [rsp + 128]
  const backFrom = address + head.length + call.length + middle.length;
  const jump = x64Branch(0xe9, loaderAt + site.from, address);
  loader.fill(0xcc, site.from, site.to); // int3: nobody comes here
  jump.copy(loader, site.from);
  return Buffer.concat([head, call, middle, x64Branch(0xe9, backFrom, loaderAt + site.to)]);
}

function x64Branch(opcode: number, from: number, to: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.writeUInt8(opcode, 0);
  bytes.writeInt32LE(to - (from + bytes.length), 1);
  return bytes;
}

/** The functions are leaves: their link register is kept. */
function trampolineArm64(site: OpenSite, loader: Buffer, { address, loaderAt, openAt }: Places): Buffer {
  const code = Buffer.alloc(16);
  code.writeUInt32LE(0xa9bf7bfd, 0); // stp x29, x30, [sp, -16]!
  code.writeUInt32LE(arm64Branch(0x94000000, address + 4, openAt), 4); // bl open
  code.writeUInt32LE(0xa8c17bfd, 8); // ldp x29, x30, [sp], 16
  code.writeUInt32LE(arm64Branch(0x14000000, address + 12, loaderAt + site.to), 12);
  loader.writeUInt32LE(arm64Branch(0x14000000, loaderAt + site.from, address), site.from);
  return code;
}

const ARM64_BRANCH_WORDS_MAX = 1 << 25;

function arm64Branch(opcode: number, from: number, to: number): number {
  const words = (to - from) / 4;
  if (!Number.isInteger(words) || Math.abs(words) >= ARM64_BRANCH_WORDS_MAX)
    throw new ElfError(`cannot branch from ${from} to ${to}`);
  return (opcode | (words & 0x03ffffff)) >>> 0;
}
