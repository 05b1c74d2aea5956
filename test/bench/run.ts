/**
 * Runs a benchmark by name: `npm run bench -- NAME [options]`. Each is a file of this folder that exports
 * `main(words)`; what they share is in `shared/`. Without a name the list is shown. The built executable is
 * measured, `DISKSWARM_BINARY` where that is set.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, Failure } from "../../src/errors.ts";

const ROOT = join(import.meta.dir, "..", "..");

function names(): string[] {
  const files = readdirSync(import.meta.dir).filter((file) => file.endsWith(".ts") && file !== "run.ts");
  return files.map((file) => file.slice(0, -".ts".length)).sort();
}

function build(): void {
  const { exitCode } = Bun.spawnSync([process.execPath, "build.ts"], { cwd: ROOT, stdio: ["ignore", 2, 2] });
  if (exitCode !== 0) process.exit(ExitCode.failed);
  process.env.DISKSWARM_BINARY = join(ROOT, "dist/diskswarm");
}

const [name, ...words] = process.argv.slice(2);
if (name === undefined || !names().includes(name)) {
  console.error(`usage: bench NAME [options], where NAME is one of: ${names().join(", ")}`);
  process.exit(ExitCode.usage);
}
if (!process.env.DISKSWARM_BINARY && !words.includes("--help")) build();
const { main } = (await import(`./${name}.ts`)) as { main(words: string[]): Promise<void> };
try {
  await main(words);
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(`bench ${name}: ${error.message}`);
  process.exit(error.exitCode);
}
