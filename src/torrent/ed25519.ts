/**
 * Ed25519 (RFC 8032) by `node:crypto`, which is loaded when a key is used and not when the program starts: it costs
 * a start 4 ms. Keys are the forms that OpenSSL reads: a private one as PKCS #8 in PEM, a public one as its 32 bytes.
 */
export const PUBLIC_KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;

/** What stands before the 32 bytes in a SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4). */
const SPKI_HEAD = Uint8Array.fromHex("302a300506032b6570032100");

export interface KeyPair {
  /** PKCS #8 in PEM, with its line ends. */
  readonly privatePem: string;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

export async function makeKeyPair(): Promise<KeyPair> {
  const { generateKeyPairSync } = await import("node:crypto");
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const spki = publicKey.export({ type: "spki", format: "der" });
  return {
    privatePem: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    publicKey: new Uint8Array(spki.subarray(SPKI_HEAD.length)),
  };
}

/** A private key that is ready for use. */
export interface Signer {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** The signature, 64 bytes. */
  sign(message: Uint8Array): Uint8Array;
}

/** Reads a private key in PEM; null where the text is none of Ed25519. */
export async function loadSigner(privatePem: string): Promise<Signer | null> {
  const { createPrivateKey, createPublicKey, sign } = await import("node:crypto");
  try {
    const key = createPrivateKey(privatePem);
    if (key.asymmetricKeyType !== "ed25519") return null;
    const spki = createPublicKey(key).export({ type: "spki", format: "der" });
    return {
      publicKey: new Uint8Array(spki.subarray(SPKI_HEAD.length)),
      sign: (message) => new Uint8Array(sign(null, message, key)),
    };
  } catch {
    // The library's words for it (an ASN.1 offset) help nobody; the caller names the file.
    return null;
  }
}

/** Whether `signature` (64 bytes) is that of `message` by the owner of `publicKey` (32 bytes). */
export async function isSignedBy(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  const { createPublicKey, verify } = await import("node:crypto");
  const spki = Buffer.concat([SPKI_HEAD, publicKey]);
  return verify(null, message, createPublicKey({ key: spki, format: "der", type: "spki" }), signature);
}
