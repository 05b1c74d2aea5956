/** What `serve` answers over HTTP, on real sockets. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { type Server, startServer } from "../../src/server/http.ts";
import { parseMetainfo } from "../../src/torrent/metainfo.ts";

/** A plain torrent of one piece; `tracker` empty: it names none. */
function torrent(name: string, tracker = "") {
  const info = `d6:lengthi16384e4:name${name.length}:${name}12:piece lengthi16384e6:pieces20:${"x".repeat(20)}e`;
  const announce = tracker ? `8:announce${tracker.length}:${tracker}` : "";
  const bytes = new TextEncoder().encode(`d${announce}4:info${info}e`);
  return { name, bytes, metainfo: parseMetainfo(bytes) };
}

const first = torrent("class room");
const second = torrent("lab", "http://10.0.0.1:6969/announce");
const NO_NODES = {
  boot: null,
  nodeImages: null,
  plan: { target: null, after: null, options: {} },
  onNodeEvent: () => undefined,
};
let server: Server;
let base: string;
beforeAll(async () => {
  server = await startServer({ listen: "127.0.0.1", httpPort: 0, udpPort: 0, torrents: [first, second], ...NO_NODES });
  base = `http://127.0.0.1:${server.httpPort}`;
});
afterAll(() => server.stop());

test("a torrent without a tracker is handed out with the server's own, by the name it was asked by", async () => {
  const response = await fetch(`${base}/torrents/class%20room.torrent`);
  expect(response.headers.get("Content-Type")).toBe("application/x-bittorrent");
  const metainfo = parseMetainfo(new Uint8Array(await response.arrayBuffer()));
  expect(metainfo.trackers).toEqual([[`${base}/announce`]]);
  expect(metainfo.infoHash).toEqual(first.metainfo.infoHash);
  const named = await fetch(`${base}/torrents/class%20room.torrent`, { headers: { Host: "imaging.lan:6969" } });
  expect(parseMetainfo(new Uint8Array(await named.arrayBuffer())).trackers).toEqual([
    ["http://imaging.lan:6969/announce"],
  ]);
  expect(named.headers.get("ETag")).not.toBe(response.headers.get("ETag"));
});

test("a torrent that names trackers is handed out as it is", async () => {
  const response = await fetch(`${base}/torrents/lab.torrent`);
  expect(new Uint8Array(await response.arrayBuffer())).toEqual(second.bytes);
});

test("HEAD, and ETags that hold the info hash", async () => {
  const url = `${base}/torrents/lab.torrent`;
  const head = await fetch(url, { method: "HEAD" });
  expect([head.status, head.headers.get("Content-Length"), await head.text()]).toEqual([
    200,
    String(second.bytes.length),
    "",
  ]);
  const tag = head.headers.get("ETag")!;
  expect(tag).toContain(second.metainfo.infoHash.toHex());
  expect((await fetch(url, { headers: { "If-None-Match": `"other", W/${tag}` } })).status).toBe(304);
  expect((await fetch(url, { headers: { "If-None-Match": '"other"' } })).status).toBe(200);
});

test("whatever is no torrent is 404 with the names", async () => {
  for (const path of [
    "none.torrent",
    "lab",
    "",
    "lab.torrent/",
    "%2e%2e%2fetc%2fpasswd",
    "..%2flab.torrent",
    "%zz.torrent",
    "__proto__.torrent",
    "%00.torrent",
  ]) {
    const response = await fetch(`${base}/torrents/${path}`);
    expect([path, response.status]).toEqual([path, 404]);
    expect(await response.text()).toBe(
      "no such torrent. Served here:\n/torrents/class%20room.torrent\n/torrents/lab.torrent\n",
    );
  }
  expect((await fetch(`${base}/torrents/lab.torrent`, { method: "PUT", body: "x" })).status).toBe(405);
  expect((await fetch(`${base}/nowhere`)).status).toBe(404);
});

/** What a client gets that does not tidy its paths, as fetch does. */
function raw(request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(server.httpPort, "127.0.0.1", () => socket.write(request));
    socket.on("data", (data) => {
      text += data.toString("latin1");
    });
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

test("paths that climb lead nowhere", async () => {
  for (const path of [
    "/torrents/../../../../etc/passwd",
    "/../etc/passwd",
    "//etc/passwd",
    "/torrents/..\\..\\etc\\passwd",
  ]) {
    const answer = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect([path, /^HTTP\/1\.1 40[04] /.test(answer), answer.includes("root:")]).toEqual([path, true, false]);
  }
});

test("a forged Host is not written into torrents or texts", async () => {
  const answer = await raw('GET / HTTP/1.1\r\nHost: a"b<c>\r\nConnection: close\r\n\r\n');
  expect(answer).toContain("diskswarm deploy http://SERVER/torrents/lab.torrent");
  const file = await raw("GET /torrents/class%20room.torrent HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n");
  expect(file).not.toContain("announce");
});

test("/ names the images and what to type; the tracker serves these torrents only", async () => {
  const summary = await (await fetch(`${base}/`)).text();
  expect(summary).toContain(`diskswarm deploy ${base}/torrents/class%20room.torrent /dev/TARGET`);
  expect(await server.counts(first.metainfo.infoHash.toHex())).toEqual({ seeders: 0, leechers: 0, downloaded: 0 });
  expect(await server.counts("00".repeat(20))).toBeNull();
  const reply = await (
    await fetch(`${base}/announce?info_hash=${"%00".repeat(20)}&peer_id=${"%00".repeat(20)}&port=1&left=0`)
  ).text();
  expect(reply).toContain("does not serve");
});

test("two torrents of one name, and names that are no file names, are refused", async () => {
  for (const torrents of [
    [first, first],
    [{ ...first, name: "a/b" }],
    [{ ...first, name: ".." }],
    [{ ...first, name: "" }],
  ])
    await expect(startServer({ listen: "127.0.0.1", httpPort: 0, udpPort: 0, torrents, ...NO_NODES })).rejects.toThrow(
      /name/,
    );
});
