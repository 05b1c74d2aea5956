/** Words and variables to typed values, and the line that is printed where they make no sense. */
import { describe, expect, test } from "bun:test";
import { defineCommand } from "../../src/cli/command.ts";
import {
  choice,
  duration,
  flag,
  flagName,
  port,
  repeated,
  size,
  text,
  trackerUrl,
  variableName,
} from "../../src/cli/options.ts";
import { ExitCode } from "../../src/errors.ts";
import { runWith } from "./helpers.ts";

let seen: { values: Record<string, unknown>; words: readonly string[]; given: string[] };

const probe = defineCommand({
  name: "probe",
  arguments: "<torrent> [target]",
  summary: "keeps what it was given",
  options: {
    output: text("FILE", "where to", "o"),
    pieceSize: size("bytes of a piece"),
    memory: size("bytes of the pool", "64M"),
    timeout: duration("how long", "60s"),
    port: port("where", 6881),
    io: choice(["auto", "uring"], "how", "auto"),
    tracker: repeated(trackerUrl("who")),
    force: flag("do it"),
  },
  examples: ["diskswarm probe x"],
  exitCodes: [ExitCode.done],
  async run(context) {
    seen = { values: context.options, words: context.arguments, given: [...context.given].sort() };
    return ExitCode.done;
  },
});
const collect = defineCommand({
  ...probe,
  name: "collect",
  arguments: "<...sources>",
  options: {},
  async run(context) {
    seen = { values: {}, words: context.arguments, given: [] };
    return ExitCode.done;
  },
});

const run = (words: string, environment: Record<string, string> = {}) =>
  runWith([probe, collect], words === "" ? [] : words.split(" "), environment);

/** Runs words that must be refused, and returns the one line. */
async function refused(words: string, environment: Record<string, string> = {}): Promise<string> {
  const ran = await run(words, environment);
  expect(ran.code).toBe(2);
  expect(ran.out).toBe("");
  expect(ran.err.trimEnd().split("\n")).toHaveLength(1);
  return ran.err;
}

describe("values", () => {
  test("defaults", async () => {
    expect(await run("probe x")).toEqual({ code: 0, out: "", err: "" });
    expect(seen.values).toEqual({
      output: null,
      pieceSize: null,
      memory: 64 * 1024 * 1024,
      timeout: 60_000,
      port: 6881,
      io: "auto",
      tracker: [],
      force: false,
    });
    expect(seen.given).toEqual([]);
  });

  test("flags", async () => {
    await run("probe --piece-size 4M --memory=1G --timeout 5m --port 0 --io uring --force x y -o out.torrent");
    expect(seen.values).toMatchObject({
      output: "out.torrent",
      pieceSize: 4 << 20,
      memory: 1 << 30,
      timeout: 300_000,
      port: 0,
      io: "uring",
      force: true,
    });
    expect(seen.words).toEqual(["x", "y"]);
    expect(seen.given).toEqual(["force", "io", "memory", "output", "pieceSize", "port", "timeout"]);
  });

  test("a repeated option keeps its order", async () => {
    await run("probe x --tracker http://a/announce --tracker udp://b:1");
    expect(seen.values.tracker).toEqual(["http://a/announce", "udp://b:1"]);
    await run("probe x --tracker http://a/announce");
    expect(seen.values.tracker).toEqual(["http://a/announce"]);
  });

  test("words that look like numbers stay words", async () => {
    await run("probe 007 1e3 --output 0x10");
    expect(seen.words).toEqual(["007", "1e3"]);
    expect(seen.values.output).toBe("0x10");
    await run("probe --force 1.10");
    expect(seen.words).toEqual(["1.10"]);
  });

  test("options may stand before the command, and arguments after --", async () => {
    await run("--quiet probe x --output=a=b -- -strange");
    expect(seen.words).toEqual(["x", "-strange"]);
    expect(seen.values.output).toBe("a=b");
  });

  test("a variadic argument takes all", async () => {
    await run("collect a b 3");
    expect(seen.words).toEqual(["a", "b", "3"]);
  });
});

describe("environment", () => {
  test("variables are read, and flags win", async () => {
    const environment = {
      DISKSWARM_MEMORY: "32M",
      DISKSWARM_PORT: "7000",
      DISKSWARM_FORCE: "yes",
      DISKSWARM_TRACKER: "http://a/x, http://b/x",
    };
    await run("probe x --port 7001", environment);
    expect(seen.values).toMatchObject({
      memory: 32 << 20,
      port: 7001,
      force: true,
      tracker: ["http://a/x", "http://b/x"],
    });
    expect(seen.given).toContain("memory");
  });

  test("an empty variable is none, and a switch can be off", async () => {
    await run("probe x", { DISKSWARM_MEMORY: "", DISKSWARM_FORCE: "0" });
    expect(seen.values).toMatchObject({ memory: 64 << 20, force: false });
  });

  test("a bad variable is named", async () => {
    expect(await refused("probe x", { DISKSWARM_PORT: "seven" })).toContain('DISKSWARM_PORT is "seven"');
  });

  test("names", () => {
    expect(flagName("pieceSize")).toBe("--piece-size");
    expect(variableName("pieceSize")).toBe("DISKSWARM_PIECE_SIZE");
  });
});

describe("refusals", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", "a command is missing"],
    ["nonsense", "unknown command nonsense"],
    ["probe", "needs <torrent>"],
    ["collect", "needs <sources>"],
    ["probe a b c", '"c"'],
    ["probe x --piece-sizes 4M", "unknown option --piece-sizes"],
    ["probe x --sign key", "unknown option --sign"],
    ["probe x -z", "unknown option -z"],
    ["probe x --port", "--port needs a value"],
    ["probe x --port --force", "--port needs a value"],
    ["probe x --no-port", "--port needs a value"],
    ["probe x --port 65536", '--port is "65536" but must be a port from 0 to 65535'],
    ["probe x --port -1", "unknown option -1"],
    ["probe x --memory 12Q", '--memory is "12Q" but must be a size such as 64M'],
    ["probe x --memory=", '--memory is "" but must be a size'],
    ["probe x --timeout soon", "--timeout"],
    ["probe x --io kqueue", "one of auto, uring"],
    ["probe x --tracker ftp://a", "an http, https or udp URL"],
    ["probe x --port 1 --port 2", "--port is given 2 times"],
    ["probe x --log-level loud", "--log-level"],
    ["--port 6881", "a command"],
  ];
  for (const [words, part] of cases) {
    test(words || "(nothing)", async () => {
      expect(await refused(words)).toContain(part);
    });
  }

  test("the line says where help is", async () => {
    expect(await refused("probe")).toContain("diskswarm probe --help");
  });
});
