import { expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WORKER_ENTRIES } from "../../src/kernel/threads.ts";

const SOURCE = join(import.meta.dir, "../../src");

/** Writes and reads a file through the epoll reactor, whose disk threads are workers. */
const PROGRAM = `
import * as abi from "./kernel/abi.ts";
import { openEpoll } from "./kernel/epoll.ts";
import * as libc from "./kernel/libc.ts";
import { mapMemory } from "./kernel/memory.ts";
const reactor = openEpoll();
const memory = mapMemory(8192);
memory.bytes.fill(42, 0, 4096);
const fd = libc.open(process.argv[2], abi.O_RDWR | abi.O_CREAT);
const results = [];
reactor.write(fd, memory.address, 4096, 0, 1);
reactor.run(20000, (token, result) => results.push(token, result));
reactor.read(fd, memory.address + 4096, 4096, 0, 2);
reactor.run(20000, (token, result) => results.push(token, result));
reactor.close();
console.log(results.join(), memory.bytes[8191]);
`;

test("threads start from source and from a compiled executable", () => {
  const directory = mkdtempSync(join(tmpdir(), "threads-"));
  const root = join(directory, "src");
  const executable = join(directory, "program");
  cpSync(SOURCE, root, { recursive: true });
  writeFileSync(join(root, "program.ts"), PROGRAM);
  const run = (...command: string[]) => {
    const { stdout, stderr, exitCode } = Bun.spawnSync(command, { cwd: directory });
    return { stdout: stdout.toString().trim(), stderr: stderr.toString(), exitCode };
  };
  expect(run(process.execPath, join(root, "program.ts"), join(directory, "file"))).toEqual({
    stdout: "1,4096,2,4096 42",
    stderr: "",
    exitCode: 0,
  });
  const built = run(
    process.execPath,
    "build",
    "--compile",
    "--root=src",
    `--outfile=${executable}`,
    "src/program.ts",
    "src/kernel/disk-worker.ts",
  );
  expect(built).toMatchObject({ exitCode: 0 });
  // The sources are gone: what runs now is inside the executable.
  rmSync(root, { recursive: true });
  expect(run(executable, join(directory, "file"))).toEqual({ stdout: "1,4096,2,4096 42", stderr: "", exitCode: 0 });
  rmSync(directory, { recursive: true });
}, 60_000);

test("every worker that build.ts embeds exists", () => {
  for (const entry of WORKER_ENTRIES) expect([entry, existsSync(join(SOURCE, entry))]).toEqual([entry, true]);
});
