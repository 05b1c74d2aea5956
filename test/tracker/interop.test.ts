/** Our client against opentracker, and aria2 against our tracker: the real programs, over loopback. */
import { describe, expect } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { announceTo, type ClientAnnounce, type ClientReply } from "../../src/tracker/client.ts";
import { startTracker } from "../../src/tracker/tracker.ts";
import { formatAddress } from "../../src/wire/address.ts";
import { freePort } from "../harness/ports.ts";
import { Child, until } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { needTools } from "../harness/tools.ts";
import { HASH, HASH_BYTES, peerId } from "./helpers.ts";

function announce(number: number, changes: Partial<ClientAnnounce> = {}): ClientAnnounce {
  const counts = { uploadedBytes: 0, downloadedBytes: 0, leftBytes: 3 };
  return {
    infoHash: HASH_BYTES,
    peerId: peerId(number),
    port: 7000 + number,
    key: 9,
    ...counts,
    event: "started",
    peersWanted: -1,
    ...changes,
  };
}

const ask = (url: string, number: number, changes: Partial<ClientAnnounce> = {}): Promise<ClientReply> =>
  announceTo(url, announce(number, changes), new Map(), new AbortController().signal);

/** The tracker of the Debian package, which serves a whitelist only, on one port for TCP and UDP. */
async function opentracker(scope: Scope): Promise<number> {
  needTools("opentracker");
  const port = await freePort();
  const folder = scope.tempDir();
  // As root it changes its root to the folder and becomes nobody, so the path is relative and all may read.
  chmodSync(folder, 0o755);
  writeFileSync(join(folder, "allowed"), `${HASH}\n`);
  const argv = [
    "opentracker",
    "-i",
    "127.0.0.1",
    "-p",
    String(port),
    "-P",
    String(port),
    "-d",
    folder,
    "-w",
    "allowed",
  ];
  const child = new Child(scope, argv, { cwd: folder });
  // It answers before it has read its whitelist. Who stops is not remembered.
  await until("opentracker answers for the whitelisted torrent", async () => {
    if (!child.running) throw new Error(child.describe());
    return await ask(`http://127.0.0.1:${port}/announce`, 9, { event: "stopped" }).then(
      () => true,
      () => false,
    );
  });
  return port;
}

describe("our client at opentracker", () => {
  for (const scheme of ["http", "udp"]) {
    scopedTest(`announces over ${scheme}`, async (scope) => {
      const url = `${scheme}://127.0.0.1:${await opentracker(scope)}/announce`;
      expect((await ask(url, 1)).peers.filter((peer) => peer.port !== 7001)).toEqual([]);
      const second = await ask(url, 2, { leftBytes: 0, event: "completed" });
      expect(second.peers.map(formatAddress)).toContain("127.0.0.1:7001");
      expect(second.intervalMs).toBeGreaterThan(60_000);
      await ask(url, 1, { event: "stopped" });
      expect((await ask(url, 3)).peers.map(formatAddress)).not.toContain("127.0.0.1:7001");
    });
  }
});

describe("aria2 at our tracker", () => {
  for (const scheme of ["http", "udp"]) {
    scopedTest(`announces over ${scheme}, and says good-bye`, async (scope) => {
      needTools("aria2c");
      const folder = scope.tempDir();
      const info = `d6:lengthi16384e4:name5:image12:piece lengthi16384e6:pieces20:${"x".repeat(20)}e`;
      const infoHash = new Bun.CryptoHasher("sha1").update(info).digest("hex");
      const tracker = await startTracker({
        listen: "127.0.0.1",
        httpPort: 0,
        udpPort: 0,
        open: false,
        allowed: [infoHash],
      });
      scope.defer(() => tracker.stop());
      const url =
        scheme === "http"
          ? `http://127.0.0.1:${tracker.httpPort}/announce`
          : `udp://127.0.0.1:${tracker.udpPort}/announce`;
      const torrent = join(folder, "image.torrent");
      writeFileSync(torrent, `d8:announce${url.length}:${url}4:info${info}e`);
      const quiet = [
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--seed-time=0",
        "--no-conf",
        "--disable-ipv6",
      ];
      const [port, dhtPort] = [await freePort(), await freePort()];
      // aria2 speaks to UDP trackers only through the socket of its DHT.
      const options =
        scheme === "udp"
          ? ["--enable-dht=true", `--dht-listen-port=${dhtPort}`, `--dht-file-path=${join(folder, "dht")}`]
          : [];
      const child = new Child(scope, [
        "aria2c",
        ...quiet,
        ...options,
        `--listen-port=${port}`,
        `--dir=${folder}`,
        torrent,
      ]);
      await until("aria2 is a leecher here", async () => (await tracker.counts(infoHash))?.leechers === 1);
      expect(
        (
          await announceTo(
            url,
            { ...announce(2), infoHash: Uint8Array.fromHex(infoHash) },
            new Map(),
            new AbortController().signal,
          )
        ).peers,
      ).toEqual([{ host: "127.0.0.1", port }]);
      child.signal("SIGINT");
      await child.ended;
      await until("aria2 has said good-bye", async () => (await tracker.counts(infoHash))?.leechers === 1);
    });
  }
});
