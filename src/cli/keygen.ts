/** `keygen`: makes the key pair with which torrents are signed and trusted. */
import { rmSync, writeFileSync } from "node:fs";
import { ExitCode, Failure, usageError } from "../errors.ts";
import { makeKeyPair } from "../torrent/ed25519.ts";
import { defineCommand } from "./command.ts";
import { text } from "./options.ts";

/** For its owner alone; the public key is for everybody. */
const PRIVATE_MODE = 0o600;
const PUBLIC_MODE = 0o644;

export const keygen = defineCommand({
  name: "keygen",
  arguments: "",
  summary: "make the ed25519 key pair that signs torrents",
  details: `
FILE is the private key (PKCS #8 in PEM, as OpenSSL reads it): keep it where images are captured. FILE.pub
holds the public key in Base64: what deploy --key takes. Files that exist are not overwritten.`,
  options: { output: text("FILE", "the private key to write; the public one becomes FILE.pub", "o") },
  examples: ["diskswarm keygen -o classroom.key", "diskswarm capture /dev/sdb --sign classroom.key"],
  exitCodes: [ExitCode.done, ExitCode.failed, ExitCode.usage],
  async run({ options, output }) {
    const path = options.output;
    if (path === null) throw usageError("keygen needs the name of a file: -o FILE");
    const publicPath = `${path}.pub`;
    const pair = await makeKeyPair();
    const publicKey = pair.publicKey.toBase64();
    writeNew(path, pair.privatePem, PRIVATE_MODE);
    try {
      writeNew(publicPath, `${publicKey}\n`, PUBLIC_MODE);
    } catch (error) {
      rmSync(path);
      throw error;
    }
    output.event("done", { privateKeyPath: path, publicKeyPath: publicPath, publicKey });
    output.line(`private key: ${path}\npublic key:  ${publicPath}, ${publicKey}`);
    return ExitCode.done;
  },
});

function writeNew(path: string, content: string, mode: number): void {
  try {
    writeFileSync(path, content, { flag: "wx", mode });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "EEXIST" ? "it exists already; take another name or move it away" : message;
    throw new Failure(ExitCode.failed, "key-unwritable", `cannot write the key ${path}: ${why}`);
  }
}
