/**
 * Functions and memory outside of JavaScript: the only place where bun:ffi is used.
 *
 * Every argument and every answer is a number: addresses and 64-bit sizes are safe integers here. bun:ffi wraps integers that
 * are out of range silently, so callers assert before the call.
 */
import { dlopen, type FFIFunction, linkSymbols, type Pointer, toArrayBuffer } from "bun:ffi";
import { assertRange, ExitCode, Failure } from "../errors.ts";

type ArgumentType = "i32" | "u32" | "i64_fast" | "u64_fast" | "ptr";
export interface Signature {
  readonly args: readonly ArgumentType[];
  readonly returns: ArgumentType | "void";
}

type Numbers<Types extends readonly unknown[]> = { -readonly [Index in keyof Types]: number };
export type ForeignFunction<One extends Signature> = (...args: Numbers<One["args"]>) => number;
export type ForeignFunctions<All extends Record<string, Signature>> = {
  readonly [Name in keyof All]: ForeignFunction<All[Name]>;
};

/** Loads a shared library by the first of its names that is known here, for the life of the thread. Throws a Failure with the advice. */
export function loadLibrary<const All extends Record<string, Signature>>(
  what: string,
  names: readonly string[],
  advice: string,
  signatures: All,
): ForeignFunctions<All> {
  const types = signatures as unknown as Record<string, FFIFunction>;
  const reasons: string[] = [];
  for (const name of names) {
    try {
      return dlopen(name, types).symbols as unknown as ForeignFunctions<All>;
    } catch (error) {
      reasons.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Failure(ExitCode.failed, "libc", `cannot load ${what} (${reasons.join("; ")}); ${advice}`);
}

export interface LinkedFunction<One extends Signature> {
  readonly call: ForeignFunction<One>;
  /** Ends what bun:ffi keeps for the calls; not to be called afterwards. */
  close(): void;
}

/** Makes code at an address callable. It must stay mapped until `close`. */
export function linkFunction<const One extends Signature>(address: number, signature: One): LinkedFunction<One> {
  assertRange(Number.isSafeInteger(address) && address > 0, "address", address);
  const linked = linkSymbols({ code: { ...signature, ptr: address } as unknown as FFIFunction });
  return { call: linked.symbols.code as unknown as ForeignFunction<One>, close: () => linked.close() };
}

/** A view of mapped memory; the one place where an address becomes an ArrayBuffer. The mapping must outlive the view. */
export function bufferAt(address: number, lengthBytes: number): ArrayBuffer {
  assertRange(Number.isSafeInteger(address) && address > 0, "address", address);
  assertRange(Number.isSafeInteger(lengthBytes) && lengthBytes >= 0, "length", lengthBytes);
  return toArrayBuffer(address as Pointer, 0, lengthBytes);
}
