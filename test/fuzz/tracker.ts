/** Fuzz targets of the tracker: the head of an HTTP request, and an announce's query. */
import { deepStrictEqual, ok } from "node:assert";
import { HttpHead, headEnd, Target } from "../../src/tracker/http-head.ts";
import { AnnounceQuery, encodePercent } from "../../src/tracker/query.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, randomBytes } from "./mutate.ts";

const HEADS = [
  "GET /announce?info_hash=%AB&port=1 HTTP/1.1\r\nHost: a:6969\r\nConnection: keep-alive, x\r\n\r\n",
  "GET /scrape HTTP/1.0\r\nconnection:Close\r\nContent-Length: 0\r\n\r\n",
  "POST http://h/announce?x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUpgrade: websocket\r\n\r\n",
  "HEAD / HTTP/1.1\r\nX:\t \r\nConnection: upgrade\r\nConnection: close\r\n\r\n",
];
/** An independent reading of what may be taken for a head. */
const REQUEST_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP\/1\.([01])$/;
const HEADER = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)$/;

/** A head is taken exactly where a plain grammar takes it, and means what that grammar says; nothing outside is looked at. */
export function fuzzHttpHead(random: SeededRandom): void {
  const before = random.below(20);
  const text = mutate(random, Buffer.from(HEADS[random.below(HEADS.length)]!, "latin1"));
  const bytes = Buffer.concat([randomBytes(random, before), text, randomBytes(random, random.below(20))]);
  const end = headEnd(bytes, before, before + text.length);
  const found = Buffer.from(text).toString("latin1").indexOf("\r\n\r\n");
  deepStrictEqual(end, found < 0 ? -1 : before + found + 4);
  if (end < 0) return;
  const head = new HttpHead();
  const taken = head.parse(bytes, before, end);
  const [line = "", ...headers] = bytes.toString("latin1", before, end - 4).split("\r\n");
  const request = REQUEST_LINE.exec(line);
  const fields = headers.map((header) => HEADER.exec(header));
  deepStrictEqual(taken, request !== null && fields.every((field) => field !== null));
  if (!taken) return;
  const [, method, target, minor] = request!;
  const path = target!.split("?")[0]!.replace(/^http:\/\/[^/]*/i, "");
  deepStrictEqual(head.isGet, method === "GET");
  deepStrictEqual(
    head.target,
    path === "/announce" ? Target.announce : path === "/scrape" ? Target.scrape : Target.other,
  );
  const mark = target!.indexOf("?");
  deepStrictEqual(bytes.toString("latin1", head.queryFrom, head.queryTo), mark < 0 ? "" : target!.slice(mark + 1));
  const valuesOf = (name: string) =>
    fields.filter((field) => field![1]!.toLowerCase() === name).map((field) => field![2]!);
  const options = valuesOf("connection").map((value) => value.toLowerCase().split(/[, \t]+/));
  deepStrictEqual(head.connectionAt.length, options.length);
  let keepAlive = minor === "1";
  for (const words of options) {
    if (words.includes("close")) keepAlive = false;
    else if (minor === "0" && words.includes("keep-alive")) keepAlive = true;
  }
  deepStrictEqual(head.keepAlive, keepAlive);
  const lengths = valuesOf("content-length").map((value) => value.replace(/^[ \t]+|[ \t]+$/g, ""));
  deepStrictEqual(head.hasBody, lengths.some((value) => value !== "0") || valuesOf("transfer-encoding").length > 0);
}

/** What was well formed comes out as it went in; whatever is sent gives values within their bounds, or a reason. */
export function fuzzAnnounceQuery(random: SeededRandom): void {
  const [infoHash, peerId] = [randomBytes(random, 20), randomBytes(random, 20)];
  const port = 1 + random.below(65535);
  const good = `info_hash=${encodePercent(infoHash)}&peer_id=${encodePercent(peerId)}&port=${port}&left=7&event=started`;
  const query = new AnnounceQuery();
  deepStrictEqual(query.read(Buffer.from(good), 0, good.length), null);
  deepStrictEqual([query.infoHash, query.port, query.leftBytes, query.event], [infoHash.toHex(), port, 7, "started"]);
  deepStrictEqual(query.peerId.toHex(), peerId.toHex());

  const broken = mutate(random, Buffer.from(good));
  if (query.read(broken, 0, broken.length) !== null) return;
  ok(/^[0-9a-f]{40}$/.test(query.infoHash) && query.port > 0 && query.port < 65536 && query.leftBytes >= 0);
  ok(query.peersWanted >= -1 && Number.isSafeInteger(query.peersWanted));
}
