/** The program as its users run it: a process with words, an environment, two streams and an exit code. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { COMMANDS } from "../../src/cli/commands.ts";
import { VERSION } from "../../src/version.ts";

const MAIN = join(import.meta.dir, "../../src/main.ts");
const PIECE_BYTES = 262_144;
const IMAGE_BYTES = 3 * PIECE_BYTES + 1000;
const folder = mkdtempSync(join(tmpdir(), "diskswarm-main-test-"));
const image = join(folder, "image.raw");
const torrent = join(folder, "image.torrent");
writeImage();

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** An image and a torrent of it as any client would make it. */
function writeImage(): void {
  const bytes = new Uint8Array(IMAGE_BYTES).map((_, index) => (index * 2_654_435_761) >>> 13);
  const hashes: Buffer[] = [];
  for (let at = 0; at < IMAGE_BYTES; at += PIECE_BYTES)
    hashes.push(
      createHash("sha1")
        .update(bytes.subarray(at, at + PIECE_BYTES))
        .digest(),
    );
  const head = `d4:infod6:lengthi${IMAGE_BYTES}e4:name9:image.raw12:piece lengthi${PIECE_BYTES}e6:pieces${hashes.length * 20}:`;
  writeFileSync(image, bytes);
  writeFileSync(torrent, Buffer.concat([Buffer.from(head), ...hashes, Buffer.from("ee")]));
}

function spawn(words: readonly string[], environment: Record<string, string> = {}) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("DISKSWARM_"));
  return Bun.spawn([process.execPath, MAIN, ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...Object.fromEntries(inherited), ...environment },
  });
}

async function run(words: readonly string[], environment?: Record<string, string>) {
  const child = spawn(words, environment);
  const [out, err, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { out, err, code };
}

/** Parses every line of stdout; anything that is no event fails the test. */
function events(out: string): Record<string, unknown>[] {
  return out
    .split("\n")
    .slice(0, -1)
    .map((line) => {
      const event = JSON.parse(line);
      expect(event.event).toBeString();
      expect(new Date(event.time).toISOString()).toBe(event.time);
      return event;
    });
}

/** Reads stdout until a line says `event`; returns all that was read. */
async function readUntil(stream: ReadableStream<Uint8Array>, event: string): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes(`{"event":"${event}"`) && text.endsWith("\n")) return text;
  }
  throw new Error(`the process ended before it said ${event}: ${text}`);
}

describe("help", () => {
  test("--version", async () => {
    const { out, err, code } = await run(["--version"]);
    expect(out).toStartWith(`diskswarm ${VERSION} (`);
    expect({ err, code }).toEqual({ err: "", code: 0 });
  });

  test("--help names every command", async () => {
    const { out, code } = await run(["--help"]);
    expect(code).toBe(0);
    for (const command of COMMANDS) expect(out).toContain(`  ${command.name}`);
  });

  for (const command of COMMANDS) {
    test(`${command.name} --help has options with defaults, exit codes and an example`, async () => {
      const { out, err, code } = await run([command.name, "--help"]);
      expect({ err, code }).toEqual({ err: "", code: 0 });
      expect(out).toContain(`Usage: diskswarm ${command.name}`);
      expect(out).toContain("(default: ");
      expect(out).toContain("Exit codes:");
      expect(out).toMatch(new RegExp(`Examples?:\\n {2}.*diskswarm ${command.name}`));
      for (const line of out.split("\n")) expect(line.length).toBeLessThanOrEqual(110);
    });
  }

  test("nothing, nonsense and a missing argument are wrong usage", async () => {
    for (const words of [[], ["nonsense"], ["deploy"], ["deploy", "x"], ["deploy", "a", "b", "--bogus"]]) {
      const { out, err, code } = await run(words);
      expect({ out, code }).toEqual({ out: "", code: 2 });
      expect(err).toMatch(/^diskswarm: [^\n]+\n$/);
    }
  });
});

