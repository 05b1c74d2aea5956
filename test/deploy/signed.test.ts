/** Signed images, as their users make and deploy them: the key decides before the first byte is written. */
import { expect } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { infoBytesOfTorrent, withSignature } from "../../src/torrent/create.ts";
import { loadSigner } from "../../src/torrent/ed25519.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";
import { signTorrent } from "../../src/torrent/signature.ts";
import { expectSameBytes } from "../harness/compare.ts";
import { capture, start } from "../harness/diskswarm.ts";
import { deploy, loopbackSeeder, MIB, startDeploy } from "../harness/fixture.ts";
import { stampedImage } from "../harness/image.ts";
import { run } from "../harness/process.ts";
import { scopedTest, type Scope } from "../harness/scope.ts";

const IMAGE_BYTES = 8 * MIB;

async function keys(scope: Scope, name: string) {
  const path = join(scope.ramDir(), name);
  await start(scope, ["keygen", "-o", path]).expectExit(0);
  return { path, publicPath: `${path}.pub`, publicKey: readFileSync(`${path}.pub`, "utf8").trim() };
}

async function signedImage(scope: Scope, keyPath: string) {
  const folder = scope.ramDir();
  const path = stampedImage(join(folder, "image.raw"), IMAGE_BYTES, 1);
  const torrent = await capture(scope, path, join(folder, "image.torrent"), "--piece-size", "256K", "--sign", keyPath);
  return { path, torrent };
}

scopedTest(
  "what is signed by the trusted key is deployed and verified by SHA-256; everything else is refused",
  async (scope) => {
    const mine = await keys(scope, "mine");
    const other = await keys(scope, "other");
    const image = await signedImage(scope, mine.path);
    const seeder = await loopbackSeeder(scope, image.torrent, image.path);
    const target = join(scope.ramDir(), "target");
    for (const key of [mine.publicKey, mine.publicPath]) {
      await deploy(scope, image.torrent, target, [seeder.peer], ["--key", key, "--verify", "--delta", "never"]);
      expectSameBytes(target, image.path, IMAGE_BYTES);
    }
    await start(scope, ["verify", image.torrent, target, "--key", mine.publicKey]).expectExit(0);

    const untouched = join(scope.ramDir(), "untouched");
    const refused = async (torrent: string, key: string, why: string) => {
      const attempt = await startDeploy(scope, torrent, untouched, [seeder.peer], ["--key", key]);
      expect((await attempt.expectExit(3)).stderr).toContain(why);
      expect(statSync(untouched, { throwIfNoEntry: false })).toBeUndefined();
    };
    await refused(image.torrent, other.publicKey, "is not signed by the trusted key");
    const unsigned = await capture(scope, image.path, join(scope.ramDir(), "unsigned.torrent"));
    await refused(unsigned, mine.publicKey, "is not signed");
    await refused(
      `magnet:?xt=urn:btih:${parseMetainfo(readFileSync(image.torrent)).infoHash.toHex()}`,
      mine.publicKey,
      "magnet",
    );
    const nonsense = await startDeploy(scope, image.torrent, untouched, [seeder.peer], ["--key", "nonsense"]);
    expect((await nonsense.expectExit(2)).stderr).toContain('the key "nonsense"');
  },
);

scopedTest("data that SHA-1 knows and the signed list does not is never done", async (scope) => {
  const mine = await keys(scope, "mine");
  const image = await signedImage(scope, mine.path);
  const bytes = readFileSync(image.torrent);
  const list = parseMetainfo(bytes).sha256!.slice();
  list[5 * 32]! ^= 1;
  const signer = (await loadSigner(readFileSync(mine.path, "utf8")))!;
  const plain = await capture(
    scope,
    image.path,
    join(scope.ramDir(), "plain.torrent"),
    "--piece-size",
    "256K",
    "--name",
    "image",
  );
  const other = readFileSync(plain);
  const torrent = join(scope.ramDir(), "image.torrent");
  writeFileSync(torrent, withSignature(other, list, signTorrent(signer, infoBytesOfTorrent(other), list)));
  const seeder = await loopbackSeeder(scope, image.torrent, image.path);
  const flags = ["--key", mine.publicKey, "--timeout", "5s"];
  const attempt = await startDeploy(scope, torrent, join(scope.ramDir(), "target"), [seeder.peer], flags);
  await attempt.expectExit(3);
  expect(attempt.events.some(({ event }) => event === "done")).toBe(false);
});

scopedTest("keygen makes keys that OpenSSL reads, for the owner alone, and overwrites nothing", async (scope) => {
  const mine = await keys(scope, "mine");
  expect(statSync(mine.path).mode & 0o777).toBe(0o600);
  const pem = run(["openssl", "pkey", "-in", mine.path, "-pubout"]);
  const der = Buffer.from(pem.replace(/-----[^-]*-----/g, ""), "base64");
  expect(der.subarray(-32).toString("base64")).toBe(mine.publicKey);
  const again = await start(scope, ["keygen", "-o", mine.path]).expectExit(1);
  expect(again.stderr).toContain("it exists already");
  const notAKey = start(scope, [
    "capture",
    mine.path,
    "-o",
    join(scope.ramDir(), "x.torrent"),
    "--sign",
    mine.publicPath,
  ]);
  expect((await notAKey.expectExit(1)).stderr).toContain("no private ed25519 key");
});

scopedTest("inspect says who signed, and that a signature is wrong", async (scope) => {
  const mine = await keys(scope, "mine");
  const image = await signedImage(scope, mine.path);
  const sound = start(scope, ["inspect", image.torrent]);
  const told = await sound.event("torrent");
  expect([told.signedBy, told.signatureIsSound]).toEqual([mine.publicKey, true]);
  const bytes = readFileSync(image.torrent);
  bytes[bytes.indexOf("5:image") + 6]! ^= 1;
  writeFileSync(image.torrent, bytes);
  const broken = await start(scope, ["inspect", image.torrent]).event("torrent");
  expect(broken.signatureIsSound).toBe(false);
});
