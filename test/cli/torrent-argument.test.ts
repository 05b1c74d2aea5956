/** A torrent from a file, a URL or a magnet link, and every way in which that can go wrong. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Output } from "../../src/cli/output.ts";
import { loadTorrentArgument } from "../../src/cli/torrent-argument.ts";
import { Failure } from "../../src/errors.ts";
import { TORRENT_BYTES_MAX } from "../../src/limits.ts";
import { MiB } from "../../src/units.ts";
import { TextSink } from "./helpers.ts";

const SHA1_BYTES = 20;
const PIECE_BYTES = 262_144;
const torrent = singleFileTorrent();
const folder = mkdtempSync(join(tmpdir(), "diskswarm-cli-test-"));
const path = join(folder, "image.torrent");
/** How often each path of the server was asked. */
const asked = new Map<string, number>();
let server: ReturnType<typeof Bun.serve>;

/** One file of one piece, as any client would make it. */
function singleFileTorrent(): Buffer {
  const info = `d6:lengthi${PIECE_BYTES}e4:name5:image12:piece lengthi${PIECE_BYTES}e6:pieces${SHA1_BYTES}:${"x".repeat(SHA1_BYTES)}e`;
  return Buffer.from(`d8:announce21:http://tracker/announ4:info${info}e`, "latin1");
}

beforeAll(() => {
  writeFileSync(path, torrent);
  server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const { pathname } = new URL(request.url);
      const times = (asked.get(pathname) ?? 0) + 1;
      asked.set(pathname, times);
      if (pathname === "/image.torrent") return new Response(torrent);
      if (pathname === "/moved") return Response.redirect("/image.torrent");
      if (pathname === "/late") return times < 2 ? new Response("starting", { status: 503 }) : new Response(torrent);
      if (pathname === "/never") return new Response("down", { status: 502 });
      if (pathname === "/html") return new Response("<html>hello</html>");
      if (pathname === "/endless") return new Response(endless());
      return new Response("no such torrent.\nServed here: image", { status: 404 });
    },
  });
});

afterAll(async () => {
  await server.stop(true);
  rmSync(folder, { recursive: true, force: true });
});

function endless(): ReadableStream {
  let sentBytes = 0;
  return new ReadableStream({
    pull(controller) {
      sentBytes += 8 * MiB;
      if (sentBytes > TORRENT_BYTES_MAX + 64 * MiB) controller.close();
      else controller.enqueue(new Uint8Array(8 * MiB));
    },
  });
}

const url = (name: string) => `http://127.0.0.1:${server.port}/${name}`;

function load(text: string, timeoutMs = 10_000, signal = new AbortController().signal) {
  const err = new TextSink();
  const settings = { json: false, quiet: false, logLevel: "debug", color: false } as const;
  return loadTorrentArgument(text, { timeoutMs, signal, output: new Output(new TextSink(), err, settings) });
}

/** The Failure that loading ends with. */
async function failure(text: string, timeoutMs?: number, signal?: AbortSignal): Promise<Failure> {
  const problem = await load(text, timeoutMs, signal).then(
    () => null,
    (error: unknown) => error,
  );
  expect(problem).toBeInstanceOf(Failure);
  return problem as Failure;
}

describe("files", () => {
  test("a torrent file", async () => {
    const loaded = await load(path);
    expect(loaded.name).toBe("image");
    expect(loaded.trackers).toEqual([["http://tracker/announ"]]);
    expect(loaded.file!.metainfo.extents.totalBytes).toBe(PIECE_BYTES);
    expect(loaded.file!.bytes.length).toBe(torrent.length);
  });

  test("none, a folder, and no torrent", async () => {
    expect(await failure(join(folder, "missing"))).toMatchObject({ exitCode: 1, code: "torrent-unreadable" });
    expect((await failure(folder)).message).toContain("is not a file");
    writeFileSync(join(folder, "text"), "hello");
    const problem = await failure(join(folder, "text"));
    expect(problem).toMatchObject({ exitCode: 1, code: "bad-torrent" });
    expect(problem.message).toContain(join(folder, "text"));
  });
});

describe("URLs", () => {
  test("a torrent, also behind a redirection", async () => {
    for (const name of ["image.torrent", "moved"]) expect((await load(url(name))).name).toBe("image");
  });

  test("a server that starts late is asked again", async () => {
    expect((await load(url("late"))).name).toBe("image");
    expect(asked.get("/late")).toBe(2);
  });

  test("one that never answers ends with 5", async () => {
    const problem = await failure(url("never"), 1000);
    expect(problem).toMatchObject({ exitCode: 5, code: "torrent-unreachable" });
    expect(problem.message).toContain("502");
  });

  test("a port where nobody listens ends with 5", async () => {
    const gone = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("") });
    const { port } = gone;
    await gone.stop(true);
    const problem = await failure(`http://127.0.0.1:${port}/x.torrent`, 0);
    expect(problem).toMatchObject({ exitCode: 5 });
    expect(problem.message).toContain("connection refused");
  });

  test("a torrent that the server does not know is not asked for again", async () => {
    const problem = await failure(url("other.torrent"), 60_000);
    expect(problem).toMatchObject({ exitCode: 5 });
    expect(problem.message).toContain("404");
    expect(problem.message).toContain("Served here: image");
    expect(asked.get("/other.torrent")).toBe(1);
  });

  test("something else than a torrent", async () => {
    expect(await failure(url("html"))).toMatchObject({ exitCode: 1, code: "bad-torrent" });
  });

  test("more than a torrent can have", async () => {
    const problem = await failure(url("endless"));
    expect(problem).toMatchObject({ exitCode: 5 });
    expect(problem.message).toContain("longer than a torrent");
  });

  test("interrupted while it waits", async () => {
    const controller = new AbortController();
    const waiting = failure(url("never"), 60_000, controller.signal);
    controller.abort();
    expect(await waiting).toMatchObject({ exitCode: 130 });
  });
});

describe("magnet links", () => {
  test("hash, name, trackers and peers", async () => {
    const hash = "0123456789abcdef0123456789abcdef01234567";
    const loaded = await load(`magnet:?xt=urn:btih:${hash}&dn=lab&tr=http%3A%2F%2Fa%2Fannounce&x.pe=10.0.0.7:6881`);
    expect(loaded).toMatchObject({
      file: null,
      name: "lab",
      trackers: [["http://a/announce"]],
      peers: ["10.0.0.7:6881"],
    });
    expect(loaded.infoHash.toHex()).toBe(hash);
  });

  test("one that names nothing is wrong usage", async () => {
    expect(await failure("magnet:?dn=lab")).toMatchObject({ exitCode: 2 });
  });
});
