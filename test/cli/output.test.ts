/** What the three kinds of reader see: a program, a person at a terminal, a log. */
import { describe, expect, test } from "bun:test";
import { Output, type OutputSettings, progressText } from "../../src/cli/output.ts";
import { TextSink } from "./helpers.ts";

const DONE = {
  bytesTotal: 100,
  bytesReceived: 0,
  bytesFetched: 90,
  bytesReused: 10,
  seconds: 2,
  peakRssBytes: 1000,
  flushed: true,
  verified: false,
};
const MiB = 1024 * 1024;

function setUp(settings: Partial<OutputSettings> = {}, isTerminal = false, width = 80) {
  const out = new TextSink(isTerminal, width);
  const err = new TextSink(isTerminal, width);
  const clock = { ms: Date.UTC(2026, 0, 2) };
  const all: OutputSettings = { json: false, quiet: false, logLevel: "info", color: false, ...settings };
  return { out, err, clock, output: new Output(out, err, all, () => clock.ms) };
}

const progress = (share: number) => ({
  bytesDone: share * 512 * MiB,
  bytesTotal: 512 * MiB,
  rateBytesPerSecond: 100 * MiB,
  etaSeconds: 62,
  peers: 12,
});

describe("json", () => {
  test("every line is one event, and nothing else is on stdout", () => {
    const { out, err, clock, output } = setUp({ json: true });
    output.start("writing", { target: "/dev/sdb" });
    output.line("a line for people");
    for (let i = 0; i <= 100; i++) {
      output.progress(progress(i / 100));
      clock.ms += 100;
    }
    output.warning("slow", "slow disk");
    output.done(DONE, "/dev/sdb");
    const events = out.text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events[0]).toEqual({ event: "start", time: "2026-01-02T00:00:00.000Z", target: "/dev/sdb" });
    const counts = Map.groupBy(events, (event) => event.event);
    expect(counts.get("progress")!.length).toBeGreaterThan(5);
    expect(counts.get("progress")!.length).toBeLessThan(40);
    expect(counts.get("progress")!.at(-1)).toMatchObject({ bytesDone: 512 * MiB, bytesTotal: 512 * MiB });
    expect(counts.get("warning")).toHaveLength(1);
    expect(events.at(-1)).toEqual({ event: "done", time: expect.any(String), ...DONE });
    expect(err.text).toBe("");
  });
});

describe("text", () => {
  test("the progress line", () => {
    expect(progressText(progress(0.42))).toBe(" 42.0%  215.0 MiB of 512.0 MiB  100.0 MiB/s  ETA 1:02  12 peers");
    expect(progressText({ ...progress(0.99999), etaSeconds: null, peers: 1 })).toContain(" 99.9%");
  });

  test("before the metadata came there is nothing to count", () => {
    const nothing = { ...progress(0), bytesTotal: 0, phase: "metadata", peers: 2 };
    expect(progressText(nothing)).toBe("asking the swarm what the image is  2 peers");
  });

  test("a log gets a line every few seconds, and the last one", () => {
    const { out, clock, output } = setUp();
    for (let i = 0; i <= 200; i++) {
      output.progress(progress(i / 200));
      clock.ms += 100;
    }
    const lines = out.text.trimEnd().split("\n");
    expect(lines).toHaveLength(5);
    expect(lines[0]).toStartWith("  0.0%");
    expect(lines.at(-1)).toStartWith("100.0%");
    expect(out.text).not.toContain("\x1b");
  });

  test("a terminal gets one line that is redrawn within its width and makes room for others", () => {
    const { out, err, clock, output } = setUp({}, true, 30);
    output.progress(progress(0.1));
    clock.ms += 1000;
    output.progress(progress(0.2));
    output.warning("x", "careful");
    const [, first, second] = out.text.split("\r");
    expect(first).toBe(`${" 10.0%  51.2 MiB of 512.0 MiB".slice(0, 29)}\x1b[K`);
    expect(second).toStartWith(" 20.0%");
    expect(out.text).toEndWith("\r\x1b[K");
    expect(err.text).toBe("diskswarm: warning: careful\n");
  });

  test("closing ends a line that was drawn", () => {
    const { out, output } = setUp({}, true);
    output.progress(progress(0.5));
    output.close();
    output.close();
    expect(out.text.match(/\n/g)).toHaveLength(1);
  });

  test("colour only where a terminal has it", () => {
    const colored = setUp({ color: true }, true);
    colored.output.error("x", "no");
    expect(colored.err.text).toBe("\x1b[31mdiskswarm: \x1b[0mno\n");
    const plain = setUp({ color: true }, false);
    plain.output.error("x", "no");
    expect(plain.err.text).toBe("diskswarm: no\n");
  });

  test("quiet leaves warnings and errors", () => {
    const { out, err, output } = setUp({ quiet: true });
    output.start("writing", {});
    output.progress(progress(0.5));
    output.log("info", "told");
    output.warning("x", "careful");
    output.done(DONE, "/dev/sdb");
    expect(out.text).toBe("");
    expect(err.text).toBe("diskswarm: warning: careful\n");
  });

  test("the log level decides", () => {
    const { err, output } = setUp({ logLevel: "error" });
    output.log("debug", "a");
    output.warning("x", "b");
    output.error("x", "c\nd");
    expect(err.text).toBe("diskswarm: c d\n");
  });

  test("a reader that went away is not written to", () => {
    const { out, output } = setUp();
    out.isClosed = true;
    output.line("one");
    out.isClosed = false;
    output.line("two");
    expect(out.text).toBe("");
  });
});
