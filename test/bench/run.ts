/**
 * Runs a benchmark by name: `npm run bench -- NAME [options]`. Each is a file of this folder that exports
 * `main(args)`; without a name the list is shown.
 */
import { readdirSync } from "node:fs";

const NOT_BENCHMARKS = new Set(["run.ts", "report.ts"]);

function names(): string[] {
  const files = readdirSync(import.meta.dir).filter((file) => file.endsWith(".ts") && !NOT_BENCHMARKS.has(file));
  return files.map((file) => file.slice(0, -".ts".length)).sort();
}

const [name, ...args] = process.argv.slice(2);
if (name === undefined || !names().includes(name)) {
  console.error(`usage: bench NAME [options], where NAME is one of: ${names().join(", ")}`);
  process.exit(2);
}
const { main } = (await import(`./${name}.ts`)) as { main(args: string[]): Promise<void> };
await main(args);
