/** Randomness from the kernel for what must not be guessed or repeated; node:crypto has it too and takes 4 ms to load. */

/** Most that getRandomValues fills in one call. */
const CALL_BYTES_MAX = 65_536;

/** `lengthBytes` random bytes. */
export function randomBytes(lengthBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; at += CALL_BYTES_MAX) {
    crypto.getRandomValues(bytes.subarray(at, at + CALL_BYTES_MAX));
  }
  return bytes;
}

/** A random integer in [0, 2^32). */
export function randomUint32(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
