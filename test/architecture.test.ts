/**
 * Lint as a test: the direction of imports, the purity of the protocol code, and calls that belong into one
 * file. Each rule says what to do instead, and is itself tested on a line that breaks it.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const ROOT = join(import.meta.dir, "..");
const LINES_MAX = 550;

/** From the top of the house to its cellar: a layer imports from itself and from those after it. */
const LAYERS = "main cli server web boot fit image tracker peer disk kernel swarm wire torrent shared".split(" ");

interface SourceFile {
  /** From the repository's root: `src/wire/frames.ts`. */
  readonly path: string;
  readonly text: string;
  /** The text without comments and, for bans, without what stands in quotes. */
  readonly code: string;
}

function sourceFile(path: string, text: string): SourceFile {
  return { path, text, code: withoutComments(text) };
}

function load(pattern: string): SourceFile[] {
  const paths = [...new Bun.Glob(pattern).scanSync(ROOT)].sort();
  return paths.map((path) => sourceFile(path, readFileSync(join(ROOT, path), "utf8")));
}

/** Good enough for this code base: `//` inside a string is told from a comment by what stands before it. */
function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`\\])\/\/[^\n]*/g, "$1");
}

function importsOf(file: SourceFile): string[] {
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*|\brequire\(\s*)["']([^"']+)["']/g;
  return [...file.code.matchAll(pattern)].map((match) => match[1]!);
}

function layerOf(path: string): string {
  const [, first = ""] = path.split("/");
  if (first === "main.ts") return "main";
  return first.endsWith(".ts") || !path.startsWith("src/") ? "shared" : first;
}

/** Problems of one file against the direction of imports; empty when there are none. */
function directionProblems(file: SourceFile): string[] {
  const rank = LAYERS.indexOf(layerOf(file.path));
  if (rank < 0) return [`${file.path}: the folder is not in the list of layers (docs/ARCHITECTURE.md)`];
  return importsOf(file)
    .filter((target) => target.startsWith("."))
    .map((target) => normalize(join(dirname(file.path), target)))
    .filter((target) => LAYERS.indexOf(layerOf(target)) < rank)
    .map((target) => `${file.path} imports ${target}: imports only go down; move what both need to the lower layer`);
}

interface Ban {
  readonly what: RegExp;
  readonly instead: string;
  /** A line that breaks the rule, to show that it is found. */
  readonly example: string;
  applies(path: string): boolean;
}

const PURE_FOLDERS = ["src/torrent/", "src/wire/", "src/swarm/"];
const isPure = (path: string) =>
  PURE_FOLDERS.some((folder) => path.startsWith(folder)) || path === "src/tracker/registry.ts";
const everywhereBut =
  (...paths: string[]) =>
  (path: string) =>
    path.startsWith("src/") && !paths.includes(path);

const BANS: readonly Ban[] = [
  {
    what: /\bDate\b|\bperformance\b|\bsetTimeout\b|\bsetInterval\b|\bsetImmediate\b|\bqueueMicrotask\b/,
    instead: "take `now` as an argument and return when to be woken: pure code has no clock",
    example: "const now = Date.now();",
    applies: isPure,
  },
  {
    what: /\bMath\.random\b|\bgetRandomValues\b|\brandomBytes\b|\brandomUUID\b/,
    instead: "take a seeded generator as an argument",
    example: "const i = Math.random();",
    applies: isPure,
  },
  {
    what: /(?<![.#\w])process\.|\bfetch\(|\bnew Worker\b|\bconsole\./,
    instead: "return an action: pure code touches nothing around it",
    example: "process.env.X",
    applies: isPure,
  },
  {
    what: /\bBun\.(?!CryptoHasher\b)/,
    instead: "return an action; of Bun's parts only CryptoHasher is a pure function",
    example: "Bun.file(path)",
    applies: isPure,
  },
  {
    what: /["'](?:bun:[a-z]+|node:(?!crypto["'])[a-z/]+)["']/,
    instead: "keep sockets, files and calls of the system in the layers above",
    example: 'import { open } from "node:fs";',
    applies: isPure,
  },
  {
    what: /["']bun:ffi["']/,
    instead: "add a system call to src/kernel/libc.ts; other code is linked by src/kernel/ffi.ts",
    example: 'import { dlopen } from "bun:ffi";',
    applies: everywhereBut("src/kernel/ffi.ts"),
  },
  {
    what: /\bprocess\.(?:exit|reallyExit|abort)\b/,
    instead: "throw a Failure or return an exit code; src/main.ts ends the process",
    example: "process.exit(1);",
    applies: everywhereBut("src/main.ts"),
  },
  {
    what: /\bnew Worker\(/,
    instead: "use startWorker of src/kernel/threads.ts, which works in the executable too",
    example: 'new Worker("./x.ts")',
    applies: everywhereBut("src/kernel/threads.ts"),
  },
  {
    what: /\bconsole\./,
    instead: "use Output (src/cli/output.ts): --json promises that nothing else is on stdout",
    example: 'console.log("x");',
    applies: everywhereBut(),
  },
  {
    what: /\bprocess\.std(?:in|out|err)\b|["']node:(?:crypto|stream|http|https|tls)["']/,
    instead: "each costs a start 4 to 14 ms: see src/cli/terminal.ts, src/random-bytes.ts, Bun.CryptoHasher, fetch",
    example: "process.stdout.write(text)",
    // There it is loaded when a key is used.
    applies: everywhereBut("src/torrent/ed25519.ts"),
  },
  {
    what: /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/,
    instead: "handle the error, or say in the block why there is nothing to do",
    example: "try { f(); } catch {}",
    applies: (path) => path.endsWith(".ts"),
  },
  {
    what: /\b(?:test|it|describe)\.(?:only|todo)\b/,
    instead: "run one file with `npm test -- NAME`",
    example: "test.only(",
    applies: (path) => path.startsWith("test/") && path !== "test/architecture.test.ts",
  },
];

function banProblems(file: SourceFile, bans: readonly Ban[] = BANS): string[] {
  return bans
    .filter((ban) => ban.applies(file.path))
    .flatMap((ban) => {
      const found = ban.what.exec(file.code);
      return found ? [`${file.path}: ${found[0].trim()} is banned here: ${ban.instead}`] : [];
    });
}

/** A comment of its own stands at the top, or right after the line that makes a file executable; a test's name says it. */
function headerProblems(file: SourceFile): string[] {
  if (file.path.endsWith(".test.ts")) return [];
  return /^(#![^\n]*\n)?(\/\*\*|\/\/ )/.test(file.text)
    ? []
    : [`${file.path}: begin with a comment that says why the file exists`];
}

function lengthProblems(file: SourceFile): string[] {
  const lines = file.text.split("\n").length;
  return lines <= LINES_MAX ? [] : [`${file.path} has ${lines} lines: split it by purpose (limit ${LINES_MAX})`];
}

function markerProblems(file: SourceFile): string[] {
  const found = /\b(?:TODO|FIXME|XXX|HACK)\b/.exec(file.text);
  return found ? [`${file.path}: ${found[0]}: finish it, or leave it out`] : [];
}

const sources = load("src/**/*.ts");
const tests = load("test/**/*.ts").filter((file) => file.path !== "test/architecture.test.ts");
const scripts = load("{build.ts,tools/**/*.mjs}");
const all = [...sources, ...tests, ...scripts];

describe("architecture", () => {
  test("there are files to look at", () => {
    expect(sources.length).toBeGreaterThan(20);
  });
  test("imports only go down", () => {
    expect(sources.flatMap(directionProblems)).toEqual([]);
  });
  test("calls that belong into one place are only there", () => {
    expect(all.flatMap((file) => banProblems(file))).toEqual([]);
  });
  test("files are short and say why they exist", () => {
    expect(all.flatMap((file) => [...lengthProblems(file), ...headerProblems(file)])).toEqual([]);
  });
  test("nothing is left for later", () => {
    expect(all.flatMap(markerProblems)).toEqual([]);
  });
});

describe("the rules themselves", () => {
  test("an import that goes up is found", () => {
    const up = sourceFile("src/wire/x.ts", 'import { a } from "../peer/api.ts";\nimport "../units.ts";');
    expect(directionProblems(up)).toHaveLength(1);
    const down = sourceFile("src/peer/x.ts", 'import type { a } from "../wire/frames.ts";\nimport "./y.ts";');
    expect(directionProblems(down)).toEqual([]);
  });
  test("a folder that nobody placed is found", () => {
    expect(directionProblems(sourceFile("src/misc/x.ts", ""))).toHaveLength(1);
  });
  for (const ban of BANS) {
    test(`found: ${ban.example}`, () => {
      const path = ["src/wire/x.ts", "src/disk/x.ts", "test/x.test.ts"].find(ban.applies)!;
      expect(banProblems(sourceFile(path, ban.example), [ban])).toHaveLength(1);
      expect(banProblems(sourceFile(path, `/** ${ban.example} */\n// ${ban.example}`), [ban])).toEqual([]);
    });
  }
  test("a long file, a missing header and a marker are found", () => {
    expect(lengthProblems(sourceFile("a.ts", "\n".repeat(LINES_MAX)))).toHaveLength(1);
    expect(headerProblems(sourceFile("a.ts", "const a = 1;"))).toHaveLength(1);
    expect(markerProblems(sourceFile("a.ts", "// TO" + "DO: later"))).toHaveLength(1);
  });
});
