/** The tracker's HTTP port, byte by byte: what is served, refused, handed over, and who is dropped. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX } from "../../src/limits.ts";
import { Random } from "../../src/swarm/random.ts";
import { startTracker, type Tracker } from "../../src/tracker/tracker.ts";
import { until } from "../harness/process.ts";
import { announceQuery, HASH } from "./helpers.ts";

/** Those who talk are never silent for so long, however busy the machine is. */
const IDLE_MS = 5000;
const BIG = "x".repeat(5_000_000);
let tracker: Tracker;
beforeAll(async () => {
  tracker = await startTracker({
    listen: "127.0.0.1",
    httpPort: 0,
    udpPort: 0,
    open: false,
    allowed: [HASH],
    idleMs: IDLE_MS,
    route: (request) => {
      const path = new URL(request.url).pathname;
      if (path === "/big") return new Response(BIG);
      return path === "/page" ? new Response(`${request.method} ${request.headers.get("X-Test")}`) : null;
    },
  });
});
afterAll(() => tracker.stop());

interface Conversation {
  readonly socket: Socket;
  /** All that came, once the tracker closed. */
  readonly closed: Promise<string>;
  received(): string;
}

function open(port = tracker.httpPort): Conversation {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  let text = "";
  socket.on("data", (bytes: Buffer) => {
    text += bytes.toString("latin1");
  });
  const closed = new Promise<string>((resolve) => {
    socket.on("end", () => {
      socket.end();
      resolve(text);
    });
    socket.on("error", () => resolve(text));
  });
  return { socket, closed, received: () => text };
}

function exchange(request: string): Promise<string> {
  const { socket, closed } = open();
  socket.write(Buffer.from(request, "latin1"));
  return closed;
}

const announce = (number: number, headers = "Connection: close\r\n", version = "1.1") =>
  `GET /announce?${announceQuery(number)} HTTP/${version}\r\nHost: t\r\n${headers}\r\n`;
const bodies = (text: string) => text.split(/HTTP\/1\.1 \d+/).length - 1;

describe("what is served", () => {
  test("without keep-alive the tracker closes; its length and its word agree", async () => {
    for (const request of [announce(1), announce(1, "", "1.0"), announce(1, "connection: foo , CLOSE\r\n")]) {
      const reply = await exchange(request);
      const [head, body] = reply.split("\r\n\r\n") as [string, string];
      expect(head).toStartWith("HTTP/1.1 200 OK\r\n");
      expect(head).toContain("Connection: close");
      expect(head).toContain(`Content-Length: ${body.length}`);
      expect(body).toMatch(/^d8:complete.*e$/s);
    }
  });

  test("with keep-alive, pipelined and in single bytes: one reply for each, in order", async () => {
    const { socket, closed } = open();
    socket.setNoDelay(true);
    const all = announce(1, "") + announce(2, "") + announce(3, "Connection: keep-alive\r\n", "1.0") + announce(4);
    const random = new Random(21);
    for (let at = 0; at < all.length; ) {
      const step = 1 + random.below(90);
      socket.write(all.slice(at, at + step));
      at += step;
      await Bun.sleep(1);
    }
    const text = await closed;
    expect(bodies(text)).toBe(4);
    expect(
      [...text.matchAll(/8:completei0e10:downloadedi0e11:external ip4:.{4}10:incompletei(\d)e/gs)].map((m) => m[1]),
    ).toEqual(["1", "2", "3", "4"]);
  });

  test("more requests in one packet than fit one head", async () => {
    const { socket, closed } = open();
    const count = Math.ceil((3 * HTTP_HEAD_BYTES_MAX) / announce(1, "").length);
    socket.write(announce(1, "").repeat(count) + announce(1));
    expect(bodies(await closed)).toBe(count + 1);
  });
});

