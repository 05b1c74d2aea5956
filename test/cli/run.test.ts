/** How commands end: each kind of failure has its line, its event and its exit code. */
import { describe, expect, test } from "bun:test";
import { type Context, defineCommand } from "../../src/cli/command.ts";
import { assert, DiskFault, ExitCode, Failure, refusedTarget } from "../../src/errors.ts";
import { runWith } from "./helpers.ts";

/** Runs a command that consists of `body`. */
function runBody(body: (context: Context<Record<never, never>>) => Promise<ExitCode>, ...words: string[]) {
  const command = defineCommand({
    name: "work",
    arguments: "",
    summary: "works",
    options: {},
    examples: ["x"],
    exitCodes: [],
    run: body,
  });
  return runWith([command], ["work", ...words]);
}

const throwing = (error: unknown) => async (): Promise<ExitCode> => {
  throw error;
};

describe("exit codes", () => {
  test("what the command returns", async () => {
    for (const code of [ExitCode.done, ExitCode.failed, ExitCode.interrupted])
      expect((await runBody(async () => code)).code).toBe(code);
  });

  const failures: readonly (readonly [Failure, number])[] = [
    [new Failure(ExitCode.integrity, "bad-pieces", "3 pieces are bad"), 3],
    [refusedTarget("target-mounted", "/dev/sda1 is mounted on /: unmount it"), 4],
    [new Failure(ExitCode.nothingToFetch, "no-peers", "no peer within 60 s"), 5],
    [new DiskFault("/dev/sda", "pwrite", 4096, 5, "input/output error"), 1],
  ];
  for (const [failure, code] of failures) {
    test(`${failure.code} is ${code}, with one line`, async () => {
      const ran = await runBody(throwing(failure));
      expect(ran).toEqual({ code, out: "", err: `diskswarm: ${failure.message}\n` });
    });
  }

  test("a failed assertion shows where", async () => {
    const ran = await runBody(async () => {
      assert(1 > 2, "one is more than two");
      return ExitCode.done;
    });
    expect(ran.code).toBe(1);
    expect(ran.err).toContain("one is more than two");
    expect(ran.err).toContain("run.test.ts");
  });

  test("an error of the operating system is one line", async () => {
    const ran = await runBody(async () => {
      await Bun.file("/nonexistent/x").text();
      return ExitCode.done;
    });
    expect(ran.code).toBe(1);
    expect(ran.err.trimEnd().split("\n")).toHaveLength(1);
    expect(ran.err).toContain("/nonexistent/x");
  });
});

describe("--json", () => {
  test("a failure is an event on stdout and a line on stderr", async () => {
    const ran = await runBody(throwing(refusedTarget("target-mounted", "it is mounted")), "--json");
    expect(ran.err).toBe("diskswarm: it is mounted\n");
    const event = JSON.parse(ran.out);
    expect(event).toEqual({
      event: "error",
      time: expect.any(String),
      code: "target-mounted",
      message: "it is mounted",
    });
    expect(new Date(event.time).toISOString()).toBe(event.time);
  });

  test("a usage error too", async () => {
    const ran = await runBody(async () => ExitCode.done, "--json", "--nonsense");
    expect(ran.code).toBe(2);
    expect(JSON.parse(ran.out)).toMatchObject({ event: "error", code: "usage" });
  });

  test("a bug too", async () => {
    const ran = await runBody(throwing(new TypeError("x is not a function")), "--json");
    expect(ran.code).toBe(1);
    expect(JSON.parse(ran.out)).toMatchObject({ event: "error", code: "bug", message: "x is not a function" });
  });
});
