/** Keys as users give them: a private one in a PEM file, a public one as Base64 or in the file that `keygen` wrote. */
import { readFileSync, statSync } from "node:fs";
import { ExitCode, Failure, usageError } from "../errors.ts";
import { loadSigner, PUBLIC_KEY_BYTES } from "../torrent/ed25519.ts";
import { KiB } from "../units.ts";

/** A key in PEM has 120 bytes; what is longer is another file. */
const KEY_FILE_BYTES_MAX = 16 * KiB;

/** A private Ed25519 key in PEM. Throws Failure (exit 1) where the file is none. */
export async function readPrivateKey(path: string): Promise<string> {
  const pem = readKeyFile(path);
  if ((await loadSigner(pem)) !== null) return pem;
  throw unusable(path, "it holds no private ed25519 key in PEM; make one with diskswarm keygen -o FILE");
}

/** 32 bytes, from Base64 or a file that holds it. Throws a usage failure for anything else. */
export function readPublicKey(text: string): Uint8Array {
  const direct = publicKeyIn(text);
  if (direct !== null) return direct;
  if (statSync(text, { throwIfNoEntry: false }) === undefined)
    throw usageError(`the key "${text}" is neither the Base64 of 32 bytes nor a file`);
  const found = publicKeyIn(readKeyFile(text).trim());
  if (found === null) throw usageError(`${text} holds no public key: give the .pub file that keygen wrote`);
  return found;
}

function publicKeyIn(text: string): Uint8Array | null {
  if (!/^[A-Za-z0-9+/]{43}=$/.test(text)) return null;
  const bytes = Uint8Array.fromBase64(text);
  return bytes.length === PUBLIC_KEY_BYTES ? bytes : null;
}

function readKeyFile(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile()) throw unusable(path, stat === undefined ? "no such file" : "it is no file");
  if (stat.size > KEY_FILE_BYTES_MAX) throw unusable(path, `it has ${stat.size} bytes`);
  return readFileSync(path, "utf8");
}

function unusable(path: string, why: string): Failure {
  return new Failure(ExitCode.failed, "key-unusable", `cannot use the key ${path}: ${why}`);
}
