/**
 * Other values for the numbers of `src/swarm/policy.ts`, for one run: the module is rewritten while it is loaded,
 * so that a sweep can try any of them and none has to become an option of the product.
 *
 * It works for modules that are loaded after the call: whoever uses it imports the fleet dynamically.
 */
import { readFileSync } from "node:fs";
import { ExitCode, Failure } from "../../src/errors.ts";

const POLICY = /\/src\/swarm\/policy\.ts$/;

/** Constants by name. A name that the module does not export as a constant is refused when it is loaded. */
export function overridePolicy(values: ReadonlyMap<string, number>): void {
  if (values.size === 0) return;
  Bun.plugin({
    name: "policy overrides",
    setup(build) {
      build.onLoad({ filter: POLICY }, ({ path }) => {
        let source = readFileSync(path, "utf8");
        for (const [name, value] of values) source = replaced(source, name, value);
        return { contents: source, loader: "ts" };
      });
    },
  });
}

function replaced(source: string, name: string, value: number): string {
  const declaration = new RegExp(`^export const ${name} = [^;]+;`, "m");
  if (!declaration.test(source))
    throw new Failure(ExitCode.usage, "unknown-policy", `policy.ts has no constant ${name}`);
  return source.replace(declaration, `export const ${name} = ${value};`);
}