describe("what is handed over", () => {
  test("other paths and methods are answered by the pages, one request for each connection", async () => {
    const page = await exchange("GET /page HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\nX-Test: 7\r\n\r\n");
    expect(page).toContain("Connection: close\r\n");
    expect(page).toEndWith("GET 7");
    expect(await exchange("GET /else HTTP/1.1\r\nHost: t\r\n\r\n")).toStartWith("HTTP/1.1 404");
    expect(await exchange("HEAD /page HTTP/1.1\r\nHost: t\r\n\r\n")).toStartWith("HTTP/1.1 200");
    expect(await exchange("POST /page HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")).toContain("POST null");
  });

  test("behind announces of the same connection, and a page that is larger than any buffer", async () => {
    const text = await exchange(`${announce(1, "")}GET /big HTTP/1.1\r\nHost: t\r\n\r\n`);
    expect(bodies(text)).toBe(2);
    expect(text).toEndWith(BIG);
  });

  test("a request that is too large is answered, however much of it is still to come", async () => {
    const url = `http://127.0.0.1:${tracker.httpPort}/page`;
    for (let n = 0; n < 20; n++) {
      const { status } = await fetch(url, { method: "POST", body: BIG });
      expect(status).toBe(413);
    }
    const silent = open();
    silent.socket.write(`POST /page HTTP/1.1\r\nHost: t\r\nContent-Length: ${BIG.length}\r\n\r\n`);
    expect(await silent.closed).toStartWith("HTTP/1.1 413");
  });

  test("a client that leaves in the middle of a page, and one that reads nothing, take nothing with them", async () => {
    const left: Conversation[] = [];
    for (let n = 0; n < 50; n++) {
      const one = open();
      one.socket.pause();
      one.socket.write("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
      left.push(one);
    }
    await Bun.sleep(100);
    for (const [n, { socket }] of left.entries()) if (n % 2 === 0) socket.destroy();
    expect(await exchange("GET /page HTTP/1.1\r\nHost: t\r\n\r\n")).toEndWith("GET null");
    expect(await exchange(announce(1))).toStartWith("HTTP/1.1 200");
    for (const { socket } of left) socket.destroy();
  });
});

describe("what is refused", () => {
  const refused: [string, string, string][] = [
    ["rubbish", "\x16\x03\x01\x02\x00\r\n\r\n", "400"],
    ["no version", "GET /announce\r\n\r\n", "400"],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\n", "400"],
    ["a folded header", `GET /announce HTTP/1.1\r\nA: b\r\n c\r\n\r\n`, "400"],
    ["a header without a colon", `GET /announce HTTP/1.1\r\nA\r\n\r\n`, "400"],
    ["a control character in a header", `GET /announce HTTP/1.1\r\nA: \x00\r\n\r\n`, "400"],
    ["an announce with a body", announce(1, "Content-Length: 5\r\n"), "413"],
    ["a chunked announce", announce(1, "Transfer-Encoding: chunked\r\n"), "413"],
    ["POST of an announce", announce(1).replace("GET", "POST"), "405"],
    ["a head without end", `GET /announce?${"x".repeat(HTTP_HEAD_BYTES_MAX * 2)}`, "431"],
  ];
  for (const [what, request, status] of refused) {
    test(what, async () => {
      const reply = await exchange(request);
      expect(reply).toStartWith(`HTTP/1.1 ${status} `);
      expect(reply).toContain("Connection: close");
    });
  }

  test("a long query is a failure reason", async () => {
    expect(await exchange(`GET /announce?${"x".repeat(9000)} HTTP/1.1\r\nConnection: close\r\n\r\n`)).toContain(
      "14:failure reason23:the request is too long",
    );
  });
});

describe("who is dropped", () => {
  test("silence, half a request, a request a byte at a time: after the time-out, whatever was sent", async () => {
    const kinds = [open(), open(), open()];
    kinds[1]!.socket.write("GET /announce?info_hash=");
    const drip = setInterval(() => kinds[2]!.socket.write("G"), 20);
    expect(await Promise.all(kinds.map(({ closed }) => closed))).toEqual(["", "", ""]);
    clearInterval(drip);
  });

  test("who sends announces and reads no reply", async () => {
    const { socket } = open();
    socket.pause();
    const gone = new Promise<void>((resolve) => socket.on("close", () => resolve()));
    socket.on("error", () => socket.destroy());
    const many = announce(1, "").repeat(1000);
    const push = () => {
      while (!socket.destroyed && socket.write(many));
    };
    socket.on("drain", push);
    push();
    await gone;
    expect(await exchange(announce(1))).toStartWith("HTTP/1.1 200");
  });

  test("more idle clients than there are places: each newcomer is still served", async () => {
    const idle: Conversation[] = [];
    try {
      for (let n = 0; n < HTTP_CONNECTIONS_MAX + 50; n++) idle.push(open());
      for (let n = 0; n < 20; n++) expect(await exchange(announce(n))).toStartWith("HTTP/1.1 200");
    } finally {
      for (const { socket } of idle) socket.destroy();
    }
  });
});

test("mutated requests are answered or closed, and the tracker goes on", async () => {
  const random = new Random(5);
  const pieces = [
    announce(1, ""),
    announce(2),
    "GET /page HTTP/1.1\r\nHost: t\r\n\r\n",
    "\r\n",
    "\0",
    "HTTP/1.1",
    "GET ",
  ];
  await Promise.all(
    Array.from({ length: 200 }, async () => {
      let text = "";
      for (let n = 0; n < 3; n++) text += pieces[random.below(pieces.length)]!;
      for (let n = random.below(4); n > 0; n--) {
        const at = random.below(text.length);
        text = text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + random.below(3));
      }
      const { socket, closed } = open();
      socket.write(Buffer.from(text, "latin1"));
      if (random.chance(0.3)) socket.destroy();
      else {
        socket.end();
        expect(await closed).toMatch(/^$|^HTTP\/1\.1 [2-5]\d\d /);
      }
    }),
  );
  expect(await exchange(announce(1))).toStartWith("HTTP/1.1 200");
});

test("stop ends all of it: idle clients, pages under way, and the port is free again", async () => {
  const own = await startTracker({
    listen: "127.0.0.1",
    httpPort: 0,
    udpPort: 0,
    open: true,
    allowed: [],
    route: () => new Response(BIG),
  });
  const [idle, page] = [open(own.httpPort), open(own.httpPort)];
  page.socket.pause();
  page.socket.write("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
  idle.socket.write("GET /ann");
  await until("the idle client is there", async () => (await own.stats()).peers === 0);
  await own.stop();
  page.socket.resume();
  await Promise.all([idle.closed, page.closed]);
  const again = await startTracker({
    listen: "127.0.0.1",
    httpPort: own.httpPort,
    udpPort: own.udpPort,
    open: true,
    allowed: [],
  });
  await again.stop();
});