describe("exit codes", () => {
  const target = join(folder, "target.raw");

  test("1: the torrent cannot be read", async () => {
    const { err, code } = await run(["deploy", join(folder, "none.torrent"), target, "--force"]);
    expect(code).toBe(1);
    expect(err).toContain("no such file");
  });

  test("1: the source is not what was captured", async () => {
    const { err, code } = await run(["seed", torrent, torrent, "--port", "0", "--listen", "127.0.0.1"]);
    expect(code).toBe(1);
    expect(err).toMatch(/^diskswarm: [^\n]+\n$/);
  });

  test("2: too little memory, from a flag or a variable", async () => {
    expect((await run(["deploy", torrent, target, "--memory", "1M"])).code).toBe(2);
    expect((await run(["deploy", torrent, target], { DISKSWARM_MEMORY: "1M" })).code).toBe(2);
  });

  test("3: the source changed since the capture", async () => {
    const changed = join(folder, "changed.raw");
    const bytes = readFileSync(image);
    bytes[PIECE_BYTES] = bytes[PIECE_BYTES]! ^ 1;
    writeFileSync(changed, bytes);
    const { code, err } = await run(["seed", torrent, changed, "--check", "--port", "0", "--listen", "127.0.0.1"]);
    expect({ code, err }).toMatchObject({ code: 3 });
  });

  test("4: a file without --force, and nothing is created", async () => {
    const { err, code } = await run(["deploy", torrent, target, "--port", "0", "--listen", "127.0.0.1"]);
    expect(code).toBe(4);
    expect(err).toContain("--force");
    expect(existsSync(target)).toBe(false);
  });

  test("5: nobody to fetch from", async () => {
    const words = [
      "deploy",
      torrent,
      target,
      "--force",
      "--port",
      "0",
      "--listen",
      "127.0.0.1",
      "--timeout",
      "1s",
      "--json",
    ];
    const { out, err, code } = await run(words);
    expect(code).toBe(5);
    expect(err).toMatch(/^diskswarm: [^\n]+\n$/);
    expect(events(out).at(-1)).toMatchObject({ event: "error", message: expect.any(String), code: expect.any(String) });
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`130: ${signal} while it seeds`, async () => {
      const child = spawn(["seed", torrent, image, "--port", "0", "--listen", "127.0.0.1", "--json"]);
      const rest = await readUntil(child.stdout, "start");
      child.kill(signal);
      expect(await child.exited).toBe(130);
      expect(events(rest)[0]).toMatchObject({ event: "start", bytesTotal: IMAGE_BYTES });
    });
  }

  test("a signal that was ignored from the start stays so (nohup)", async () => {
    const words = ["seed", torrent, image, "--port", "0", "--listen", "127.0.0.1", "--json"];
    const child = Bun.spawn(["nohup", process.execPath, MAIN, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    await readUntil(child.stdout, "start");
    child.kill("SIGHUP");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    const err = await new Response(child.stderr).text();
    expect(err).toContain("SIGTERM: stopping");
    expect(err).not.toContain("SIGHUP");
  });

  test("130: the second signal ends a process at once", async () => {
    const child = spawn(["seed", torrent, image, "--port", "0", "--listen", "127.0.0.1", "--json"]);
    await readUntil(child.stdout, "start");
    child.kill("SIGTERM");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
  });
});

describe("a deployment", () => {
  /** Seeds on a port of the kernel's choice while `body` runs. */
  async function withSeeder(body: (peer: string) => Promise<void>): Promise<void> {
    const child = spawn(["seed", torrent, image, "--port", "0", "--listen", "127.0.0.1", "--json"]);
    try {
      const [start] = events(await readUntil(child.stdout, "start"));
      await body(`127.0.0.1:${start!.port}`);
    } finally {
      child.kill("SIGTERM");
      await child.exited;
    }
  }

  const flags = ["--force", "--port", "0", "--listen", "127.0.0.1"];

  test("with --json: start, progress, done, and nothing else", async () => {
    await withSeeder(async (peer) => {
      const target = join(folder, "json.raw");
      const { out, err, code } = await run(["deploy", torrent, target, "--peer", peer, ...flags, "--json"]);
      expect({ err, code }).toEqual({ err: "", code: 0 });
      const heard = events(out);
      expect(heard[0]).toMatchObject({ event: "start", target });
      for (const event of heard.slice(1, -1)) expect(event.event).toBe("progress");
      expect(heard.at(-1)).toMatchObject({
        event: "done",
        bytesTotal: IMAGE_BYTES,
        bytesFetched: IMAGE_BYTES,
        bytesReused: 0,
        seconds: expect.any(Number),
        peakRssBytes: expect.any(Number),
        flushed: true,
        verified: false,
      });
      expect(readFileSync(target).subarray(0, IMAGE_BYTES).equals(readFileSync(image))).toBe(true);
    });
  });

  test("with --verify it is read again, and a second one finds all there", async () => {
    await withSeeder(async (peer) => {
      const target = join(folder, "verified.raw");
      const words = ["deploy", torrent, target, "--peer", peer, ...flags, "--json"];
      expect(events((await run([...words, "--verify"])).out).at(-1)).toMatchObject({ event: "done", verified: true });
      const again = events((await run([...words, "--delta", "always"])).out).at(-1);
      expect(again).toMatchObject({ event: "done", bytesFetched: 0, bytesReused: IMAGE_BYTES });
    });
  });

  test("as text: lines for people, without control characters in a pipe", async () => {
    await withSeeder(async (peer) => {
      const target = join(folder, "text.raw");
      const { out, err, code } = await run(["deploy", torrent, target, "--peer", peer, ...flags]);
      expect({ err, code }).toEqual({ err: "", code: 0 });
      expect(out).toContain("done and flushed");
      expect(out).not.toContain("\x1b");
      expect(out).not.toContain("{");
      const quiet = await run(["deploy", torrent, target, "--peer", peer, ...flags], { DISKSWARM_QUIET: "1" });
      expect(quiet).toEqual({ out: "", err: "", code: 0 });
    });
  });

  test("goes on when the reader of its output went away", async () => {
    await withSeeder(async (peer) => {
      const target = join(folder, "closed.raw");
      const child = spawn(["deploy", torrent, target, "--peer", peer, ...flags, "--json"]);
      await child.stdout.cancel();
      expect(await child.exited).toBe(0);
      expect(readFileSync(target).subarray(0, IMAGE_BYTES).equals(readFileSync(image))).toBe(true);
    });
  });
});
