/** The executable as the only file of a root: no C library, no loader, and where that is said no /proc either. */
import { describe, expect } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectSameBytes } from "../harness/compare.ts";
import { programArgv, REPOSITORY } from "../harness/diskswarm.ts";
import { MIB } from "../harness/fixture.ts";
import { stampedImage } from "../harness/image.ts";
import { undoLater } from "../harness/mounts.ts";
import { freePort } from "../harness/ports.ts";
import { Child, run } from "../harness/process.ts";
import { type Scope, scopedTest } from "../harness/scope.ts";
import { isRoot, needTools } from "../harness/tools.ts";
import { Elf } from "../../tools/standalone/elf.ts";

const IMAGE_BYTES = 8 * MIB;
const LOCAL = ["--listen", "127.0.0.1", "--port", "0"];
const isBuilt = process.env.DISKSWARM_BINARY !== undefined;

/** A folder that holds nothing but the executable. */
function emptyRoot(scope: Scope): string {
  const root = scope.tempDir();
  copyFileSync(programArgv()[0]!, join(root, "diskswarm"));
  return root;
}

function withProc(scope: Scope, root: string): string {
  const folder = join(root, "proc");
  mkdirSync(folder);
  run(["mount", "-t", "proc", "proc", folder]);
  undoLater(scope, ["umount", folder]);
  return root;
}

function inRoot(scope: Scope, root: string, ...words: string[]): Child {
  // What a test machine sets is not what an empty root has.
  return new Child(scope, ["chroot", root, "/diskswarm", ...words], {
    prefix: ["env", "-i", `PATH=${process.env.PATH}`],
  });
}

async function succeed(child: Child): Promise<string> {
  const { exitCode, stdout, stderr } = await child.ended;
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr });
  return stdout;
}

/** Files that a process maps, without what the kernel calls its own. */
function mappedFiles(pid: number): string[] {
  const paths = readFileSync(`/proc/${pid}/maps`, "utf8").matchAll(/ (\/.*)$/gm);
  return [...new Set([...paths].map(([, path]) => path!))];
}

function withImage(root: string): string {
  stampedImage(join(root, "image.raw"), IMAGE_BYTES, 1);
  return root;
}

/** Deploys to a file in the root, over loopback. */
async function deploy(scope: Scope, root: string, torrent: string, ...words: string[]): Promise<void> {
  await succeed(inRoot(scope, root, "deploy", torrent, "/disk.raw", "--force", ...words, ...LOCAL));
  expectSameBytes(join(root, "disk.raw"), join(root, "image.raw"), IMAGE_BYTES);
}

describe.skipIf(!isRoot || !isBuilt)("as the only file of a root", () => {
  scopedTest("it starts, and reads files, without /proc and /dev", async (scope) => {
    const root = emptyRoot(scope);
    expect(await succeed(inRoot(scope, root, "--version"))).toMatch(/^diskswarm \d/);
    const { exitCode, stderr } = await inRoot(scope, root, "inspect", "/none.torrent").ended;
    expect({ exitCode, stderr }).toEqual({
      exitCode: 1,
      stderr: expect.stringMatching(/^diskswarm: .*none\.torrent.*\n$/),
    });
  });

  scopedTest("threads, sockets and a whole deployment work without /proc", async (scope) => {
    const root = withImage(emptyRoot(scope));
    await succeed(inRoot(scope, root, "capture", "/image.raw", "-o", "/image.torrent"));
    const port = String(await freePort());
    const at = ["--listen", "127.0.0.1", "--port", port];
    const seeder = inRoot(scope, root, "seed", "/image.torrent", "/image.raw", ...at, "--json");
    await seeder.waitForLine(/"phase":"serve"/);
    await deploy(scope, root, "/image.torrent", "--peer", `127.0.0.1:${port}`);
  });

  scopedTest("with /proc it serves and deploys by name, and maps no file but itself", async (scope) => {
    const root = withProc(scope, withImage(emptyRoot(scope)));
    for (const name of ["etc", "tmp"]) mkdirSync(join(root, name));
    writeFileSync(join(root, "etc/hosts"), "127.0.0.1 imaging-server\n");
    const server = inRoot(scope, root, "serve", "/image.raw", ...LOCAL, "--http", "0", "--udp", "0", "--json");
    const { images } = JSON.parse(await server.waitForLine(/"event":"start"/));
    const files = mappedFiles(server.pid);
    expect(files.filter((path) => !path.startsWith("/memfd:"))).toEqual([expect.stringMatching(/\/diskswarm$/)]);
    expect(files).toContain("/memfd:libc.so.6 (deleted)");
    await deploy(scope, root, images[0].url.replace("//127.0.0.1:", "//imaging-server:"));
  });

  scopedTest("strip, which tools that make an initramfs run on everything, does it no harm", async (scope) => {
    needTools("strip");
    const root = emptyRoot(scope);
    Bun.spawnSync(["strip", "-g", "-p", join(root, "diskswarm")], { stderr: "ignore" });
    expect(await succeed(inRoot(scope, root, "--version"))).toMatch(/^diskswarm \d/);
  });

  scopedTest("a stack without a limit, a small one and a long command line are no trouble", async (scope) => {
    const root = emptyRoot(scope);
    for (const limit of ["unlimited", "512"]) {
      const shell = ["sh", "-c", `ulimit -s ${limit} && exec chroot ${root} /diskswarm --version`];
      expect(run(shell)).toMatch(/^diskswarm \d/);
    }
    expect(await succeed(inRoot(scope, root, "--version", "x".repeat(100_000)))).toMatch(/^diskswarm \d/);
  });
});

describe.skipIf(!isRoot || !isBuilt)("on a system with another C library", () => {
  scopedTest("its own is used: what has the same name there is not looked at", async (scope) => {
    const root = withProc(scope, emptyRoot(scope));
    const places = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "usr/lib64", "usr/lib", "lib"];
    for (const place of places) {
      for (const name of [
        "libc.so.6",
        "libm.so.6",
        "libpthread.so.0",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
      ]) {
        mkdirSync(join(root, place), { recursive: true });
        writeFileSync(join(root, place, name), "this is no library\n");
      }
    }
    expect(await succeed(inRoot(scope, root, "--version"))).toMatch(/^diskswarm \d/);
  });
});

describe.skipIf(!isBuilt)("the build", () => {
  scopedTest("makes the plain form with --dynamic", async (scope) => {
    const outfile = join(scope.tempDir(), "plain");
    run([process.execPath, "build.ts", "--dynamic", `--outfile=${outfile}`], ["env", "-C", REPOSITORY]);
    expect(run([outfile, "--version"])).toMatch(/^diskswarm \d/);
    const loaderOf = (path: string) => new Elf(path, readFileSync(path)).interpreter;
    expect(loaderOf(outfile)).toMatch(/\/ld-linux/);
    expect(loaderOf(programArgv()[0]!)).toBeNull();
  });
});
