/**
 * `npm run check`: types, lint and format, and the fast tests; the one command before every commit.
 * `--no-tests` leaves the tests out, for who runs all of them right after.
 */
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
/** In a log, escape sequences would be all that is to be seen. */
const COLORS = process.stdout.isTTY ? [] : ["--colors=off"];
const STEPS: readonly (readonly [string, readonly string[]])[] = [
  ["types", ["node_modules/.bin/tsc", "-p", "."]],
  ["lint and format", ["node_modules/.bin/biome", "ci", "--error-on-warnings", ...COLORS, "."]],
  ...(process.argv.includes("--no-tests")
    ? []
    : [["fast tests", [process.execPath, "test/run.ts", "--fast"]] as const]),
];

// All of them run, so that one look shows everything that is to be mended.
const failed = STEPS.filter(([name, command]) => {
  console.log(`check: ${name}`);
  return Bun.spawnSync([...command], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] }).exitCode !== 0;
});
console.log(failed.length === 0 ? "check: all is well" : `check: failed: ${failed.map(([name]) => name).join(", ")}`);
process.exit(failed.length === 0 ? 0 : 1);
